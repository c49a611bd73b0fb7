"""docs/own-model.md is followed: a module that nothing here was written for, by the page's commands alone."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.deploy.processes import ROOT, eventually, running

PAGE = (ROOT / "docs/own-model.md").read_text("utf-8")
MODULE, PROBLEMS = re.findall(r"```python\n(.+?)```", PAGE, re.DOTALL)
LINES = "".join(re.findall(r"```sh\n(.+?)```", PAGE, re.DOTALL)).splitlines()


def line(*words: str) -> str:
    """The page's command that has these words."""
    (found,) = (written for written in LINES if all(word in written for word in words))
    return found


class Shop:
    """A folder of somebody's, in which the page's commands are typed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}

    def argv(self, command: str) -> list[str]:
        assert command.startswith("fathom "), command
        return [sys.executable, "-m", "fathom", *shlex.split(command)[1:]]

    def run(self, command: str) -> str:
        done = subprocess.run(
            self.argv(command),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    shop = Shop(tmp_path_factory.mktemp("shop"))
    (shop.folder / "parity.py").write_text(MODULE)
    subprocess.run([sys.executable, "-c", PROBLEMS], cwd=shop.folder, check=True)
    shop.run(line("export", "parity/1"))
    shop.run(line("export", "parity/2"))
    return shop


@pytest.fixture(scope="module")
def address(shop: Shop) -> Iterator[str]:
    log = shop.folder / "serve.log"
    command = shop.argv(line("serve").replace("--port 8000", "--host 127.0.0.1 --port 0"))
    os.environ["PYTHONPATH"] = str(ROOT)
    try:
        with running(command, log, shop.folder):
            eventually(lambda: "http://" in log.read_text(), "the server's address")
            found = re.search(r"http://[\d.:]+", log.read_text())
            assert found, log.read_text()
            eventually(lambda: httpx.get(f"{found[0]}/health/ready").is_success, "readiness")
            yield found[0]
    finally:
        del os.environ["PYTHONPATH"]


def test_the_module_of_the_page_is_as_short_as_it_says() -> None:
    assert sum(bool(text.strip()) for text in MODULE.splitlines()) <= 32
    assert "fathom" not in MODULE, "no line of the service"


def test_the_page_names_all_that_a_module_may_have() -> None:
    for name in (
        "example_inputs",
        "embed",
        "step",
        "readout",
        "readout_kind",
        "labels",
        "scores",
        "score_rules",
    ):
        assert f"`{name}" in PAGE, name
    for name in ("score_defaults", "axes", "longest", "mask", "max_steps"):
        assert f"`{name}" in PAGE, name


def test_the_exported_module_is_checked_and_calibrated(shop: Shop) -> None:
    assert shop.run(line("check")).splitlines()[-1] == "bundles/parity/1: sound"
    manifest = json.loads((shop.folder / "bundles/parity/2/manifest.json").read_text())
    ranks = {spec["name"]: len(spec["shape"]) for spec in manifest["state"]}
    assert ranks == {"odd": 2, "ones": 1}
    assert manifest["halting"]["criterion"] != "none"
    assert max(point["guaranteed"] for point in manifest["calibration"]["points"]) > 0.95


def test_it_is_asked_and_watched(shop: Shop, address: str) -> None:
    url = f" --url {address}"
    asked = line("--criterion still")
    (result,) = json.loads(shop.run(f"{asked} --json{url}"))["results"]
    assert (result["answer"], result["halt_reason"]) == (["odd", "even", "even", "odd"], "halted")
    assert result["steps"] < 8
    watched = line("--stream")
    said = [json.loads(text) for text in shop.run(f"{watched} --criterion none{url}").splitlines()]
    assert len(said) >= 6
    assert said[-1]["results"][0]["answer"] == ["odd", "even", "even", "odd"]


def test_it_is_load_tested_and_more_steps_make_it_right(shop: Shop, address: str) -> None:
    command = line("loadtest").replace("http://127.0.0.1:8000", address)
    quick = command.replace("--duration 10", "--duration 1 --warmup 0.2 --alone 0.3 --probe 0 --out report")
    assert quick != command
    shop.run(quick)
    summaries = json.loads((shop.folder / "report/report.json").read_text())["summaries"]
    right = {each["steps_asked"]: each["accuracy"] for each in summaries if each["phase"] == "load"}
    shares = {depth: seen["correct"] / seen["labelled"] for depth, seen in right.items()}
    assert shares[4] < shares[16], "rows of up to 32 places, one place a step"
