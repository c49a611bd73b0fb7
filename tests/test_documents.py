"""The pages keep their word: they say of shipped models what manifests say, and links lead somewhere."""

from __future__ import annotations

import json
import re
from itertools import groupby
from pathlib import Path

import pytest

from model.bundle import read_bundle
from model.calibration import Calibration
from model.manifest import Manifest
from tests.service.servers import shipped_running
from training.judge.bounds import lower_bound
from training.judge.report import percent

ROOT = Path(__file__).parent.parent
PAGES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}
README = (ROOT / "README.md").read_text(encoding="utf-8")
HALTING, RESULTS, TABLES = (PAGES[name] for name in ("halting.md", "results.md", "results-tables.md"))
MANIFESTS = {
    f"{path.parent.parent.name}/{path.parent.name}": read_bundle(path.parent).manifest
    for path in sorted((ROOT / "bundles").glob("*/*/manifest.json"))
}
RISK, CRITERIA = 0.05, 10  # of a promise; among so many criteria it is divided


def rows(text: str, header: str) -> list[list[str]]:
    """The cells of the table whose header begins so."""
    table = re.search(rf"^{re.escape(header)}.*\n\| ---.*\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert table, f"no table begins with {header}"
    lines = [line.strip("|\n").split("|") for line in table[1].splitlines()]
    return [[re.sub(r"^`([^`]*)`$", r"\1", cell.strip()) for cell in line] for line in lines]


def calibration(manifest: Manifest) -> Calibration:
    assert manifest.calibration is not None
    return manifest.calibration


def slug(heading: str) -> str:
    """The anchor that a heading has on GitHub."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", ["README.md", *sorted(PAGES)])
def test_links_lead_to_a_file_and_a_heading(page: str) -> None:
    text, folder = (README, ROOT) if page == "README.md" else (PAGES[page], ROOT / "docs")
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        target, _, anchor = link.partition("#")
        path = folder / target if target else folder / page
        assert path.exists(), f"{page} links to {link}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {slug(heading) for heading in headings}, f"{page} links to {link}"


def test_the_readme_leads_to_every_page() -> None:
    linked = set(re.findall(r"\]\(docs/([\w-]+\.md)", README))
    assert set(PAGES) <= linked


def test_ten_questions_have_answers_that_are_there() -> None:
    answers = rows(PAGES["architecture.md"], "| Question | Answer |")
    assert len(answers) == 10
    for question, answer in answers:
        assert question.endswith("?")
        named = re.findall(r"\b((?:client|model|service|training|loadtest|docs)/[\w/.]*)", answer)
        assert named, question
        for path in named:
            assert (ROOT / path).exists(), f"{question} {path}"


def test_every_room_is_there_and_every_package_is_among_them() -> None:
    rooms = rows(PAGES["architecture.md"], "| Folder | Who lives there |")
    named = [room for row in rooms for room in re.findall(r"([a-z]\w*(?:/\w+)*)/`?", " ".join(row))]
    for room in named:
        assert (ROOT / room).is_dir(), room
    assert {"client", "model", "training", "service", "loadtest", "examples"} <= {*named}


def test_the_bundles_that_pages_name_ship() -> None:
    for page, text in (("README.md", README), *PAGES.items()):
        for name in re.findall(r"bundles/((?:graph|logic|text|text-words)/\d+)\b", text):
            commanded = f"--out bundles/{name}" in text
            assert name in MANIFESTS or commanded, f"{page} names bundles/{name}"


def test_results_name_every_model_with_its_rule_its_mean_steps_and_how_far_it_was_trained() -> None:
    table = {re.sub(r"[\[\]`]|\(.*", "", row[0]): row for row in rows(RESULTS, "| Model | Question |")}
    assert set(table) == set(MANIFESTS)
    for name, (_, _, trained, _, rule, steps) in table.items():
        manifest = MANIFESTS[name]
        default = manifest.halting
        assert rule == f"`{default.criterion}` {default.threshold:g}", name
        point = next(each for each in calibration(manifest).points if each.rule() == default.rule())
        assert steps == f"{point.mean_steps:.1f}", name
        assert f"{manifest.training['config']['curriculum']['end']} " in trained, name


def test_tables_say_how_large_each_model_is_and_what_its_training_took() -> None:
    for name, manifest in MANIFESTS.items():
        (said,) = re.findall(rf"^`bundles/{name}`: (.+)$", TABLES, re.MULTILINE)
        facts = manifest.training
        assert f"{facts['parameters']:,} parameters" in said, name
        assert f"{facts['updates']:,} updates" in said, name
        seconds = re.search(r"([\d,]+) s\b", said)
        assert seconds, name
        assert abs(int(seconds[1].replace(",", "")) - facts["seconds"]) <= 1, name
        rule = manifest.halting
        section = TABLES.partition(f"`bundles/{name}`: ")[2].partition("\n## ")[0]
        assert f"`{rule.criterion}` at {rule.threshold:g}, patience {rule.patience}: loses" in section, name


def test_halting_says_how_much_each_calibration_measured() -> None:
    table = rows(HALTING, "| Bundle | problems of each difficulty |")
    assert {row[0] for row in table} == set(MANIFESTS)
    for name, each, difficulties, budget, rules in table:
        found = calibration(MANIFESTS[name])
        assert int(each.replace(",", "")) * int(difficulties) == found.problems, name
        assert (int(budget), int(rules)) == (found.max_steps, len(found.points)), name


@pytest.mark.parametrize("name", sorted(MANIFESTS))
def test_halting_shows_of_each_criterion_the_cheapest_of_its_best_guarantees(name: str) -> None:
    found = calibration(MANIFESTS[name])
    plain = re.sub(r"(\d),(\d{3})", r"\1\2", HALTING)
    assert f"**`{name}`**: {found.description.partition(';')[0]}." in plain
    shown = rows(HALTING.partition(f"**`{name}`**:")[2], "| Criterion | threshold |")
    expected = []
    for _, grouped in groupby(found.points, key=lambda point: point.criterion):
        points = list(grouped)
        best = max(point.guaranteed for point in points)
        point = min((each for each in points if each.guaranteed == best), key=lambda each: each.mean_steps)
        expected.append(
            [
                *(point.criterion, f"{point.threshold:g}", f"{point.patience}", f"{point.mean_steps:.1f}"),
                *(percent(point.accuracy), percent(point.hardest_accuracy), f"{point.guaranteed:.2%}"),
            ]
        )
    assert [[*row[:6], row[6].replace(" ", "")] for row in shown] == expected


def test_halting_says_what_can_be_promised_at_most() -> None:
    for problems, promise in rows(HALTING, "| Problems of each difficulty, all right |"):
        count = int(problems.replace(",", ""))
        assert 0 <= lower_bound(count, count, RISK / CRITERIA) - float(promise) < 1e-4
        measured = {
            max(point.guaranteed for point in found.points)
            for found in map(calibration, MANIFESTS.values())
            if found.problems == count * int(_difficulties(found))
        }
        assert measured == {float(promise)}


def _difficulties(found: Calibration) -> int:
    return found.description.partition("of ")[2].partition(";")[0].count(",") + 1


def test_the_promises_that_pages_speak_of_are_offered() -> None:
    offers = {name: {t for t in (0.99, 0.995) if calibration(m).cheapest(t)} for name, m in MANIFESTS.items()}
    assert "All four bundles offer 0.99; `text/1` and `logic/2` offer 0.995." in HALTING
    assert len(MANIFESTS) == 4
    assert all(0.99 in offered for offered in offers.values())
    assert [name for name, offered in offers.items() if 0.995 in offered] == ["logic/2", "text/1"]
    for target in re.findall(r'"target_accuracy": ([\d.]+)', PAGES["http.md"] + HALTING + README):
        for name, manifest in MANIFESTS.items():
            assert calibration(manifest).cheapest(float(target)), f"{name} refuses {target}"


def test_the_first_answer_on_the_page_of_the_api_is_that_of_its_first_request() -> None:
    asked = re.findall(r"-d '(.+?)'", PAGES["http.md"], re.DOTALL)
    shown = re.findall(r"```json\n(.+?)```", PAGES["http.md"], re.DOTALL)
    expected = next(answer for answer in map(json.loads, shown) if "results" in answer)
    with shipped_running() as client:
        given = client.post("/v1/infer", content=asked[0]).json()
    (said,), (true,) = expected["results"], given["results"]
    assert expected["usage"] == given["usage"]
    assert said.pop("probabilities") == pytest.approx(true.pop("probabilities"), abs=1e-6)
    assert said == true


def test_the_example_of_the_readme_stops_when_the_readme_says() -> None:
    turned, halted = re.findall(r"[Aa]t step (\d+)", README)
    problem = {"edges": [["a", "b"], ["b", "c"], ["c", "d"]], "source": "a", "target": "d"}
    with shipped_running() as client:
        body = {"model": "graph", "input": problem, "max_steps": 16, "include": ["trace"]}
        (result,) = client.post("/v1/infer", json=body).json()["results"]
    answers = [step["answer"] for step in result["trace"]]
    assert answers == [False] * (int(turned) - 1) + [True] * (int(halted) - int(turned) + 1)
    assert (result["steps"], result["halt_reason"]) == (int(halted), "halted")
