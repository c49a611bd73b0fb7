"""What a run leaves behind: files, page and pictures, and drawing them again."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loadtest.analyse.verdict import judge
from loadtest.drive.target import Target
from loadtest.plan import LoadPlan
from loadtest.show.page import write_page
from loadtest.show.report import build_report
from tests.loadtest.made import findings, load_cell, result
from tests.loadtest.running import ROOT, invoke


def pages(folder: Path) -> str:
    return (folder / "report.html").read_text()


def test_a_run_writes_every_file(finished: Path) -> None:
    report = json.loads((finished / "report.json").read_text())
    assert report["schema_version"] == 2
    assert report["verdict"] == {
        "passed": True, "exit_code": 0, "reasons": [],
        "words": "Kept: p99 within 2000 ms, at most 1 % of the requests unanswered.",
    }  # fmt: skip
    assert report["headline"].startswith("stub 3 answers depth 8 in ")
    assert report["target"]["version"] == "3"
    assert re.fullmatch(r"[0-9a-f]{64}", report["target"]["bundle_sha256"])
    assert report["plan"]["slo_p99_ms"] == 2000
    with (finished / "summary.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert {(line["phase"], line["loop"]) for line in lines} >= {("alone", "closed"), ("load", "closed")}
    requests = [json.loads(line) for line in (finished / "requests.jsonl").read_text().splitlines()]
    assert len(requests) == sum(cell["requests"] for cell in report["cells"])
    assert sum(r["measured"] for r in requests if r["phase"] == "load") == sum(
        sum(row["outcomes"].values()) for row in report["summaries"] if row["phase"] == "load"
    )


def test_the_key_is_written_nowhere(finished: Path) -> None:
    for file in ("report.json", "report.html", "summary.csv", "requests.jsonl"):
        assert "hush" not in (finished / file).read_text()


def test_the_documentation_explains_every_field_of_the_report(finished: Path) -> None:
    text = (ROOT / "docs/loadtest.md").read_text()
    report = json.loads((finished / "report.json").read_text())

    def names(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            for name, inner in value.items():
                # what the server says, and what counts things by their own names, is not ours to explain
                if name not in (
                    "server",
                    "datatypes",
                    "errors",
                    "halt_reasons",
                    "used_depths",
                    "packages",
                    "halting",
                ):
                    yield from names(inner)
                yield name
        elif isinstance(value, list):
            for inner in value:
                yield from names(inner)

    missing = {name for name in names(report) if f"`{name}`" not in text}
    assert not missing


def test_the_page_is_self_contained_and_holds_every_picture(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    pictures = list((finished / "pictures").glob("*.png"))
    assert len(pictures) >= 6
    assert page.count("<figure") == len(pictures) == len(list((finished / "pictures").glob("*.svg")))
    assert not re.search(r'(?:src|href|srcset)="(?!data:)', page)
    assert json.loads((finished / "report.json").read_text())["headline"] in page
    assert "prefers-color-scheme: dark" in page


def test_several_levels_are_chosen_from_on_the_page(tmp_path: Path) -> None:
    plan = LoadPlan(url="http://h", depths=(1, 8), concurrency=(2, 4))
    cells = [
        result(n, load_cell(level, depth), [5.0 + depth + 0.1 * i for i in range(40)])
        for n, (level, depth) in enumerate([(2.0, 1), (2.0, 8), (4.0, 1), (4.0, 8)])
    ]
    target = Target("http://h", "m", "1", "graph", 64, None, {}, {})
    found = findings(plan, *cells)
    report = build_report(found, target, judge(found))
    assert write_page(report, found, tmp_path, ("svg",)) is None
    page = pages(tmp_path)
    assert re.findall("<option>(.*?)</option>", page) == ["closed, 2 users", "closed, 4 users"]
    assert (tmp_path / "pictures/distribution-closed-4-users.svg").exists()
    for load in ("closed, 2 users", "closed, 4 users"):
        assert page.count(f'<figure data-load="{load}"') >= 4


def test_a_report_is_drawn_again_from_its_files(finished: Path, tmp_path: Path) -> None:
    code, text = invoke("render", str(finished), "--formats", "pdf", "--out", str(tmp_path / "again"))
    assert code == 0, text
    assert pages(tmp_path / "again") == pages(finished)
    drawn = {file.stem for file in (tmp_path / "again/pictures").glob("*.pdf")}
    assert drawn == {file.stem for file in (finished / "pictures").glob("*.png")}


def test_of_a_report_json_alone_everything_is_drawn_but_single_requests(
    finished: Path, tmp_path: Path
) -> None:
    shutil.copy(finished / "report.json", tmp_path)
    code, text = invoke("render", str(tmp_path / "report.json"), "--formats", "svg")
    assert code == 0, text
    drawn = {file.stem for file in (tmp_path / "pictures").glob("*.svg")}
    whole = {file.stem for file in (finished / "pictures").glob("*.svg")}
    assert whole - drawn == {"distribution", "latency_over_time", "head_of_line"}
    assert "Under load" in pages(tmp_path)


def test_without_matplotlib_the_page_has_its_tables_and_says_what_is_missing(
    finished: Path, tmp_path: Path
) -> None:
    (tmp_path / "hide.py").write_text("import sys\nsys.modules['matplotlib'] = None\n")
    shutil.copy(finished / "report.json", tmp_path)
    script = "import hide; from loadtest.cli import app; app(['render', sys.argv[1]])"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {script}", str(tmp_path)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "matplotlib is not installed" in done.stdout
    assert "Under load" in pages(tmp_path)
    assert "<figure" not in pages(tmp_path)
