"""What the client works out without a connection: requests, frames, answers, errors and pauses."""

from __future__ import annotations

import base64
import json
import struct
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from client import (
    Answer,
    ApiError,
    BrokenStream,
    Client,
    ConnectionFailed,
    Invalid,
    NotFound,
    Overloaded,
    Step,
    Unauthorized,
    Unavailable,
    calls,
)
from client.answers import content_of
from client.errors import FathomError, refusal, seconds_until
from client.events import Events
from client.retries import LONGEST_WAIT, Retries

PROBLEM = {"edges": [["a", "b"]], "source": "a", "target": "b"}


def body_of(call: calls.Call) -> Any:
    assert call.body is not None
    return json.loads(call.body)


def frame(content: dict[str, Any], *arrays: np.ndarray[Any, Any]) -> bytes:
    header = json.dumps(content).encode()
    return struct.pack("<I", len(header)) + header + b"".join(array.tobytes() for array in arrays)


def sized(array: np.ndarray[Any, Any]) -> dict[str, Any]:
    return {"shape": list(array.shape), "dtype": array.dtype.name, "byte_size": array.nbytes}


def shown(**more: Any) -> dict[str, Any]:
    return {"event": "step", "index": 0, "step": 1, "answer": True, "label": "yes", **more}


DONE = {
    "event": "done",
    "id": "req_1",
    "model": "m",
    "version": "1",
    "results": [{"answer": True, "label": "yes", "steps": 2, "max_steps": 4, "halt_reason": "halted"}],
    "usage": {"steps": 2},
    "timings_ms": {"queue": 0.1, "compute": 0.2, "total": 0.4},
}


def test_a_request_has_what_was_given_and_nothing_else() -> None:
    call = calls.infer(
        "graph", PROBLEM, {"max_steps": 8, "min_steps": None, "halting": "kl", "latents": "full"}
    )
    assert (call.method, call.path) == ("POST", "/v1/infer")
    long = {"halting": {"criterion": "kl"}, "latents": {"select": "full"}}
    assert body_of(call) == {"model": "graph", "input": PROBLEM, "max_steps": 8, **long}
    assert body_of(calls.infer(None, PROBLEM, {})) == {"input": PROBLEM}


def test_steering_goes_into_the_body_as_the_page_has_it() -> None:
    terms = {
        "keep": 60,
        "aggregate": "mode",
        "samples": {"count": 8, "noise": 0.1, "seed": 7, "choose": "surest"},
        "interventions": [
            {"step": np.int64(3), "op": "add", "tokens": [0, 2], "value": np.ones(2, np.float32)}
        ],
        "paired": True,
    }
    assert body_of(calls.infer(None, PROBLEM, terms)) == {
        **terms,
        "input": PROBLEM,
        "interventions": [{"step": 3, "op": "add", "tokens": [0, 2], "value": [1.0, 1.0]}],
    }
    assert body_of(calls.infer(None, None, {"continue_from": "req_1"})) == {"continue_from": "req_1"}


def test_a_stream_has_an_id_before_it_is_sent() -> None:
    first, second = (calls.stream(None, PROBLEM, {}) for _ in range(2))
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert body_of(first) == {"input": PROBLEM, "stream": True}
    own = calls.stream(None, PROBLEM, {"request_id": "mine"})
    assert own.headers["x-request-id"] == "mine"
    assert calls.cancel("a/b?c d").path == "/v1/requests/a%2Fb%3Fc%20d"


def test_arrays_of_float32_are_packed_and_others_are_lists() -> None:
    ones = np.ones((2, 3), np.float32)
    problem = {"tensors": {"x": ones[:, ::-1].T, "n": np.arange(2), "b": np.array(True)}}
    (sent,) = body_of(calls.infer(None, [problem], {}))["input"]
    data = base64.b64encode(np.ones(6, "<f4").tobytes()).decode()
    assert sent["tensors"] == {
        "x": {"shape": [3, 2], "dtype": "float32", "data": data},
        "n": [0, 1],
        "b": True,
    }
    edges = {**PROBLEM, "edges": np.array([[0, 1]])}
    assert body_of(calls.infer(None, edges, {}))["input"]["edges"] == [[0, 1]]


@pytest.mark.parametrize(
    ("problem", "terms", "field"),
    [
        ({"tensors": {"x": [1.0, [float("nan")]]}}, {}, "input.tensors.x.1.0"),
        ([PROBLEM, {"tensors": {"x": np.array([0, np.inf], np.float32)}}], {}, "input.1.tensors.x.1"),
        ({"edges": {1, 2}}, {}, "input.edges"),
        (PROBLEM, {"max_steps": 2.5}, "max_steps"),
        (PROBLEM, {"max_steps": True}, "max_steps"),
        (PROBLEM, {"deadline_ms": float("inf")}, "deadline_ms"),
        (PROBLEM, {"halting": 0.5}, "halting"),
        (PROBLEM, {"halting": {"threshold": float("nan")}}, "halting.threshold"),
        (PROBLEM, {"include": "scores"}, "include"),
        (PROBLEM, {"paired": 1}, "paired"),
        (PROBLEM, {"request_id": "two\nlines"}, "request_id"),
        (PROBLEM, {"continue_from": "req_1"}, "input"),
        (None, {}, "input"),
    ],
)
def test_what_is_certainly_wrong_is_told_with_its_place(problem: Any, terms: Any, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        calls.infer(None, problem, terms)
    assert (refused.value.field, refused.value.status) == (field, None)


def test_what_contains_itself_or_is_no_argument_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(Invalid):
        calls.infer(None, {"edges": endless}, {})
    with pytest.raises(Invalid, match="keys must be"):
        calls.infer(None, {(1, 2): 3}, {})
    with pytest.raises(TypeError, match=r"'max_step' is no argument.*max_steps"):
        calls.infer(None, PROBLEM, {"max_step": 3})
    with pytest.raises(Invalid):
        calls.infer(3, PROBLEM, {})  # type: ignore[arg-type]


def test_frames_are_read_from_pieces_of_any_size() -> None:
    state = np.arange(6, dtype="<f4").reshape(2, 3)
    total, nothing = np.float16([0.5]), np.empty((0, 3), np.int64)
    named = {"state": sized(state), "total": sized(total), "nothing": sized(nothing)}
    sent = frame(shown(latents=named), state, total, nothing) + frame(shown(step=2, new=[1])) + frame(DONE)
    for size in (1, 3, len(sent)):
        events = Events()
        pieces = [sent[start : start + size] for start in range(0, len(sent), size)]
        first, second = (step for piece in pieces for step in events.feed(piece))
        assert isinstance(first, Step)
        assert isinstance(first.latents, dict)
        for name, array in (("state", state), ("total", total), ("nothing", nothing)):
            np.testing.assert_array_equal(first.latents[name], array)
            assert first.latents[name].dtype == array.dtype
        first.latents["state"][0, 0] = 7  # it is the caller's
        assert (second.step, second.latents, second.more) == (2, None, {"new": [1]})
        assert events.end().results[0].steps == 2


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 200 OK",
        struct.pack("<I", 2) + b"{}"[:1] + b"]",
        struct.pack("<I", 2) + b"[]",
        frame(shown(latents={"shape": [2], "dtype": "float32", "byte_size": 7}), np.zeros(7, np.uint8)),
        frame(shown(latents={"shape": [2], "dtype": "object", "byte_size": 16}), np.zeros(2)),
    ],
)
def test_what_is_no_frame_is_a_broken_stream(sent: bytes) -> None:
    with pytest.raises(BrokenStream):
        list(Events().feed(sent))


def test_a_stream_without_its_end_is_broken_wherever_it_is_cut() -> None:
    state = np.arange(3, dtype=np.float32)
    sent = frame(shown(latents=sized(state)), state) + frame(DONE)
    for size in range(len(sent)):
        events = Events()
        list(events.feed(sent[:size]))
        with pytest.raises(BrokenStream):
            events.end()


def test_an_error_in_a_stream_is_the_servers_own() -> None:
    events = Events()
    said = {"code": "unavailable", "message": "the server is shutting down", "field": None}
    with pytest.raises(Unavailable, match="shutting down") as failed:
        list(events.feed(frame({"event": "error", "error": said})))
    assert failed.value.status is None
    with pytest.raises(ApiError, match="broke down"):
        list(
            Events().feed(frame({"event": "error", "error": {**said, "code": "x", "message": "broke down"}}))
        )
    with pytest.raises(BrokenStream):
        list(Events().feed(frame({"event": "error"})))


def test_an_event_of_a_newer_server_is_passed_over() -> None:
    events = Events()
    assert [step.step for step in events.feed(frame({"event": "news"}) + frame(shown()) + frame(DONE))] == [1]
    assert events.end().id == "req_1"


def test_an_answer_keeps_what_it_does_not_know() -> None:
    result = {
        **DONE["results"][0],
        "trace": [{**shown(), "mood": "good"}],
        "samples": {"votes": {}, "agreement": 1},
    }
    content = {**DONE, "results": [{**result, "effect": {"kl": 0.5, "answer_changed": True}, "doubt": 0.25}]}
    answer = Answer.read(content)
    (read,) = answer.results
    assert answer.more == {"event": "done"}
    assert read.more == {"doubt": 0.25}
    assert read.trace is not None
    assert (read.trace[0].step, read.trace[0].more["mood"]) == (1, "good")
    assert (read.effect and read.effect.kl, read.samples and read.samples.agreement) == (0.5, 1)
    assert answer.as_dict() == content


@pytest.mark.parametrize("missing", ["id", "results", "timings_ms"])
def test_an_answer_without_what_every_server_sends_is_none(missing: str) -> None:
    with pytest.raises(ApiError, match=missing):
        Answer.read({name: value for name, value in DONE.items() if name != missing})
    with pytest.raises(ApiError, match="Result"):
        Answer.read({**DONE, "results": ["yes"]})


def test_tensors_in_an_answer_are_arrays() -> None:
    packed = {"shape": [2], "dtype": "float32", "encoding": "base64", "data": "AACAPwAAAEA="}
    lists = {"shape": [1, 2], "dtype": "float32", "encoding": "json", "data": [[None, 2.0]]}
    read = content_of(json.dumps([packed, lists]).encode())
    np.testing.assert_array_equal(read[0], np.float32([1, 2]))
    np.testing.assert_array_equal(read[1], np.float32([[np.nan, 2]]))
    for wrong in ({**packed, "shape": [3]}, {**packed, "dtype": "object"}, {**packed, "data": "?"}):
        with pytest.raises(ApiError, match="cannot be read"):
            content_of(json.dumps(wrong).encode())


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Invalid),
        (401, Unauthorized),
        (403, Unauthorized),
        (404, NotFound),
        (413, Invalid),
        (422, Invalid),
        (429, Overloaded),
        (503, Unavailable),
        (500, ApiError),
        (418, ApiError),
        (302, ApiError),
    ],
)
def test_every_status_is_an_error_that_says_what_the_server_said(status: int, kind: type[ApiError]) -> None:
    said = {"code": "c", "message": "m", "field": "input.1"}
    error = refusal(
        status, {"retry-after": "3", "x-request-id": "r"}, json.dumps({"error": said}).encode(), "u"
    )
    assert type(error) is kind
    assert str(error) == "input.1: m"
    known = (error.status, error.code, error.message, error.field, error.retry_after, error.request_id)
    assert known == (status, "c", "m", "input.1", 3.0, "r")
    for body in (b"<html>", b"[]", b"{}", b'{"detail": "no"}', b'{"error": "no"}'):
        error = refusal(status, {}, body, "http://x")
        assert type(error) is kind
        assert "http://x answered" in str(error)


def test_retry_after_is_seconds_or_a_date() -> None:
    now = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
    assert seconds_until("7", now) == 7
    assert seconds_until("Tue, 24 Nov 2026 12:01:30 GMT", now) == 90
    assert seconds_until("Tue, 24 Nov 2026 11:00:00 GMT", now) == 0
    for nothing in ("", "soon", "-1", "Tue, 24 Nov 2026 12:01:30"):
        assert seconds_until(nothing, now) is None


def test_only_what_did_no_work_is_sent_again() -> None:
    retries = Retries(2)
    for error in (Overloaded("m"), Unavailable("m"), ConnectionFailed("m", was_sent=False)):
        assert retries.pause(1, error, 0.0) == 0.25
        assert retries.pause(2, error, 1.0) == 0.25, "half of twice as long"
        assert retries.pause(3, error, 0.0) is None
        assert Retries(0).pause(1, error, 0.0) is None
    for final in (Invalid("m"), NotFound("m"), ApiError("m", status=500), BrokenStream("m")):
        assert retries.pause(1, final, 0.0) is None
    assert retries.pause(1, ConnectionFailed("m", was_sent=True), 0.0) is None
    assert Retries(99).pause(60, Overloaded("m"), 0.0) == 8.0


def test_a_pause_is_never_shorter_than_the_server_asked_for_nor_without_bound() -> None:
    errors: list[FathomError] = [Overloaded("m", retry_after=4.0), Unavailable("m", retry_after=4.0)]
    for error in errors:
        assert [Retries(2).pause(1, error, chance) for chance in (0.0, 1.0)] == [4.0, 6.0]
    assert Retries(2).pause(1, Overloaded("m", retry_after=0.0), 1.0) == 0.125
    assert Retries(2).pause(1, Overloaded("m", retry_after=LONGEST_WAIT + 1), 0.0) is None


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000", "ftp://x", "http://", "http://x:port", "http://x/?key=1", "", "http://a:b@x"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(Invalid) as refused:
        Client(url)
    assert refused.value.field == "url"
    assert "a:b" not in str(refused.value)


@pytest.mark.parametrize("key", ["secret\nsesame", " sesame", "sesame\n", "ses\x7fame"])
def test_a_key_that_no_header_holds_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(Invalid) as refused:
        Client(api_key=key)
    assert "sesame" not in str(refused.value) + repr(refused.value)
