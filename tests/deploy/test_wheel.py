"""What `pip install` brings: the wheel, in an environment of its own, serves in an empty folder."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import httpx
import pytest

from tests.deploy.processes import ROOT, chain, eventually, running

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(folder),
        str(ROOT),
    ]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_has_the_packages_the_page_and_the_bundles_and_nothing_of_the_tests(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert wheel.name.startswith("fathom_depth-")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    ours = ("client/", "model/", "service/", "training/", "loadtest/")
    for file in tracked.stdout.splitlines():
        if file.startswith(ours) and (ROOT / file).exists():
            assert file in names
        if file.startswith("bundles/"):
            assert file.replace("bundles/", "fathom_bundles/", 1) in names
    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == {
        "fathom.py",
        "fathom_bundles",
        *(package.rstrip("/") for package in ours),
    }


def test_installed_it_serves_the_shipped_bundles_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    venv.create(home, with_pip=False)
    python = home / "bin/python"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-deps",
        str(wheel),
    ]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # What it depends on comes from the environment of the tests, but never Fathom itself.
    lib = Path(sysconfig.get_path("purelib", vars={"base": str(home)}))
    others = tmp_path / "others"
    others.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "fathom" not in entry.name and not entry.name.endswith(".pth"):
            (others / entry.name).symlink_to(entry)
    (lib / "others.pth").write_text(f"{others}\n", encoding="utf-8")
    empty, log = tmp_path / "empty", tmp_path / "log"
    empty.mkdir()
    with running([home / "bin/fathom", "serve", "--port", "0"], log, cwd=empty):
        eventually(lambda: "http://" in log.read_text(), "the server's address")
        found = re.search(r"http://[\d.:]+", log.read_text())
        assert found, log.read_text()
        with httpx.Client(base_url=found[0]) as client:
            eventually(lambda: client.get("/health/ready").is_success, "readiness")
            answer = client.post("/v1/infer", json={"model": "graph", "input": chain(4)}).json()
            assert answer["results"][0]["answer"] is True
            assert client.get("/version").json()["fathom"] != "unknown"
