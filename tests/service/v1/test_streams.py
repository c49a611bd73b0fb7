"""Streams of steps, and clients that go away, against a real server."""

from __future__ import annotations

import base64
import json
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from service.http.v1 import streaming
from service.http.v1.answer_schemas import ErrorBody, InferAnswer, StepEvent
from tests.service.servers import Body, Running, chain, events, eventually, serving

FOREVER = {"halting": {"criterion": "none"}, "max_steps": 1_000_000}


@pytest.fixture
def server() -> Iterator[Running]:
    with serving(slots=2) as running:
        yield running


def streamed(server: Running, problem: object, **terms: object) -> list[tuple[str, Body]]:
    body = {"input": problem, "stream": True, **terms}
    with server.client.stream("POST", "/v1/infer", json=body) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        return list(events(response))


def begin(server: Running, problem: object, **terms: object) -> socket.socket:
    """Send a request and read nothing; whoever closes the socket is a client that goes away."""
    body = json.dumps({"input": problem, **terms}).encode()
    head = f"POST /v1/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    connection = socket.create_connection((server.client.base_url.host, server.client.base_url.port or 0))
    connection.sendall(head + body)
    return connection


def test_a_stream_shows_every_step_and_ends_with_the_whole_answer(server: Running) -> None:
    *steps, (last, answer) = streamed(server, chain(4), include=["trace", "scores"])
    assert [name for name, _ in steps] == ["step"] * 4
    for number, (_, data) in enumerate(steps, start=1):
        StepEvent.model_validate(data)
        assert (data["index"], data["step"], data["answer"]) == (0, number, number == 4)
        assert set(data) == {"index", "step", "answer", "label", "probabilities", "scores"}
    assert last == "done"
    InferAnswer.model_validate(answer)
    assert (answer["results"][0]["steps"], answer["results"][0]["halt_reason"]) == (4, "halted")
    assert "trace" not in answer["results"][0]


def test_a_stream_is_the_same_answer_as_without(server: Running) -> None:
    whole = server.infer(chain(4), include=["trace", "probabilities", "scores"]).json()["results"][0]
    *steps, (_, done) = streamed(server, chain(4), include=["probabilities", "scores"])
    assert [{key: data[key] for key in data if key != "index"} for _, data in steps] == whole.pop("trace")
    assert done["results"][0] == whole


def told(server: Running) -> tuple[list[Body], int]:
    """The data of a stream's events without what depends on when they came, and how often its task wrote."""
    writes: list[bytes] = []
    write = streaming.Wire.write

    async def counted(wire: streaming.Wire, piece: bytes) -> None:
        writes.append(piece)
        await write(wire, piece)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming.Wire, "write", counted)
        got = [data for _, data in streamed(server, chain(60), max_steps=60)]
    del got[-1]["id"], got[-1]["timings_ms"]
    return got, len(writes)


def test_a_client_that_reads_gets_its_steps_without_a_task_and_the_same_ones_as_with_it(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.runner.pace = 0.002
    without, few = told(server)
    monkeypatch.setattr(streaming, "client_of", lambda _: None)  # as where another server has the connection
    through_it, many = told(server)
    assert without == through_it
    assert len(without) == 61
    assert few < 10 < many


def test_a_list_streams_each_problem_under_its_index(server: Running) -> None:
    depths = [5, 2, 7, 3]  # two slots: the last two wait
    *steps, (last, answer) = streamed(server, [chain(depth) for depth in depths])
    for index, depth in enumerate(depths):
        assert [data["step"] for _, data in steps if data["index"] == index] == list(range(1, depth + 1))
    assert last == "done"
    assert [result["steps"] for result in answer["results"]] == depths


def test_frames_are_the_same_events_with_raw_tensors(server: Running) -> None:
    terms = {"latents": {"select": "full", "dtype": "float16"}, "max_steps": 3}
    sent = {"input": chain(5), "stream": True, **terms}
    response = server.client.post("/v1/infer", json=sent, headers={"accept": "application/vnd.fathom.frames"})
    assert response.headers["content-type"] == "application/vnd.fathom.frames"
    frames = list(unframed(response.content))
    assert [header["event"] for header, _ in frames] == ["step", "step", "step", "done"]
    for (header, tensors), (name, data) in zip(frames, streamed(server, chain(5), **terms), strict=True):
        assert header.pop("event") == name
        shown = data if name == "step" else data["results"][0]
        raw = base64.b64decode(shown["latents"]["data"])
        assert tensors == [raw]
        slot = header if name == "step" else header["results"][0]
        assert slot["latents"] == {"shape": [6, 4], "dtype": "float16", "byte_size": len(raw)}
        np.testing.assert_array_equal(
            np.frombuffer(raw, "<f2").reshape(6, 4)[:, 0] % 1, header_depth(shown) / 8
        )


def header_depth(shown: Body) -> int:
    return int(shown.get("step") or shown["steps"])


def unframed(content: bytes) -> Iterator[tuple[Body, list[bytes]]]:
    """(header, tensors) of every frame, by the documented format alone."""
    while content:
        (length,) = struct.unpack_from("<I", content)
        header = json.loads(content[4 : 4 + length])
        content = content[4 + length :]
        tensors = []
        for size in byte_sizes(header):
            tensors.append(content[:size])
            content = content[size:]
        yield header, tensors


def byte_sizes(value: Any) -> Iterator[int]:
    """Every byte_size in the header's order."""
    if isinstance(value, dict):
        if "byte_size" in value:
            yield value["byte_size"]
        for inner in value.values():
            yield from byte_sizes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from byte_sizes(inner)


def test_a_refused_stream_has_its_real_status(server: Running) -> None:
    refused = server.infer(chain(2), stream=True, max_steps=0)
    assert (refused.status_code, refused.headers["content-type"]) == (422, "application/json")
    assert server.infer(chain(2), stream=True, model="nobody").status_code == 404


def test_a_failure_in_mid_stream_is_an_error_event(server: Running) -> None:
    server.runner.nan_nodes = 13
    got = streamed(server, chain(12))
    assert [name for name, _ in got] == ["step", "error"]
    error = ErrorBody.model_validate(got[-1][1]).error
    assert error.code == "model_failed"
    eventually(lambda: server.metric("fathom_requests_total", model="graph", code="500") == 1)


def test_a_failure_of_one_of_several_problems_is_told_in_its_result(server: Running) -> None:
    server.runner.nan_nodes = 13
    name, answer = streamed(server, [chain(3), chain(12)])[-1]
    assert name == "done"
    assert [result["halt_reason"] for result in answer["results"]] == ["halted", "error"]


def test_a_bug_in_mid_stream_is_an_error_event_and_frees_the_slot(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("service.http.v1.answers.answer_of", broken)
    got = streamed(server, chain(4), **FOREVER)
    assert [name for name, _ in got] == ["error"]
    assert got[0][1]["error"]["code"] == "internal"
    server.runner.wait_until(taken=0)


def test_a_silent_stream_is_kept_open_by_comments() -> None:
    with serving(ping_seconds=0.05) as server:
        server.runner.may_step.clear()
        with server.client.stream("POST", "/v1/infer", json={"input": chain(2), "stream": True}) as response:
            coming = events(response)
            assert [next(coming)[0] for _ in range(3)] == ["ping"] * 3
            server.runner.may_step.set()
            assert [name for name, _ in coming if name != "ping"] == ["step", "step", "done"]


@pytest.mark.parametrize("streams", [True, False], ids=["streaming", "waiting for the whole answer"])
def test_a_client_that_goes_away_frees_its_slots(server: Running, streams: bool) -> None:
    connection = begin(server, [chain(2), chain(2), chain(2)], stream=streams, **FOREVER)
    server.runner.wait_until(taken=2)
    connection.close()
    server.runner.wait_until(taken=0)
    eventually(lambda: server.served.waiting == 0)
    eventually(lambda: server.metric("fathom_requests_total", model="graph", code="499") == 1)
    assert server.metric("fathom_halt_total", model="graph", reason="cancelled") == 3
    assert server.infer(chain(3)).json()["results"][0]["steps"] == 3


@pytest.mark.parametrize("streams", [True, False], ids=["streaming", "waiting for the whole answer"])
def test_a_client_that_goes_away_while_it_waits_for_a_slot_leaves_the_queue(
    server: Running, streams: bool
) -> None:
    blocker = begin(server, [chain(2), chain(2)], **FOREVER)
    server.runner.wait_until(taken=2)
    waiting = begin(server, chain(2), stream=streams, **FOREVER)
    eventually(lambda: server.served.waiting == 1)
    waiting.close()
    eventually(lambda: server.served.waiting == 0)
    assert server.served.running == 2
    blocker.close()
    server.runner.wait_until(taken=0)


def test_a_client_that_goes_away_in_mid_body_takes_no_slot(server: Running) -> None:
    connection = socket.create_connection((server.client.base_url.host, server.client.base_url.port or 0))
    connection.sendall(b'POST /v1/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 500\r\n\r\n{"input"')
    connection.close()
    eventually(lambda: server.metric("fathom_requests_total", model="unknown", code="499") == 1)
    assert server.served.running == server.served.waiting == 0


def test_a_reader_that_stalls_holds_up_nobody_else(server: Running) -> None:
    stalled = begin(server, chain(2), stream=True, **FOREVER)  # never reads: the socket's buffers fill up
    server.runner.wait_until(taken=1)
    for depth in (3, 5, 4):
        assert server.infer(chain(depth)).json()["results"][0]["steps"] == depth
    stalled.close()
    server.runner.wait_until(taken=0)


def test_what_a_slow_reader_leaves_is_dropped_and_counted_but_for_the_last_step() -> None:
    with serving(max_event_bytes=100_000) as server:
        steps, problems = 120, 32  # of a kilobyte and a half each: more than fits into what lies between us
        terms = {"stream": True, "max_steps": steps, "latents": {"select": "full"}}
        rule = {"halting": {"criterion": "none"}}
        connection = begin(server, [chain(60)] * problems, **terms, **rule)  # does not read until all is over
        eventually(lambda: server.metric("fathom_halt_total", model="graph", reason="budget") == problems)
        connection.settimeout(20)
        received = b""
        while b"event: done" not in received or not received.endswith(b"\r\n0\r\n\r\n"):
            received += connection.recv(2**16)
        connection.close()
        done = json.loads(received.split(b"event: done\ndata: ")[1].split(b"\n")[0])
        shown = received.count(b"event: step\n")
        assert done["dropped_steps"] > 0
        assert server.metric("fathom_dropped_steps_total", model="graph") == done["dropped_steps"]
        assert shown + done["dropped_steps"] == steps * problems
        for index in range(problems):
            assert b'{"index":%d,"step":%d,' % (index, steps) in received


def test_a_stream_of_a_long_list_is_written_once_per_step_of_the_engine() -> None:
    with serving(slots=64, max_problems=64) as server:
        writes = 0
        problems = [chain(2)] * 53
        body = {"input": problems, "stream": True, "max_steps": 20, "halting": {"criterion": "none"}}
        with server.client.stream("POST", "/v1/infer", json=body) as response:
            for _ in response.iter_raw():
                writes += 1
        assert writes < 53 * 20 / 3, "an event at a time"  # the runner takes four rows at a time


def test_streams_run_side_by_side(server: Running) -> None:
    depths, answers = [5, 9, 3, 7, 6, 4], {}

    def read(depth: int) -> None:
        answers[depth] = streamed(server, chain(depth))

    threads = [threading.Thread(target=read, args=(depth,)) for depth in depths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for depth in depths:
        assert [name for name, _ in answers[depth]] == ["step"] * depth + ["done"]


def test_what_still_runs_when_the_drain_is_over_is_cut_short_in_words() -> None:
    held: list[tuple[str, Body]] = []
    whole: list[httpx.Response] = []
    with serving(slots=2, drain_seconds=0.05) as server:
        server.runner.pace = 0.01

        def read_stream() -> None:
            held.extend(streamed(server, chain(2), **FOREVER))

        def read_whole() -> None:
            whole.append(server.infer(chain(2), **FOREVER))

        threads = [threading.Thread(target=read) for read in (read_stream, read_whole)]
        for thread in threads:
            thread.start()
        server.runner.wait_until(taken=2)
        server.served.stop_admitting()
        assert server.infer(chain(2)).status_code == 503
        assert "draining" in server.client.get("/health/ready").json()["error"]["message"]
        server.served.close()
        for thread in threads:
            thread.join()
    assert held[-1][0] == "error"
    assert held[-1][1]["error"]["code"] == "unavailable"
    assert (whole[0].status_code, whole[0].json()["error"]["code"]) == (503, "unavailable")
