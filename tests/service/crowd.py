"""Who comes to a server: good clients whose answers are checked, and ones that no server deserves."""

from __future__ import annotations

import gzip
import json
import socket
import time
from collections.abc import Callable
from contextlib import suppress

import numpy as np

from model.codecs import CodecLimits, codec_of
from service.http.v2.tensors import DATATYPES
from tests.service.chaos import PATIENCE, Client
from tests.service.servers import Body, chain, counting_bundle
from tests.service.wire import Answer, next_answer, post

WILD = [2**63, -(2**63), 10**400, 1e308, -0.0, 0, -1, 1.5, None, True, "", "\ud800", "9" * 999, [], [[]], {}]
TO_THE_END = {"criterion": "none"}
NAN_NODES, FAILING_NODES = 50, 60  # chains of so many nodes break the model, in a bucket of their own


# --- the good ---


def asks(client: Client) -> None:
    for _ in range(client.draw.randint(1, 5)):
        body, is_right = client.good()
        expect(is_right, client.ask(body))
    client.leave()


def asks_several_at_once(client: Client) -> None:
    drawn = [client.good() for _ in range(client.draw.randint(2, 6))]
    client.socket.sendall(b"".join(client.request(body) for body, _ in drawn))
    for _, is_right in drawn:
        expect(is_right, client.answer())
    client.leave()


def asks_and_closes_its_sending_side(client: Client) -> None:
    body, is_right = client.good()
    client.socket.sendall(client.request(body))
    client.socket.shutdown(socket.SHUT_WR)
    expect(is_right, client.answer())


def asks_in_pieces(client: Client) -> None:
    body, is_right = client.good()
    rest = client.request(body)
    while rest:
        size = client.draw.randint(1, len(rest))
        client.socket.sendall(rest[:size])
        rest = rest[size:]
        time.sleep(0.001)
    expect(is_right, client.answer())


def asks_in_gzip(client: Client) -> None:
    body, is_right = client.good()
    packed = gzip.compress(json.dumps(body).encode())
    expect(is_right, client.ask(packed, more="content-encoding: gzip\r\n"))
    client.leave()


def asks_for_samples(client: Client) -> None:
    body, is_right = client.good()
    count = client.draw.randint(2, 5)
    samples = {"count": count, "seed": client.draw.randrange(9)}
    answer = client.ask({**body, "samples": samples})
    expect(is_right, answer)
    results = answer.body["results"]
    assert all(result["samples"]["votes"] == {"reachable": count} for result in results), answer
    assert answer.body["usage"]["steps"] == count * sum(result["steps"] for result in results), answer
    client.leave()


def intervenes(client: Client) -> None:
    body, is_right = client.good()
    operations = [{"op": "zero"}, {"op": "scale", "value": 2.0}, {"op": "noise"}, {"op": "set", "value": 1.0}]
    changes = [{"step": step, **client.draw.choice(operations)} for step in (1, 2)]
    paired = client.draw.random() < 0.5
    answer = client.ask({**body, "interventions": changes, "paired": paired})
    expect(is_right, answer)
    assert all(("effect" in result) is paired for result in answer.body["results"]), answer
    client.leave()


def thinks_on(client: Client) -> None:
    body, is_right = client.good()
    client.socket.sendall(client.request({**body, "max_steps": 1, "keep": 30}))
    kept = client.newest
    first = client.answer()
    assert [result["halt_reason"] for result in first.body["results"]] == ["budget"] * len(body["input"])
    answer = client.ask({"continue_from": kept, "max_steps": body["max_steps"]})
    expect(is_right, answer)
    taken = sum(result["steps"] - 1 for result in answer.body["results"])
    assert answer.body["usage"]["steps"] == taken, answer
    client.leave()


def asks_in_tensors(client: Client) -> None:
    """The same by /v2, all rows in one padded batch."""
    body, is_right = client.good()
    rows = [CODEC.encode(problem, "input") for problem in body["input"]]
    widest = max(len(row["mask"]) for row in rows)
    inputs = []
    for spec in MANIFEST.inputs:
        whole = np.zeros((len(rows), *[widest] * (len(spec.shape) - 1)), spec.numpy_dtype)
        for place, row in enumerate(rows):
            whole[place][tuple(slice(size) for size in row[spec.name].shape)] = row[spec.name]
        tensor = {"name": spec.name, "datatype": DATATYPES[spec.dtype], "shape": list(whole.shape)}
        inputs.append({**tensor, "data": whole.tolist()})
    asked = {"inputs": inputs, "parameters": {"max_steps": body["max_steps"]}}
    answer = client.ask(asked, "/v2/models/graph/infer")
    assert answer.status == 200, answer
    (steps,) = (output["data"] for output in answer.body["outputs"] if output["name"] == "steps")
    assert is_right({"results": [{"steps": taken} for taken in steps]}), f"not the answer: {steps}"
    client.leave()


def streams(client: Client) -> None:
    body, is_right = client.good()
    client.socket.sendall(client.request({**body, "stream": True}, more="connection: close\r\n"))
    *steps, (last, answer) = client.events()
    assert (last, {name for name, _ in steps}) == ("done", {"step"})
    assert is_right(answer), f"not the answer: {answer}"
    assert len(steps) + answer["dropped_steps"] == answer["usage"]["steps"], "a step is there once or counted"


def is_cancelled(client: Client) -> None:
    """What it asks for would take forever; on another connection it is ended."""
    body, _ = client.good()
    stream = client.draw.random() < 0.5
    client.socket.sendall(client.request(endless(body, stream), more="connection: close\r\n"))
    with socket.create_connection(client.socket.getpeername(), timeout=PATIENCE) as connection:
        other, until = connection.makefile("rb"), time.monotonic() + PATIENCE
        request = f"DELETE /v1/requests/{client.newest} HTTP/1.1\r\nhost: x\r\n\r\n".encode()
        cancelled = Answer(404, {}, {})
        while cancelled.status == 404 and time.monotonic() < until:  # it may not have been read yet
            connection.sendall(request)
            cancelled = next_answer(other)
    assert cancelled.body == {"id": client.newest, "cancelled": len(body["input"])}, cancelled
    if stream:
        name, answer = client.events()[-1]
        assert name == "done"
    else:
        answer = client.answer().body
    reasons = {result["halt_reason"] for result in answer["results"]}
    assert reasons == {"cancelled"}, answer


# --- those with a hand on the server ---


def loads_what_is_loaded(client: Client) -> None:
    answer = client.ask({}, "/v2/repository/models/graph/load")
    assert (answer.status, answer.body) == (200, {"name": "graph", "load": True}), answer
    client.leave()


# --- those on whom the model breaks down, who must be told so ---


def breaks_the_model(client: Client) -> None:
    broken = chain(client.draw.choice([NAN_NODES, FAILING_NODES]) - 1)
    answer = client.ask({"input": broken, "max_steps": 40})
    assert (answer.status, answer.code) == (500, "model_failed"), answer
    both = client.ask({"input": [chain(3), broken], "max_steps": 40})
    assert both.status == 200, both
    sound, lost = both.body["results"]
    assert (sound["steps"], lost["halt_reason"]) == (3, "error"), both
    client.leave()


# --- the bad, who must be told so ---


def asks_wildly(client: Client) -> None:
    draw, (body, _) = client.draw, client.good()
    halting = {"criterion": "confidence", "threshold": draw.choice(WILD), "patience": draw.choice(WILD)}
    body |= {draw.choice(PLACES): draw.choice(WILD), draw.choice(PLACES): draw.choice(WILD)}
    if draw.random() < 0.5:
        body["halting"] = halting
    answer = client.ask({**body, "stream": False, "max_steps": body.get("max_steps") or 8})
    assert answer.status in (200, 400, 404, 422), f"{answer.status} for {body}"
    assert answer.status == 200 or answer.code, "an error has its shape"


def sends_what_is_no_gzip(client: Client) -> None:
    body, _ = client.good()
    packed = gzip.compress(json.dumps(body).encode())
    spoilt = client.draw.choice([packed[:-9], b"no" + packed, gzip.compress(bytes(2**21))])
    answer = client.ask(spoilt, more="content-encoding: gzip\r\n")
    assert (answer.status, answer.code) in ((400, "bad_request"), (413, "too_large")), answer


def talks_nonsense(client: Client) -> None:
    draw, content = client.draw, bytearray(post(client.good()[0]))
    for _ in range(draw.randint(1, 20)):
        content[draw.randrange(len(content))] = draw.randrange(256)
    client.socket.sendall(content)
    client.socket.shutdown(socket.SHUT_WR)
    with suppress(ConnectionError):  # whatever it is taken for, it comes to an end
        while client.socket.recv(2**16):
            pass


def sends_a_head_without_end(client: Client) -> None:
    start, more = client.draw.choice([(b"GET /", b"a"), (b"GET / HTTP/1.1\r\na: ", b"b"), (b"GET /", b"%00")])
    with suppress(ConnectionError):
        client.socket.sendall(start)
        for _ in range(1000):
            client.socket.sendall(more * 5000)
        raise AssertionError("megabytes of a head were read")


# --- those who are no use ---


def stops_in_mid_request(client: Client) -> None:
    content = post(client.good()[0])
    client.socket.sendall(content[: client.draw.randrange(len(content))])
    with suppress(ConnectionError):
        while client.socket.recv(2**16):  # told so or not, it is given up
            pass


def stops_in_mid_body(client: Client) -> None:
    head = b"POST /v1/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n"
    client.socket.sendall(head + b" " * client.draw.randrange(200_000))
    status = next_answer(client.socket.makefile("rb")).status
    assert status in (408, 429), f"{status} for half a body"


def leaves(client: Client) -> None:
    client.socket.sendall(post(endless(client.good()[0], client.draw.random() < 0.5)))
    time.sleep(client.draw.choice([0, 0.001, 0.02, 0.2]))


def reads_slowly_and_leaves(client: Client) -> None:
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.socket.sendall(post(endless(client.good()[0], stream=True)))
    with suppress(ConnectionError):
        for _ in range(client.draw.randint(0, 20)):
            client.socket.recv(2000)
            time.sleep(0.02)


MANIFEST = counting_bundle().manifest
CODEC = codec_of(MANIFEST, CodecLimits())
PLACES = (
    *("max_steps", "min_steps", "deadline_ms", "input", "model", "include", "latents", "stream"),
    *("keep", "continue_from", "interventions", "paired", "samples", "aggregate"),
)
KINDS = [
    *[asks, asks_several_at_once, asks_and_closes_its_sending_side, asks_in_pieces] * 2,
    *[asks_in_gzip, asks_in_tensors, asks_for_samples, intervenes, thinks_on, streams, is_cancelled],
    loads_what_is_loaded,
    breaks_the_model,
    asks_wildly,
    sends_what_is_no_gzip,
    talks_nonsense,
    sends_a_head_without_end,
    stops_in_mid_request,
    stops_in_mid_body,
    leaves,
    reads_slowly_and_leaves,
]


def endless(body: Body, stream: bool) -> Body:
    """The request with as many steps as there may be, all of them told where it is a stream."""
    steps = body.get("max_steps", 8) * 1000
    return {**body, "max_steps": steps, "halting": TO_THE_END, "stream": stream}


def expect(is_right: Callable[[Body], bool], answer: Answer) -> None:
    assert answer.status == 200, answer
    assert is_right(answer.body), f"not the answer: {answer.body}"
