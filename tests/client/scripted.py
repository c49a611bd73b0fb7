"""A server that answers each request as a script says, byte by byte, and remembers what it was asked."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO

PATIENCE = 20
HANG_UP = b""  # close the connection without a word
SILENCE = None  # say nothing, and keep the connection until the other side has gone


class Last(bytes):
    """A whole answer, after which the connection is closed without a word of warning."""


def reply(status: int, content: Any, *headers: str, cut: int = 0) -> bytes:
    """A whole answer, or one that ends some bytes too early."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    lines = [f"HTTP/1.1 {status} As Told", f"content-length: {len(body)}", *headers, "", ""]
    answer = "\r\n".join(lines).encode() + body
    return answer[: len(answer) - cut]


def error(status: int, code: str, *headers: str) -> bytes:
    return reply(status, {"error": {"code": code, "message": f"it is {code}", "field": None}}, *headers)


def frames(*pieces: bytes, whole: bool = True) -> bytes:
    """A chunked answer of frames; without its last chunk it was cut off."""
    lines = ("HTTP/1.1 200 OK", "transfer-encoding: chunked", "content-type: application/vnd.fathom.frames")
    head = "\r\n".join((*lines, "", "")).encode()
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return head + chunks + (b"0\r\n\r\n" if whole else b"")


@dataclass
class Scripted:
    """Where the server is, and what came: request lines with headers, bodies, and connections."""

    url: str
    heads: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    connections: int = 0
    closed: threading.Event = field(default_factory=threading.Event)  # a connection has been, by the server


@contextmanager
def scripted(answers: Sequence[bytes | None], listening: threading.Event | None = None) -> Iterator[Scripted]:
    """Answers one request after another; with `listening` there is no server before it is set."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = Scripted(f"http://127.0.0.1:{listener.getsockname()[1]}")
    left = iter(answers)
    opened: list[socket.socket] = []

    def serve() -> None:
        if listening is not None:
            assert listening.wait(PATIENCE)
        listener.listen()
        ready.set()
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            server.connections += 1
            opened.append(connection)
            with suppress(OSError), connection, connection.makefile("rb") as file:
                while (body := _request(server, file)) is not None:
                    server.bodies.append(body)
                    answer = next(left)
                    if answer is SILENCE:
                        file.read(1)
                        break
                    connection.sendall(answer)
                    if answer == HANG_UP or isinstance(answer, Last) or not _is_whole(answer):
                        break
            server.closed.set()

    ready = threading.Event()
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        if listening is None:
            assert ready.wait(PATIENCE)
        yield server
    finally:
        if listening is not None:
            listening.set()
        assert ready.wait(PATIENCE)
        for connection in opened:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(PATIENCE)
        assert not thread.is_alive(), "the script did not end"


def _request(server: Scripted, file: BinaryIO) -> bytes | None:
    """The body of the next request; None where no more comes."""
    lines = list(iter(file.readline, b"\r\n")) if (first := file.readline()) else []
    if not first:
        return None
    head = (first + b"".join(lines)).decode()
    server.heads.append(head)
    sizes = [line for line in head.lower().splitlines() if line.startswith("content-length: ")]
    return file.read(int(sizes[0].partition(": ")[2]) if sizes else 0)


def _is_whole(answer: bytes) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    if b"chunked" in head:
        return body.endswith(b"0\r\n\r\n")
    size = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length: "))
    return len(body) == int(size.partition(b": ")[2])
