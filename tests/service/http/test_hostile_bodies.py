"""Hostile bodies of a megabyte: understood or refused, soon, and nobody else is held up meanwhile."""

from __future__ import annotations

import time

import pytest

from model.errors import RequestError
from service.errors import InvalidJson
from service.http.json_body import MOST_CONTAINERS
from service.http.v1.prepare import parse_request
from tests.pauses import longest_pause

BODY = 2**20  # bytes
CPU_SECONDS, PAUSE_SECONDS = 1.0, 0.1


def filled(head: str, part: str, tail: str) -> bytes:
    """A body of BODY bytes: the head, the part as often as there is room, the tail."""
    room = BODY - len(head) - len(tail)
    return (head + part * (room // len(part)) + tail).encode()


def listed(part: str) -> bytes:
    return filled('{"input":[', f"{part},", "0]}")


BODIES = {
    "empty objects": listed("{}"),
    "empty lists": listed("[]"),
    "objects in objects": listed('{"":{}}'),
    "edges": listed("[1,2]"),
    "lists as deep as they go": listed("[" * 900 + "]" * 900),
    "lists deeper than they go": b"[" * (BODY // 8),
    "as many lists as there may be": ('{"input":[' + "[[]]," * (MOST_CONTAINERS // 2 - 1) + "0]}").encode(),
    "nothing but lists": b"[" * BODY,
    "objects deeper than they go": filled("", '{"a":', ""),
    "small numbers": listed("1"),
    "numbers": listed("300"),
    "fractions": listed("0.1"),
    "exponents": listed("1e5"),
    "a number of a million digits": filled('{"input":', "9", "}"),
    "numbers of thousands of digits": listed("9" * 4300),
    "a fraction of a million digits": filled('{"input":0.', "1", "}"),
    "an exponent of a million digits": filled('{"input":1e', "9", "}"),
    "fractions that round with care": listed(f"2.2250738585072011{'3' * 100}e-308"),
    "escapes": filled('{"input":"', "\\u0301", '"}'),
    "escaped pairs": filled('{"input":"', "\\ud83d\\ude00", '"}'),
    "empty strings": listed('""'),
    "keys": ('{"input":{' + ",".join(f'"{key:x}":0' for key in range(BODY // 10)) + "}}").encode(),
    "one key": filled('{"input":{', '"a":0,', '"b":0}}'),
    "unknown fields": ("{" + ",".join(f'"{key:x}":0' for key in range(BODY // 10)) + "}").encode(),
    "a long unknown field": filled('{"', "x", '":0}'),
    "things to include": filled('{"input":0,"include":[', '"x",', "0]}"),
    "a long model": filled('{"input":0,"model":"', "x", '"}'),
    "blanks": filled("", " ", "{}"),
    "two bytes a letter": '{"input":"é"}'.replace("é", "é" * (BODY // 2 - 20)).encode(),
    "broken text": b'{"input":"' + b"\xc3" * (BODY - 20),
}


def parsed(body: bytes) -> str:
    """What the caller is told; nothing where the body was understood."""
    try:
        parse_request(body)
    except (InvalidJson, RequestError) as refusal:
        return refusal.message
    return ""


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_hostile_body_is_soon_done_with_and_holds_nobody_up(body: bytes) -> None:
    assert len(body) <= BODY
    before = time.thread_time()
    parsed(body)
    assert time.thread_time() - before < CPU_SECONDS
    assert longest_pause(lambda: parsed(body), PAUSE_SECONDS) < PAUSE_SECONDS
