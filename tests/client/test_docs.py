"""The Python in the documentation is run, page by page, against the shipped bundles on a real server."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import fathom
from client.cli import app as commands
from client.terms import TAKES, Halting, Intervention, Latents, Samples, Terms
from service.http.v1 import schemas
from tests.service.servers import shipped_running

PAGES = ["docs/client.md", "docs/http.md", "README.md"]
EXAMPLES = {
    page: re.findall(r"```python\n(.+?)```", Path(page).read_text("utf-8"), re.DOTALL) for page in PAGES
}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with shipped_running() as client:
        yield str(client.base_url)


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_prints_what_the_page_says(
    address: str, page: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert EXAMPLES[page], f"{page} has no Python"
    names: dict[str, Any] = {}
    try:
        for example in EXAMPLES[page]:
            exec(compile(example.replace("http://localhost:8000", address), page, "exec"), names)
            promised = re.findall(r"^ *print\(.+\)  # (.+)$", example, re.MULTILINE)
            assert promised, example
            assert capsys.readouterr().out.splitlines() == promised
    finally:
        if "client" in names:  # a page leaves its client open
            names["client"].close()


def test_every_command_of_the_page_on_the_command_line_runs(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Path("docs/cli.md").read_text("utf-8")
    lines = "".join(re.findall(r"```sh\n(.+?)```", page, re.DOTALL)).splitlines()
    assert len(lines) > 15
    monkeypatch.setenv("FATHOM_URL", address)
    monkeypatch.chdir(tmp_path)
    for line in lines:
        before, _, command = line.rpartition("fathom ")
        written = None
        if before or not command.startswith(("infer", "models")):  # what makes a file or goes into a pipe
            shell = before.rstrip(" |") or line
            written = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True).stdout
        if before or not line.startswith("echo"):
            done = CliRunner().invoke(fathom.app, shlex.split(command), input=written, prog_name="fathom")
            assert (done.exit_code, done.stderr) == (0, ""), line
    assert done.stdout.startswith("3 problems: 3 answered, right 2 of 2 (100.0%)")
    with np.load("states.npz") as states:
        assert sorted(states) == ["problem_0", "problem_0.steps"]


def test_the_page_on_the_command_line_names_every_flag() -> None:
    page = Path("docs/cli.md").read_text("utf-8")
    flags = {
        flag
        for command in typer.main.get_group(commands).commands.values()
        for option in command.params
        for flag in (*option.opts, *option.secondary_opts)
        if flag.startswith("--")
    }
    assert len(flags) > 25
    for flag in flags:
        assert re.search(rf"{flag}\b", page), flag


def test_the_client_takes_what_the_server_takes() -> None:
    """A field that is new on the one side is missed on the other."""
    server = set(schemas.InferRequest.model_fields) - {"model", "input", "stream"}
    assert set(Terms.__annotations__) == set(TAKES) == server | {"request_id"}
    assert set(Halting.__annotations__) == set(schemas.Halting.model_fields)
    assert set(Latents.__annotations__) == set(schemas.Latents.model_fields) - {"encoding"}
    assert set(Samples.__annotations__) == set(schemas.Samples.model_fields)
    assert set(Intervention.__annotations__) == set(schemas.Intervention.model_fields)


def test_the_page_names_every_term_and_every_error() -> None:
    import client

    page = Path("docs/client.md").read_text("utf-8")
    errors = [
        name
        for name in client.__all__
        if isinstance(kind := getattr(client, name), type) and issubclass(kind, Exception)
    ]
    for name in (*TAKES, *errors):
        assert f"`{name}`" in page, name
