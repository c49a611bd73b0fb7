"""What both clients make of connections: kept, refused, silent, broken off, tried again."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from client import ApiError, BrokenStream, ConnectionFailed, Overloaded, Unavailable
from tests.client.both import BOTH, AnyClient
from tests.client.scripted import HANG_UP, PATIENCE, SILENCE, Last, error, frames, reply, scripted
from tests.client.test_pure import DONE, PROBLEM, frame, shown

ANSWER = {name: value for name, value in DONE.items() if name != "event"}
SOON = "retry-after: 0"


@pytest.fixture(params=BOTH, ids=["blocking", "asyncio"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_one_connection_serves_many_requests_whole_or_streamed(kind: type[AnyClient]) -> None:
    stream = frames(frame(shown()), frame(DONE))
    with scripted([reply(200, ANSWER), stream, error(422, "invalid"), reply(200, ANSWER)]) as server:
        with kind(server.url) as client:
            assert client.infer("m", PROBLEM).id == "req_1"
            steps = client.stream("m", PROBLEM)
            assert [step.step for step in steps] == [1]
            assert steps.answer
            with pytest.raises(ApiError):
                client.infer("m", PROBLEM)
            client.infer("m", PROBLEM)
        assert server.connections == 1
        assert steps.id in server.heads[1]


def test_a_connection_that_the_server_has_closed_is_not_used_again(kind: type[AnyClient]) -> None:
    with scripted([Last(reply(200, ANSWER)), reply(200, ANSWER)]) as server:
        with kind(server.url, retries=0) as client:
            client.infer("m", PROBLEM)
            assert server.closed.wait(PATIENCE)
            client.infer("m", PROBLEM)
        assert server.connections == 2


@pytest.mark.parametrize("refusal", [error(429, "overloaded", SOON), error(503, "unavailable", SOON)])
def test_a_request_that_was_refused_for_now_is_sent_again_as_it_was(
    kind: type[AnyClient], refusal: bytes
) -> None:
    with scripted([refusal, refusal, reply(200, ANSWER)]) as server, kind(server.url) as client:
        assert client.infer("m", PROBLEM, request_id="mine").id == "req_1"
        assert len(server.bodies) == 3
        assert server.bodies[0] == server.bodies[1] == server.bodies[2]
        assert all("x-request-id: mine" in head for head in server.heads)


def test_a_stream_that_was_refused_for_now_is_sent_again(kind: type[AnyClient]) -> None:
    with (
        scripted([error(429, "overloaded", SOON), frames(frame(shown()), frame(DONE))]) as server,
        kind(server.url) as client,
    ):
        assert [step.step for step in client.stream("m", PROBLEM)] == [1]
        assert len(server.bodies) == 2


def test_without_retries_the_first_refusal_is_the_answer(kind: type[AnyClient]) -> None:
    script = [error(429, "overloaded", "retry-after: 7"), error(503, "unavailable")]
    with scripted(script) as server, kind(server.url, retries=0) as client:
        with pytest.raises(Overloaded) as full:
            client.infer("m", PROBLEM)
        assert (full.value.retry_after, full.value.status) == (7.0, 429)
        with pytest.raises(Unavailable):
            client.infer("m", PROBLEM)
        assert len(server.bodies) == 2


def test_after_so_many_tries_the_last_refusal_is_the_answer(kind: type[AnyClient]) -> None:
    with scripted([error(503, "unavailable", SOON)] * 3) as server, kind(server.url, retries=2) as client:
        with pytest.raises(Unavailable):
            client.infer("m", PROBLEM)
        assert len(server.bodies) == 3


def test_a_server_that_starts_late_is_found_by_the_next_try(
    kind: type[AnyClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    listening = threading.Event()

    def chance() -> float:  # asked for between two tries
        listening.set()
        return 0.0

    monkeypatch.setattr("random.random", chance)
    with scripted([reply(200, ANSWER)], listening) as server, kind(server.url, retries=6) as client:
        assert client.infer("m", PROBLEM).id == "req_1"
        assert listening.is_set()


def test_no_server_at_all_is_told_with_how_to_start_one(kind: type[AnyClient]) -> None:
    with kind("http://127.0.0.1:1", retries=0) as client:
        with pytest.raises(ConnectionFailed, match="fathom serve") as failed:
            client.infer("m", PROBLEM)
        assert not failed.value.was_sent
        with pytest.raises(ConnectionFailed):
            next(client.stream("m", PROBLEM))


@pytest.mark.parametrize("answer", [HANG_UP, reply(200, ANSWER, cut=5), error(503, "unavailable")[:-9]])
def test_what_may_have_been_worked_on_is_never_sent_again(kind: type[AnyClient], answer: bytes) -> None:
    with scripted([answer, reply(200, ANSWER)]) as server, kind(server.url, retries=5) as client:
        with pytest.raises(ConnectionFailed, match="broke off") as failed:
            client.infer("m", PROBLEM)
        assert failed.value.was_sent
        assert len(server.bodies) == 1


def test_a_server_that_says_nothing_is_given_up(kind: type[AnyClient]) -> None:
    with scripted([SILENCE]) as server, kind(server.url, timeout=0.2, retries=5) as client:
        with pytest.raises(ConnectionFailed, match="in time"):
            client.infer("m", PROBLEM)
        assert len(server.bodies) == 1


@pytest.mark.parametrize(
    "answer",
    [
        frames(frame(shown()), whole=False),
        frames(frame(shown()), frame(DONE)[:-1], whole=False),
        frames(frame(shown())),
        frames(frame(shown()), frame(DONE)[:-1]),
        frames(frame(shown()), b"\xff\xff\xff\xff"),
    ],
)
def test_a_stream_that_breaks_off_raises_after_its_steps(kind: type[AnyClient], answer: bytes) -> None:
    with scripted([answer, reply(200, ANSWER)]) as server, kind(server.url, retries=5) as client:
        steps = client.stream("m", PROBLEM)
        assert next(steps).step == 1
        with pytest.raises(BrokenStream):
            next(steps)
        assert steps.answer is None
        assert len(server.bodies) == 1


def test_what_is_cut_off_behind_the_answer_is_no_loss(kind: type[AnyClient]) -> None:
    with (
        scripted([frames(frame(shown()), frame(DONE), whole=False)]) as server,
        kind(server.url) as client,
    ):
        steps = client.stream("m", PROBLEM)
        assert len(list(steps)) == 1
        assert steps.answer
        assert steps.answer.id == "req_1"


@pytest.mark.parametrize("answer", [reply(200, b"<html>"), reply(302, b"", "location: /"), reply(200, {})])
def test_what_is_no_fathom_server_is_told_so(kind: type[AnyClient], answer: bytes) -> None:
    with scripted([answer] * 3) as server, kind(server.url) as client:
        with pytest.raises(ApiError, match="Fathom server"):
            client.infer("m", PROBLEM)
        with pytest.raises(ApiError, match="Fathom server"):
            client.models()
        with pytest.raises((ApiError, BrokenStream)):
            next(client.stream("m", PROBLEM))


def test_cancelling_asks_for_the_request_by_its_id(kind: type[AnyClient]) -> None:
    script = [reply(200, {"id": "a/b", "cancelled": 2}), error(404, "unknown_request")]
    with scripted(script) as server, kind(server.url + "/prefix/") as client:
        assert client.cancel("a/b") == 2
        assert server.heads[0].startswith("DELETE /prefix/v1/requests/a%2Fb HTTP/1.1")
        with pytest.raises(ApiError, match="unknown_request"):
            client.cancel("gone")
