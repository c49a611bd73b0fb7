"""The process `fathom serve`: how it starts, how it refuses to, and how it stops. On the shipped bundle."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from service.http.schemas import InferAnswer
from tests.service.servers import PATIENCE, chain, events, eventually

SHIPPED = Path("bundles/graph/1")
LONG = {"model": "graph", "input": chain(3), "halting": {"criterion": "none"}, "stream": True}


@dataclass
class Process:
    """A running `fathom serve`."""

    process: subprocess.Popen[str]
    client: httpx.Client
    log: list[str]

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


@contextmanager
def fathom_serve(*flags: str, module: str = "fathom") -> Iterator[Process]:
    """The command on a free port, ready for requests."""
    command = [sys.executable, "-m", module, "serve", "--port", "0", *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    log: list[str] = []
    address = threading.Event()

    def read_log() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            log.append(line)
            if "http://" in line:
                address.set()
        address.set()

    reader = threading.Thread(target=read_log)
    reader.start()
    try:
        assert address.wait(PATIENCE), "the server did not start"
        found = re.search(r"http://\S+", "".join(log))
        assert found, log
        with httpx.Client(base_url=found.group(), timeout=PATIENCE) as client:
            eventually(lambda: client.get("/health/ready").status_code == 200)
            yield Process(process, client, log)
    finally:
        process.kill()
        process.wait()
        reader.join()
        assert process.stderr is not None
        process.stderr.close()


def test_sigterm_lets_a_stream_finish_refuses_new_work_and_exits_with_0() -> None:
    limit = json.loads((SHIPPED / "manifest.json").read_text(encoding="utf-8"))["steps"]["limit"]
    with fathom_serve() as server:
        with server.client.stream("POST", "/v1/infer", json={**LONG, "max_steps": limit}) as response:
            coming = events(response)
            assert next(coming)[0] == "step"
            server.process.send_signal(signal.SIGTERM)
            with httpx.Client(base_url=server.client.base_url) as other:
                eventually(lambda: other.get("/health/ready").status_code == 503)
                assert other.get("/health/live").status_code == 200
                refused = other.post("/v1/infer", json={"model": "graph", "input": chain(3)})
                assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
            name, answer = list(coming)[-1]
        assert name == "done"
        assert InferAnswer.model_validate(answer).results[0].steps == limit
        assert server.process.wait(PATIENCE) == 0
    assert len(server.log) == 6, server.log  # three opened, serving, stopping, stopped


def test_sigterm_when_idle_exits_at_once_with_0() -> None:
    with fathom_serve() as server:
        answer = server.client.post(
            "/v1/infer", json={"model": "graph", "input": chain(4), "include": ["scores", "trace"]}
        )
        InferAnswer.model_validate(answer.json())
        assert answer.json()["results"][0]["answer"] is True
        assert server.stop() == 0


def test_what_outlasts_the_drain_is_told_so_and_the_exit_code_is_still_0() -> None:
    limit = json.loads((SHIPPED / "manifest.json").read_text(encoding="utf-8"))["steps"]["limit"]
    many = [chain(60, nodes=list(range(200)))] * 32
    with fathom_serve("--drain-seconds", "0.2") as server:
        with server.client.stream(
            "POST", "/v1/infer", json={**LONG, "input": many, "max_steps": limit}
        ) as response:
            coming = events(response)
            assert next(coming)[0] == "step"
            server.process.send_signal(signal.SIGTERM)
            name, data = list(coming)[-1]
        assert (name, data["error"]["code"]) == ("error", "unavailable")
        assert server.process.wait(PATIENCE) == 0


def refusal(*flags: str) -> str:
    """The one line with which the start is refused."""
    done = subprocess.run(
        [sys.executable, "-m", "fathom", "serve", "--port", "0", *flags], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("fathom: ")
    return lines[0]


def test_a_bad_setting_is_refused_in_a_line() -> None:
    assert "--slots, FATHOM_SLOTS" in refusal("--slots", "none")


def test_a_repository_without_bundles_is_refused_in_a_line(tmp_path: Path) -> None:
    assert str(tmp_path) in refusal("--repository", str(tmp_path))


def test_a_tampered_bundle_is_refused_by_the_files_name(tmp_path: Path) -> None:
    shutil.copytree(SHIPPED, tmp_path / "graph" / "1")
    with (tmp_path / "graph" / "1" / "step.onnx").open("ab") as file:
        file.write(b"x")
    assert "step.onnx" in refusal("--repository", str(tmp_path))


def test_a_taken_port_is_refused_in_a_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port}" in refusal("--port", str(port))


def test_cuda_that_cannot_be_had_is_refused_in_a_line() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("there is CUDA here")
    assert "cuda" in refusal("--device", "cuda")


def test_an_engine_that_hangs_cannot_keep_the_process() -> None:
    with fathom_serve("--drain-seconds", "0.1", module="tests.service.hanging") as server:
        with server.client.stream("POST", "/v1/infer", json={**LONG, "max_steps": 8}) as response:
            server.process.send_signal(signal.SIGTERM)
            assert [name for name, _ in events(response)] == ["error"]
        assert server.process.wait(PATIENCE) == 1
        assert any("graph@1 hangs" in line for line in server.log)
