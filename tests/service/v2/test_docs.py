"""docs/v2.md is run: its request and its program, against a bundle that ships."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.app import create_app
from service.http.v2.batch import USUAL
from service.http.v2.body import Parameters
from service.settings import read_settings
from tests.service.servers import eventually, uvicorn_running

PAGE = Path("docs/v2.md").read_text(encoding="utf-8")
(COMMAND,) = (block for block in re.findall(r"```sh\n(.+?)```", PAGE, re.DOTALL) if "curl" in block)
(PROGRAM,) = re.findall(r"```python\n(.+?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a server with one shipped bundle."""
    repository = tmp_path_factory.mktemp("bundles")
    shutil.copytree("bundles/graph", repository / "graph")
    with uvicorn_running(create_app(read_settings({"repository": repository}))) as url:
        eventually(lambda: httpx.get(f"{url}/health/ready").status_code == 200)
        yield url.removeprefix("http://")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not there")
def test_the_command_of_the_page_infers(address: str) -> None:
    script = COMMAND.replace("localhost:8000", address)
    done = subprocess.run(["bash", "-ec", script], capture_output=True, text=True, check=True)
    assert [name for name in (*USUAL, "state") if f'"name":"{name}"' in done.stdout] == [*USUAL, "state"]


def test_the_program_of_the_page_infers(address: str) -> None:
    program = PROGRAM.replace("localhost:8000", address)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "b'halted'" in done.stdout or "b'budget'" in done.stdout


def test_the_page_names_every_parameter() -> None:
    for name in Parameters.model_fields:
        assert f"`{name}`" in PAGE
