"""The client's own clockwork, with a clock and bytes that the test hands out."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from loadtest.drive.cases import Case
from loadtest.drive.client import Client, Shot
from loadtest.drive.connection import Connection
from loadtest.drive.dialects import FathomV1
from loadtest.drive.samples import Sample

ANSWER = json.dumps({"results": [{"steps": 3, "answer": True, "halt_reason": "budget"}]}).encode()


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def abort(self) -> None:
        self.aborted = True


class Rig:
    """A client whose connections end in `wires`; the test plays the server."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stream: bool = False) -> None:
        self.clock = Clock()
        self.wires: list[Wire] = []
        self.connections: list[Connection] = []
        self.samples: list[Sample] = []
        dialect = FathomV1("m", None, None, stream)
        self.client = Client("http://host:1/base/", {"X-A": "b"}, dialect, 30.0, self.clock)
        self.client.limit = 2

        async def connect(make: Callable[[], Connection], *_: Any, **__: Any) -> tuple[Wire, Connection]:
            connection, wire = make(), Wire()
            connection.connection_made(wire)  # type: ignore[arg-type]
            self.wires.append(wire)
            self.connections.append(connection)
            return wire, connection

        monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", connect)

    async def send(self, number: int = 0, due: float = 100.0, cancel_s: float | None = None) -> None:
        shot = Shot(number, 0, 3, due, True, False, cancel_s)
        request = self.client.prepare(0, Case({"x": 1}), 3)
        self.client.send(shot, request, 99.0, True, self.samples.append)
        await asyncio.sleep(0)  # a new connection is made in a task of its own
        await asyncio.sleep(0)

    def receive(self, data: bytes, at: float, wire: int = 0) -> None:
        self.clock.now = at
        self.connections[wire].data_received(data)


def whole(body: bytes, status: str = "200 OK", extra: bytes = b"") -> bytes:
    return b"HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n%s" % (status.encode(), extra, len(body), body)


def test_latency_counts_from_when_a_request_was_due_to_its_last_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        rig = Rig(monkeypatch)
        rig.clock.now = 100.25  # a quarter of a second late
        await rig.send()
        answer = whole(ANSWER)
        rig.receive(answer[:50], 101.0)
        rig.receive(answer[50:], 101.5)
        [sample] = rig.samples
        assert (sample.latency_ms, sample.late_ms, sample.due_s) == (1500.0, 250.0, 1.0)
        assert (sample.outcome, sample.steps, sample.correct) == ("ok", 3, True)
        head, _, body = rig.wires[0].written[0].partition(b"\r\n\r\n")
        assert head.split(b"\r\n") == [
            b"POST /base/v1/infer HTTP/1.1", b"Host: host:1", b"X-A: b", b"Content-Length: %d" % len(body),
        ]  # fmt: skip
        assert json.loads(body) == {"model": "m", "input": {"x": 1}, "max_steps": 3}
        rig.client.close()

    asyncio.run(play())


def test_each_step_of_a_stream_is_timed_when_its_bytes_came(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        rig = Rig(monkeypatch, stream=True)
        await rig.send()

        def chunk(data: bytes) -> bytes:
            return b"%x\r\n%s\r\n" % (len(data), data)

        rig.receive(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 100.1)
        rig.receive(chunk(b": ping\n\nevent: step\ndata: {}\n\n"), 100.2)
        rig.receive(chunk(b"event: st"), 100.3)
        rig.receive(chunk(b"ep\ndata: {}\n\nevent: step\ndata: {}\n\n"), 100.5)
        rig.receive(chunk(b"event: done\ndata: " + ANSWER + b"\n\n") + b"0\r\n\r\n", 101.0)
        [sample] = rig.samples
        assert sample.outcome == "ok"
        assert sample.first_step_ms == pytest.approx(200)
        assert sample.gaps_ms == pytest.approx((300, 0))  # two events in one packet are zero apart
        assert sample.latency_ms == pytest.approx(1000)
        rig.client.close()

    asyncio.run(play())


def test_a_connection_is_used_again_until_it_may_be_dying(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        rig = Rig(monkeypatch)
        await rig.send(0)
        rig.receive(whole(ANSWER), 101.0)
        await rig.send(1, 101.0)
        rig.receive(whole(ANSWER), 102.0)
        assert [len(wire.written) for wire in rig.wires] == [2]
        rig.clock.now = 110.0  # uvicorn closes after five seconds
        await rig.send(2, 110.0)
        assert [len(wire.written) for wire in rig.wires] == [2, 1]
        rig.receive(whole(ANSWER, extra=b"Connection: close\r\n"), 111.0, wire=1)
        await rig.send(3, 111.0)
        assert len(rig.wires) == 3
        rig.client.close()

    asyncio.run(play())


def test_what_is_due_beyond_the_limit_waits_and_its_latency_counts_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def play() -> None:
        rig = Rig(monkeypatch)
        for number in range(3):
            await rig.send(number)
        assert [len(wire.written) for wire in rig.wires] == [1, 1]
        rig.receive(whole(ANSWER), 105.0)
        assert [len(wire.written) for wire in rig.wires] == [2, 1]
        rig.receive(whole(ANSWER), 106.0)
        last = rig.samples[-1]
        assert (last.number, last.wait_ms, last.latency_ms) == (2, 5000.0, 6000.0)
        rig.client.close()

    asyncio.run(play())


@pytest.mark.parametrize(
    ("said", "outcome", "error"),
    [
        (whole(b'{"error": {"code": "overloaded"}}', "429 Too Many"), "refused", "overloaded"),
        (whole(b"oops", "500 No"), "failed", "HTTP 500"),
        (whole(b"{}"), "failed", "not an answer of /v1/infer: KeyError 'results'"),
        (b"nonsense\r\n\r\n", "failed", "not HTTP"),
    ],
)
def test_what_is_no_answer_says_why(
    monkeypatch: pytest.MonkeyPatch, said: bytes, outcome: str, error: str
) -> None:
    async def play() -> None:
        rig = Rig(monkeypatch)
        await rig.send()
        rig.receive(said, 101.0)
        [sample] = rig.samples
        assert sample.outcome == outcome
        assert sample.error.startswith(error)
        rig.client.close()

    asyncio.run(play())


def test_a_connection_that_breaks_has_failed_and_one_that_ends_an_unframed_body_has_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def play() -> None:
        rig = Rig(monkeypatch)
        await rig.send(0)
        await rig.send(1)
        rig.connections[0].connection_lost(None)
        rig.receive(b"HTTP/1.1 200 OK\r\n\r\n" + ANSWER, 101.0, wire=1)
        rig.connections[1].connection_lost(None)
        assert [(s.outcome, s.error[:24]) for s in rig.samples] == [
            ("failed", "the server closed the co"), ("ok", ""),
        ]  # fmt: skip
        rig.client.close()

    asyncio.run(play())


def test_a_request_that_is_given_up_takes_its_connection_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        rig = Rig(monkeypatch)
        await rig.send(cancel_s=0.0)
        while not rig.samples:
            await asyncio.sleep(0)
        assert (rig.samples[0].outcome, rig.wires[0].aborted) == ("cancelled", True)
        await rig.send(1)
        assert rig.client.abandon() == 1
        assert (rig.client.open, len(rig.samples)) == (0, 1)
        rig.client.close()

    asyncio.run(play())
