"""HAProxy with our configuration: what one server refuses, another is asked; rolls lose nothing."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from tests.deploy.processes import ROOT, chain, eventually, running

CONFIGURATION = ROOT / "deploy/proxy/haproxy.cfg"
REPEATED = 120 * 1024  # bytes of the largest body that docs/operations.md promises to send again
pytestmark = pytest.mark.skipif(shutil.which("haproxy") is None, reason="HAProxy is not installed")


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody has, all different."""
    with ExitStack() as open_together:
        sockets = [open_together.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def proxy_of(ports: Sequence[int], folder: Path) -> Iterator[tuple[str, str]]:
    """HAProxy on loopback before these servers; gives its address and that of its metrics."""
    front, metrics = free_ports(2)
    lines = CONFIGURATION.read_text(encoding="utf-8")
    servers = "\n".join(f"    server server{port} 127.0.0.1:{port}" for port in ports)
    for ours, theirs in (
        ("bind :8080", f"bind 127.0.0.1:{front}"),
        ("bind :8405", f"bind 127.0.0.1:{metrics}"),
        ("    server-template server 1-32 fathom-servers:8000", servers),
    ):
        assert ours in lines
        lines = lines.replace(ours, theirs)
    (folder / "haproxy.cfg").write_text(lines)
    url = f"http://127.0.0.1:{front}"
    with running(["haproxy", "-db", "-f", folder / "haproxy.cfg"], folder / "haproxy.log"):
        eventually(lambda: httpx.get(f"{url}/health/ready").is_success, "a server behind the proxy")
        yield url, f"http://127.0.0.1:{metrics}/metrics"


class Server(ThreadingHTTPServer):
    """Stands in for a server of ours: it is ready, and answers with `status` to every body."""

    daemon_threads = True

    def __init__(self, status: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = status
        self.received: list[int] = []  # bytes of each body


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.answer(200)

    def do_POST(self) -> None:
        self.server.received.append(len(self.rfile.read(int(self.headers["content-length"]))))
        self.answer(self.server.status)

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def draining_and_ready(tmp_path: Path) -> Iterator[tuple[Server, Server, str]]:
    """A server that refuses everything, one that takes everything, and the proxy before both."""
    with ExitStack() as stack:
        servers = []
        for status in (503, 200):
            server = stack.enter_context(Server(status))
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            servers.append(server)
        url, _ = stack.enter_context(proxy_of([server.server_port for server in servers], tmp_path))
        yield servers[0], servers[1], url


def test_the_configuration_is_valid() -> None:
    done = subprocess.run(["haproxy", "-c", "-f", CONFIGURATION], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("size", [100, 26_000, REPEATED])
def test_a_body_that_one_server_refuses_reaches_another_whole(
    draining_and_ready: tuple[Server, Server, str], size: int
) -> None:
    draining, ready, url = draining_and_ready
    with httpx.Client(base_url=url) as client:
        statuses = [client.post("/v1/infer", content=b"x" * size).status_code for _ in range(6)]
    assert statuses == [200] * 6
    assert draining.received, "none was refused: this shows nothing"
    assert ready.received == [size] * 6


def test_a_body_over_the_bound_is_not_sent_again_and_its_sender_sees_the_refusal(
    draining_and_ready: tuple[Server, Server, str],
) -> None:
    draining, ready, url = draining_and_ready
    size = 2 * REPEATED
    with httpx.Client(base_url=url) as client:
        statuses = [client.post("/v1/infer", content=b"x" * size).status_code for _ in range(6)]
    assert statuses.count(503) == len(draining.received) > 0
    assert statuses.count(200) == len(ready.received) > 0


def test_the_proxy_exports_what_rules_and_dashboard_ask_it_for(
    draining_and_ready: tuple[Server, Server, str], tmp_path: Path
) -> None:
    asked = [ROOT / "deploy/prometheus/rules.yml", ROOT / "deploy/grafana/dashboards/fathom.json"]
    named = {
        name for file in asked for name in re.findall(r"\bhaproxy_\w+", file.read_text(encoding="utf-8"))
    }
    (metrics,) = re.findall(r"^frontend metrics\n +bind (\S+)", (tmp_path / "haproxy.cfg").read_text(), re.M)
    page = httpx.get(f"http://{metrics}/metrics").text
    assert named
    assert named <= set(re.findall(r"^(haproxy_\w+)\{", page, re.MULTILINE))
    states = re.findall(r'^haproxy_server_status\{proxy="servers",server="\w+",state="(\w+)"\} 1', page, re.M)
    assert states == ["UP", "UP"]


@pytest.mark.slow
def test_a_roll_of_two_servers_under_load_fails_no_request(tmp_path: Path) -> None:
    """Bodies of 100 KB, since it was large ones that were lost."""
    ports = free_ports(2)
    question = {"model": "graph", "input": chain(3), "max_steps": 8}
    body = json.dumps(question).encode().ljust(100_000)
    statuses: list[int] = []
    over = threading.Event()

    def serve(port: int) -> list[str | Path]:
        return [sys.executable, "-m", "fathom", "serve", "--host", "127.0.0.1", "--port", str(port)]

    def ask(url: str) -> None:
        with httpx.Client(base_url=url, timeout=60) as client:
            while not over.is_set():
                answer = client.post("/v1/infer", content=body, headers={"content-type": "application/json"})
                statuses.append(answer.status_code)

    def answers(more: int) -> None:
        wanted = len(statuses) + more
        eventually(lambda: len(statuses) >= wanted, f"{more} more answers")

    def ready(port: int) -> None:
        eventually(lambda: httpx.get(f"http://127.0.0.1:{port}/health/ready").is_success, "readiness")

    with ExitStack() as stack:
        servers = [stack.enter_context(running(serve(port), tmp_path / f"{port}.log")) for port in ports]
        for port in ports:
            ready(port)
        url, metrics = stack.enter_context(proxy_of(ports, tmp_path))
        clients = [threading.Thread(target=ask, args=(url,)) for _ in range(4)]
        again = stack.enter_context(ExitStack())  # servers that outlast the clients, whatever fails
        try:
            for client in clients:
                client.start()
            for port, server in zip(ports, servers, strict=True):
                answers(20)
                server.send_signal(signal.SIGTERM)
                assert server.wait(60) == 0
                answers(20)
                again.enter_context(running(serve(port), tmp_path / f"{port}-again.log"))
                ready(port)
                up = f'haproxy_server_status{{proxy="servers",server="server{port}",state="UP"}} 1'
                eventually(lambda up=up: up in httpx.get(metrics).text, "the proxy's next check")
            answers(20)
        finally:
            over.set()
            for client in clients:
                client.join()
    assert set(statuses) == {200}, f"{len(statuses)} requests: {sorted(set(statuses))}"
