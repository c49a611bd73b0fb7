"""Compressed bodies: read within the limit of what they hold, and refused where they cannot be."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib

import pytest

from service.errors import BadRequest
from service.http.inflate import PIECE, inflater_of
from tests.service.servers import Running, chain, serving
from tests.service.wire import Wire

LIMIT = 20_000


@pytest.fixture(scope="module")
def server() -> Running:
    with serving(max_body_bytes=LIMIT) as server:
        yield server


def sent(server: Running, content: bytes, encoding: str = "gzip") -> tuple[int, str]:
    answer = server.client.post("/v1/infer", content=content, headers={"content-encoding": encoding})
    return answer.status_code, answer.json().get("error", {}).get("code", "")


BODY = json.dumps({"input": chain(3)}).encode()
ZIPPED = gzip.compress(BODY)


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip"])
def test_a_gzip_body_is_read(server: Running, encoding: str) -> None:
    assert sent(server, gzip.compress(BODY), encoding) == (200, "")


def test_an_identity_body_is_read_as_it_is(server: Running) -> None:
    assert sent(server, BODY, "identity") == (200, "")


@pytest.mark.parametrize("encoding", ["br", "deflate", "zstd", "gzip, gzip", "nonsense"])
def test_other_encodings_are_refused_and_told_what_is_read(server: Running, encoding: str) -> None:
    answer = server.client.post("/v1/infer", content=BODY, headers={"content-encoding": encoding})
    assert answer.status_code == 415
    assert answer.json()["error"]["code"] == "unknown_encoding"
    assert answer.headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize(
    "content",
    [BODY, b"", ZIPPED[:-1], ZIPPED[:-9], ZIPPED + b"x", zlib.compress(BODY), ZIPPED + ZIPPED,
     ZIPPED[:-8] + bytes(8)],
    ids=["plain", "empty", "short", "cut", "longer", "zlib", "two", "bad checksum"],
)  # fmt: skip
def test_what_is_not_gzip_is_refused(server: Running, content: bytes) -> None:
    assert sent(server, content) == (400, "bad_request")


def test_the_limit_holds_for_what_a_body_holds(server: Running) -> None:
    def padded(size: int) -> bytes:
        return BODY + b" " * (size - len(BODY))

    assert sent(server, gzip.compress(padded(LIMIT))) == (200, "")
    assert len(gzip.compress(padded(LIMIT + 1))) < LIMIT / 10
    assert sent(server, gzip.compress(padded(LIMIT + 1))) == (413, "too_large")


def test_a_bomb_is_refused_while_it_inflates(server: Running) -> None:
    bomb = gzip.compress(bytes(200 * 2**20))
    assert len(bomb) > LIMIT, "its declared length alone would be refused"
    tracemalloc.start()
    with Wire(server) as connection:
        head = b"POST /v1/infer HTTP/1.1\r\nhost: x\r\ncontent-encoding: gzip\r\n"
        head += b"transfer-encoding: chunked\r\n\r\n"
        connection.send(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(bomb), bomb))
        answer = connection.answer()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (answer.status, answer.code) == (413, "too_large")
    assert peak < 4 * 2**20


def test_a_piece_at_a_time_is_inflated() -> None:
    inflater = inflater_of("gzip")
    bomb = gzip.compress(bytes(10 * 2**20))
    sizes = [len(piece) for piece in inflater.pieces(bomb)]
    inflater.end()
    assert max(sizes) <= PIECE
    assert sum(sizes) == 10 * 2**20


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_how_a_body_is_cut_makes_no_difference(size: int) -> None:
    content = bytes(range(256)) * 40
    packed = gzip.compress(content)
    inflater = inflater_of("gzip")
    pieces = [
        piece
        for start in range(0, len(packed), size)
        for piece in inflater.pieces(packed[start : start + size])
    ]
    inflater.end()
    assert b"".join(pieces) == content
    with pytest.raises(BadRequest, match="more in the body"):
        list(inflater.pieces(b"more"))
