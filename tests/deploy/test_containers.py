"""The image and compose.yaml, for real: start, health, an answer, a stream, no privileges, drain.

Build the image first (`make image`); skipped where no containers can run or the image is not there.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import httpx
import pytest

from tests.deploy.processes import ROOT, eventually, exactly

IMAGE = os.environ.get("FATHOM_IMAGE", "fathom:cpu")
BASE = "docker.io/library/python:3.11-slim-bookworm"
SIZE_LIMIT = 450 * 10**6  # bytes beyond the base image


def run(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def succeeds(*command: str) -> bool:
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0


def tools() -> tuple[str, tuple[str, ...]]:
    """The program for containers and the one for compose files; skips where there are none."""
    if succeeds("docker", "info") and succeeds("docker", "compose", "version"):
        return "docker", ("docker", "compose")
    if succeeds("podman", "info") and succeeds("podman-compose", "--version"):
        return "podman", ("podman-compose",)
    pytest.skip("neither docker compose nor podman-compose can run containers here")


@dataclass
class Composed:
    """`docker compose up` in a project of its own, on a free port of loopback."""

    engine: str
    container: str
    url: str

    def inspect(self, template: str) -> str:
        return run(self.engine, "inspect", self.container, "--format", template)

    def inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        whole = (self.engine, "exec", self.container, *command)
        return subprocess.run(whole, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def composed() -> Iterator[Composed]:
    engine, compose = tools()
    if not succeeds(engine, "image", "inspect", IMAGE):
        pytest.skip(f"there is no image {IMAGE}: build it with `make image`")
    project = f"fathom-test-{uuid.uuid4().hex[:8]}"
    with socket.create_server(("127.0.0.1", 0)) as found_free:
        port = found_free.getsockname()[1]
    compose = (*compose, "--project-name", project)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FATHOM_PORT", str(port))
        patch.setenv("FATHOM_BIND", "127.0.0.1")
        patch.setenv("FATHOM_IMAGE", IMAGE)
        try:
            run(*compose, "up", "--detach", "--no-build")
            url = f"http://127.0.0.1:{port}"
            eventually(lambda: httpx.get(f"{url}/health/ready").is_success, "readiness")
            yield Composed(engine, container_of(engine, project), url)
        finally:
            run(*compose, "down", check=False)


def container_of(engine: str, project: str) -> str:
    found = run(engine, "ps", "--filter", f"name={project}", "--format", "{{.Names}}").split()
    assert len(found) == 1, f"no profile was asked for, and these came up: {found}"
    return found[0]


def test_the_image_is_small(composed: Composed) -> None:
    size = int(run(composed.engine, "image", "inspect", IMAGE, "--format", "{{.Size}}"))
    if not succeeds(composed.engine, "image", "inspect", BASE):
        pytest.skip("the base image is not here to compare with")
    base = int(run(composed.engine, "image", "inspect", BASE, "--format", "{{.Size}}"))
    assert size - base < SIZE_LIMIT


def test_it_answers_and_streams(composed: Composed) -> None:
    answer = httpx.post(f"{composed.url}/v1/infer", json=exactly(5)).raise_for_status().json()
    assert answer["results"][0]["steps"] == 5
    with httpx.stream("POST", f"{composed.url}/v1/infer", json=exactly(5, stream=True)) as stream:
        names = [line for line in stream.iter_lines() if line.startswith("event: ")]
    assert names == ["event: step"] * 5 + ["event: done"]


def test_its_healthcheck_passes(composed: Composed) -> None:
    command = json.loads(composed.inspect("{{json .Config.Healthcheck.Test}}"))
    if len(command) == 1:  # podman keeps the words in one string
        command = command[0].split()
    done = composed.inside(*command[1:])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("command", "works"),
    [
        (("sh", "-c", "touch /srv/fathom/x || touch /opt/fathom/x"), False),  # a read-only root file system
        (("touch", "/tmp/x"), True),
        (("python", "-c", "import torch"), False),  # serving needs no torch
        (("python", "-c", "import matplotlib"), False),
        (("python", "-c", "import training"), False),
        (("python", "-m", "pip"), False),
        (("grep", "-q", "^CapEff:\t0*$", "/proc/1/status"), True),  # no capabilities
    ],
)
def test_it_can_do_what_it_must_and_no_more(composed: Composed, command: Sequence[str], works: bool) -> None:
    assert (composed.inside(*command).returncode == 0) is works


def test_it_does_not_run_as_root(composed: Composed) -> None:
    assert composed.inside("id", "-u").stdout.strip() == "10001"


def test_sigterm_lets_a_stream_finish_and_the_container_exits_with_0(composed: Composed) -> None:
    url = f"{composed.url}/v1/infer"
    with httpx.stream("POST", url, json=exactly(4096, stream=True), timeout=60) as stream:
        lines = stream.iter_lines()
        assert next(lines) == "event: step"
        stopping = threading.Thread(
            target=run, args=(composed.engine, "stop", "-t", "45", composed.container)
        )
        stopping.start()
        names = ["event: step", *(line for line in lines if line.startswith("event: "))]
    stopping.join()
    assert names == ["event: step"] * 4096 + ["event: done"]
    assert composed.inspect("{{.State.ExitCode}}") == "0"
