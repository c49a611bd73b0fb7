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

from model.bundle import bundle_folders
from service.http.v1.answer_schemas import InferAnswer
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
        found = re.search(r"http://[^\s\"]+", "".join(log))
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
    with fathom_serve("--drain-seconds", "600") as server:
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
    models = len(bundle_folders(Path("bundles")))
    assert len(server.log) == models + 3, server.log  # each opened; serving, stopping, stopped


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


@contextmanager
def started(*flags: str, module: str = "fathom") -> Iterator[subprocess.Popen[str]]:
    """The command, whatever becomes of it."""
    command = [sys.executable, "-m", module, "serve", *flags]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def test_of_two_servers_started_at_once_on_one_port_one_serves_and_the_other_says_why_not() -> None:
    port = str(free_port())
    with started("--port", port) as one, started("--port", port) as other:
        eventually(lambda: one.poll() is not None or other.poll() is not None)
        loser, winner = (one, other) if one.poll() is not None else (other, one)
        assert loser.wait() == 2
        assert "cannot listen" in loser.communicate()[1]
        url = f"http://127.0.0.1:{port}/health/ready"
        eventually(lambda: httpx.get(url, timeout=PATIENCE).status_code == 200)
        winner.send_signal(signal.SIGTERM)
        assert winner.communicate(timeout=PATIENCE)[1].count("serving") == 1


def test_a_port_is_free_again_as_soon_as_its_server_has_stopped() -> None:
    port = str(free_port())
    for _ in range(2):
        with started("--port", port) as process:
            eventually(lambda: answers(f"http://127.0.0.1:{port}/health/ready"))
            process.send_signal(signal.SIGTERM)
            _, log = process.communicate(timeout=PATIENCE)
            assert process.returncode == 0, log


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=PATIENCE).status_code == 200
    except httpx.TransportError:
        return False


def test_a_model_that_cannot_take_its_first_step_ends_the_start() -> None:
    with started("--port", "0", module="tests.service.failing") as process:
        _, log = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2, log
    last = log.splitlines()[-1]
    assert last.startswith("fathom: ")
    assert "graph" in last
    assert "serving" not in log


def test_while_it_stops_every_request_is_answered_and_every_connection_closed_in_order() -> None:
    limit = json.loads((SHIPPED / "manifest.json").read_text(encoding="utf-8"))["steps"]["limit"]
    many = [chain(60, nodes=list(range(200)))] * 32
    statuses: list[int] = []
    with fathom_serve() as server:
        url = str(server.client.base_url)
        address = (server.client.base_url.host, server.client.base_url.port or 0)
        body = {**LONG, "input": many, "max_steps": limit}
        with server.client.stream("POST", "/v1/infer", json=body) as response:
            assert next(events(response))[0] == "step"
            with socket.create_connection(address, timeout=PATIENCE) as idle, httpx.Client() as other:
                server.process.send_signal(signal.SIGTERM)
                eventually(lambda: other.get(f"{url}/health/ready").status_code == 503)
                server.process.send_signal(signal.SIGTERM)
                refused = other.post(f"{url}/v1/infer", json={"model": "graph", "input": chain(3)})
                statuses.append(refused.status_code)
                assert refused.headers["connection"] == "close"
                assert idle.recv(1) == b""
        assert server.process.wait(PATIENCE) == 0
    assert statuses == [503]


def test_slow_readers_are_cut_when_it_stops_without_a_word_in_the_log() -> None:
    limit = json.loads((SHIPPED / "manifest.json").read_text(encoding="utf-8"))["steps"]["limit"]
    body = {**LONG, "input": [chain(60)] * 8, "max_steps": limit, "latents": {"select": "full"}}
    content = json.dumps(body).encode()
    head = f"POST /v1/infer HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(content)}\r\n\r\n".encode()
    with fathom_serve("--drain-seconds", "0.1") as server:
        address = (server.client.base_url.host, server.client.base_url.port or 0)
        readers = [socket.create_connection(address) for _ in range(3)]
        for reader in readers:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.sendall(head + content)
            assert reader.recv(20)
        eventually(lambda: steps_taken(server) > 3 * 8 * 60)  # ten megabytes each: nothing more fits in
        assert server.stop() == 0
        for reader in readers:
            reader.close()
    assert not [line for line in server.log if "ERROR" in line or "Traceback" in line], server.log


def steps_taken(server: Process) -> float:
    page = server.client.get("/metrics").text
    return sum(float(steps) for steps in re.findall(r"fathom_steps_total{.*} (\S+)", page))
