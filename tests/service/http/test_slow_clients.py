"""Clients that send or read slowly, half, or not at all: none of them holds anything for long."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from service.settings import read_settings
from tests.service.servers import (
    Body,
    CountingRunner,
    Running,
    chain,
    counting_app,
    counting_bundle,
    eventually,
    serving,
    uvicorn_running,
)
from tests.service.v1.test_streams import FOREVER
from tests.service.wire import LIVE, Wire, post

BRIEF = 0.2  # seconds
LARGE: Body = {  # an answer of megabytes, in not too many steps
    "input": [chain(60)] * 30,
    "max_steps": 200,
    "include": ["trace"],
    "latents": {"select": "full", "encoding": "json"},
    "halting": {"criterion": "none"},
}


@contextmanager
def on_loop(loop: str, **given: object) -> Iterator[Running]:
    """A server on one of the two event loops that it may find itself on."""
    runner = CountingRunner()
    settings = read_settings({"drain_seconds": 0.1, "allowed_hosts": "*", **given})
    app = counting_app([counting_bundle()], runner, settings)
    with uvicorn_running(app, loop) as url, httpx.Client(base_url=url, timeout=20) as client:
        eventually(lambda: client.get("/health/ready").status_code == 200)
        yield Running(client, app, runner)


def drip(connection: Wire, content: bytes) -> float:
    """Send a byte every twentieth of a second until the server has had enough; for how many seconds."""
    began = time.monotonic()
    connection.socket.settimeout(0.05)
    for byte in content:
        try:
            connection.socket.sendall(bytes([byte]))
            if connection.socket.recv(1, socket.MSG_PEEK) == b"":
                break
        except TimeoutError:
            continue
        except ConnectionError:
            break
        else:
            break  # it has answered
    connection.socket.settimeout(20)
    return time.monotonic() - began


def test_a_head_that_does_not_arrive_in_time_is_given_up() -> None:
    with serving(head_seconds=BRIEF) as server, Wire(server) as connection:
        assert BRIEF / 2 < drip(connection, LIVE + b"x" * 200) < 10 * BRIEF
        refused = connection.answer()
        assert (refused.status, refused.code, refused.headers["connection"]) == (408, "too_slow", "close")
        assert connection.is_closed()


def test_the_head_after_an_answer_has_no_longer_than_the_first() -> None:
    with serving(head_seconds=BRIEF) as server, Wire(server) as connection:
        connection.send(LIVE + LIVE[:10])
        assert connection.answer().status == 200
        assert connection.answer().code == "too_slow"


def test_a_connection_on_which_nothing_comes_is_closed() -> None:
    with serving(head_seconds=BRIEF) as server, ExitStack() as stack:
        for connection in [stack.enter_context(Wire(server)) for _ in range(50)]:
            assert connection.is_closed()


@pytest.mark.parametrize("between", [b"", b"\r\n" * 200], ids=["silence", "empty lines"])
def test_an_idle_connection_is_closed_whatever_drips(between: bytes) -> None:
    with serving(keep_alive_seconds=BRIEF, head_seconds=BRIEF) as server, Wire(server) as connection:
        connection.send(LIVE)
        assert connection.answer().status == 200
        assert drip(connection, between) < 10 * BRIEF
        assert connection.is_closed()


def test_a_body_that_does_not_arrive_in_time_is_given_up() -> None:
    with serving(body_seconds=BRIEF) as server, Wire(server) as connection:
        connection.send(b"POST /v1/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 500\r\n\r\n")
        assert BRIEF / 2 < drip(connection, b" " * 400) < 10 * BRIEF
        refused = connection.answer()
        assert (refused.status, refused.code, refused.headers["connection"]) == (408, "too_slow", "close")
        assert connection.is_closed()
        assert server.metric("fathom_requests_total", model="unknown", code="408") == 1


def test_a_body_that_nobody_reads_holds_nothing_however_it_drips() -> None:
    with serving(keep_alive_seconds=BRIEF) as server, Wire(server) as connection:
        connection.send(b"GET /health/live HTTP/1.1\r\nhost: x\r\ncontent-length: 500\r\n\r\n")
        assert connection.answer().status == 200
        assert drip(connection, b" " * 400) < 10 * BRIEF


@pytest.mark.parametrize("framing", ["content-length: 45000", "transfer-encoding: chunked"])
def test_bodies_together_have_a_bound_and_small_ones_are_read_all_the_same(framing: str) -> None:
    head = f"POST /v1/infer HTTP/1.1\r\nhost: x\r\n{framing}\r\n\r\n".encode()
    chunk = b"9c40\r\n" if "chunked" in framing else b""  # of 40,000 bytes
    with serving(max_pending_bytes=100_000) as server, ExitStack() as stack:
        stalled = [stack.enter_context(Wire(server)) for _ in range(2)]
        for connection in stalled:
            connection.send(head + chunk + b" " * 40_000)
        bodies = server.app.state.service.bodies
        eventually(lambda: bodies.held == 80_000)
        with Wire(server) as late:
            late.send(head + chunk + b" " * 40_000)
            refused = late.answer()
            assert (refused.status, refused.code) == (429, "overloaded")
            assert int(refused.headers["retry-after"]) >= 1
        assert server.infer(chain(3)).status_code == 200
        for connection in stalled:
            connection.close()
        eventually(lambda: bodies.held == 0)
        assert server.client.post("/v1/infer", content=b" " * 90_000).status_code == 400


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_client_that_closes_its_sending_side_gets_its_answer(loop: str) -> None:
    with on_loop(loop) as server:
        server.runner.may_step.clear()
        with Wire(server) as connection:
            connection.send(post({"input": chain(3)}) + post({"input": chain(4)}) + LIVE)
            connection.socket.shutdown(socket.SHUT_WR)
            server.runner.wait_until(taken=1)
            time.sleep(0.3)  # for the server to have asked several times whether anybody is there
            server.runner.may_step.set()
            for depth in (3, 4):
                assert connection.answer().body["results"][0]["steps"] == depth
            assert connection.answer().body == {"status": "live"}
            assert connection.is_closed()


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_client_that_goes_away_is_not_taken_for_one_that_waits(loop: str) -> None:
    with on_loop(loop) as server:
        connection = Wire(server)
        connection.send(post({"input": chain(3), **FOREVER}))
        server.runner.wait_until(taken=1)
        connection.close()
        began = time.monotonic()
        server.runner.wait_until(taken=0)
        assert time.monotonic() - began < 1
        eventually(lambda: server.metric("fathom_requests_total", model="graph", code="499") == 1)


def test_half_a_request_and_no_more_is_no_request() -> None:
    with serving() as server:
        for part in (LIVE[:20], post({"input": chain(3)})[:-5]):
            with Wire(server) as connection:
                connection.send(part)
                connection.socket.shutdown(socket.SHUT_WR)
                assert connection.is_closed()


@pytest.mark.parametrize("streams", [True, False], ids=["a stream", "a whole answer"])
def test_a_client_that_reads_nothing_is_cut_off(streams: bool, caplog: pytest.LogCaptureFixture) -> None:
    terms: Body = {**LARGE, "include": [], "stream": True, **FOREVER} if streams else LARGE
    with serving(send_seconds=BRIEF, max_connections=1) as server:
        server.client.close()

        def is_let_in() -> bool:
            with Wire(server) as other:
                other.send(LIVE)
                return other.answer().status == 200

        eventually(is_let_in)
        time.sleep(BRIEF)  # for that connection to be gone
        with Wire(server) as connection:
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.send(post(terms))
            server.runner.wait_until(taken=30)
            server.runner.wait_until(taken=0)
            eventually(is_let_in)
    assert not caplog.records


def test_a_client_that_reads_slowly_gets_everything() -> None:
    with serving(send_seconds=1, keep_alive_seconds=BRIEF) as server, Wire(server) as connection:
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**17)
        connection.send(post(LARGE, more="connection: close\r\n"))
        eventually(lambda: server.metric("fathom_request_seconds_count", model="graph") == 1)
        pieces, began = [], time.monotonic()
        while piece := connection.socket.recv(2**18):
            pieces.append(piece)
            time.sleep(0.02)
        assert time.monotonic() - began > 1, "slower than either patience"
        answer = json.loads(b"".join(pieces).partition(b"\r\n\r\n")[2])
        assert [len(result["trace"]) for result in answer["results"]] == [200] * 30
