"""Clients of every kind at once: good ones whose answers are checked, and ones that no server deserves."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from tests.service.servers import Body
from tests.service.wire import Answer, next_answer, post

PATIENCE = 30  # seconds until an answer that is owed counts as lost
WILD = [2**63, -(2**63), 10**400, 1e308, -0.0, 0, -1, 1.5, None, True, "", "\ud800", "9" * 999, [], [[]], {}]
Good = Callable[[random.Random], tuple[Body, Callable[[Body], bool]]]
"""Draws a request, and whether an answer to it is right."""


@dataclass
class Report:
    """What happened: how often each kind of client came, and what went wrong."""

    came: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def chaos(address: tuple[str, int], good: Good, seconds: float, clients: int = 12, seed: int = 0) -> Report:
    """Let clients come and go for so long, so many at a time. good: requests that the server can answer."""
    report, until = Report(), time.monotonic() + seconds

    def come_and_go(place: int) -> None:
        draw = random.Random(f"{seed}.{place}")
        while time.monotonic() < until:
            kind = draw.choice(KINDS)
            report.came[kind.__name__] += 1
            try:
                with socket.create_connection(address, timeout=PATIENCE) as connection:
                    kind(connection, draw, good)
            except AssertionError as fault:
                report.wrong.append(f"{kind.__name__}: {fault}")
            except (OSError, ValueError) as fault:
                report.wrong.append(f"{kind.__name__}: {fault!r}")

    threads = [threading.Thread(target=come_and_go, args=(place,)) for place in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return report


# --- the good ---


def asks(connection: socket.socket, draw: random.Random, good: Good) -> None:
    file = connection.makefile("rb")
    for _ in range(draw.randint(1, 5)):
        body, is_right = good(draw)
        connection.sendall(post(body))
        expect(is_right, next_answer(file))


def asks_several_at_once(connection: socket.socket, draw: random.Random, good: Good) -> None:
    drawn = [good(draw) for _ in range(draw.randint(2, 6))]
    connection.sendall(b"".join(post(body) for body, _ in drawn))
    file = connection.makefile("rb")
    for _, is_right in drawn:
        expect(is_right, next_answer(file))


def asks_and_closes_its_sending_side(connection: socket.socket, draw: random.Random, good: Good) -> None:
    body, is_right = good(draw)
    connection.sendall(post(body))
    connection.shutdown(socket.SHUT_WR)
    expect(is_right, next_answer(connection.makefile("rb")))


def asks_in_pieces(connection: socket.socket, draw: random.Random, good: Good) -> None:
    body, is_right = good(draw)
    rest = post(body)
    while rest:
        size = draw.randint(1, len(rest))
        connection.sendall(rest[:size])
        rest = rest[size:]
        time.sleep(0.001)
    expect(is_right, next_answer(connection.makefile("rb")))


# --- the bad, who must be told so ---


def asks_wildly(connection: socket.socket, draw: random.Random, good: Good) -> None:
    body, _ = good(draw)
    halting = {"criterion": "confidence", "threshold": draw.choice(WILD), "patience": draw.choice(WILD)}
    places = ("max_steps", "min_steps", "deadline_ms", "input", "model", "include", "latents", "stream")
    body |= {draw.choice(places): draw.choice(WILD), draw.choice(places): draw.choice(WILD)}
    if draw.random() < 0.5:
        body["halting"] = halting
    connection.sendall(post({**body, "stream": False, "max_steps": body.get("max_steps") or 8}))
    status = next_answer(connection.makefile("rb")).status
    assert status in (200, 400, 404, 422), f"{status} for {body}"


def talks_nonsense(connection: socket.socket, draw: random.Random, good: Good) -> None:
    content = bytearray(post(good(draw)[0]))
    for _ in range(draw.randint(1, 20)):
        content[draw.randrange(len(content))] = draw.randrange(256)
    connection.sendall(content)
    connection.shutdown(socket.SHUT_WR)
    with suppress(ConnectionError):  # whatever it is taken for, it comes to an end
        while connection.recv(2**16):
            pass


def sends_a_head_without_end(connection: socket.socket, draw: random.Random, good: Good) -> None:
    start, more = draw.choice([(b"GET /", b"a"), (b"GET / HTTP/1.1\r\na: ", b"b"), (b"GET /", b"%00")])
    with suppress(ConnectionError):
        connection.sendall(start)
        for _ in range(1000):
            connection.sendall(more * 5000)
        raise AssertionError("megabytes of a head were read")


# --- those who are no use ---


def stops_in_mid_request(connection: socket.socket, draw: random.Random, good: Good) -> None:
    content = post(good(draw)[0])
    connection.sendall(content[: draw.randrange(len(content))])
    with suppress(ConnectionError):
        while connection.recv(2**16):  # told so or not, it is given up
            pass


def stops_in_mid_body(connection: socket.socket, draw: random.Random, good: Good) -> None:
    head = b"POST /v1/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n"
    connection.sendall(head + b" " * draw.randrange(200_000))
    status = next_answer(connection.makefile("rb")).status
    assert status in (408, 429), f"{status} for half a body"


def leaves(connection: socket.socket, draw: random.Random, good: Good) -> None:
    connection.sendall(post(endless(good(draw)[0], draw.random() < 0.5)))
    time.sleep(draw.choice([0, 0.001, 0.02, 0.2]))


def reads_slowly_and_leaves(connection: socket.socket, draw: random.Random, good: Good) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.sendall(post(endless(good(draw)[0], stream=True)))
    with suppress(ConnectionError):
        for _ in range(draw.randint(0, 20)):
            connection.recv(2000)
            time.sleep(0.02)


KINDS = [
    *[asks, asks_several_at_once, asks_and_closes_its_sending_side, asks_in_pieces] * 3,
    asks_wildly,
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
    return {**body, "max_steps": steps, "halting": {"criterion": "none"}, "stream": stream}


def expect(is_right: Callable[[Body], bool], answer: Answer) -> None:
    assert answer.status == 200, answer
    assert is_right(answer.body), f"not the answer: {answer.body}"
