"""docs/http.md and the README are run: every request in them, against the shipped bundle."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.app import create_app
from service.http.v1.answer_schemas import ErrorBody, InferAnswer
from service.settings import read_settings
from tests.service.servers import eventually, uvicorn_running

PAGE = Path("docs/http.md").read_text(encoding="utf-8")
README = Path("README.md").read_text(encoding="utf-8")
COMMANDS = [block for block in re.findall(r"```sh\n(.+?)```", PAGE + README, re.DOTALL) if "curl" in block]
SHOWN = [json.loads(block) for block in re.findall(r"```json\n(.+?)```", PAGE, re.DOTALL)]
ANSWERS = [shown for shown in SHOWN if "error" not in shown]
ERRORS = [shown for shown in SHOWN if "error" in shown]

pytestmark = [
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not there"),
]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with uvicorn_running(create_app(read_settings({}))) as url:
        eventually(lambda: httpx.get(f"{url}/health/ready").status_code == 200)
        yield url


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.split(" -d")[0].split("8000")[-1])
def test_a_command_of_the_page_does_what_the_page_says(address: str, command: str, tmp_path: Path) -> None:
    script = command.replace("http://localhost:8000", address)
    done = subprocess.run(["bash", "-ec", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    if "frames" in command:
        assert (tmp_path / "frames.bin").stat().st_size > 1000
    elif "dropped_steps" in command:
        assert done.stdout.strip() == '"dropped_steps":0', "curl reads as fast as one model thinks"
    elif "stream" in command:
        assert "event: done" in done.stdout
    elif "/v1/infer" in command:
        body = json.loads(done.stdout)
        wrong = any(fault in command for fault in ('["b"]]', "T & & F"))
        (ErrorBody if wrong else InferAnswer).model_validate(body)
        assert not wrong or body in ERRORS, "the page shows the very answer"
        warned = '"kl"' in command or "F|F|F|F" in command
        for result in [] if wrong else body["results"]:
            assert ("warnings" in result) is warned
        if '"kl"' in command:
            assert body["results"][0]["warnings"] == ANSWERS[1]["results"][0]["warnings"]
        if '"latent_diff"' in command:
            assert (body["results"][0]["answer"], body["results"][0]["steps"]) == (True, 5)
    else:
        assert '{"error":' not in done.stdout


def test_the_page_shows_an_answer_and_an_error_in_their_real_shape() -> None:
    assert len(ANSWERS) == 2
    for answer in ANSWERS:
        InferAnswer.model_validate(answer)
    assert len(ERRORS) == 2
    for error in ERRORS:
        ErrorBody.model_validate(error)
