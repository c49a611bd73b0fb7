"""A raw connection, for what no HTTP client would send."""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import BinaryIO, Self

from tests.service.servers import PATIENCE, Body, Running

LIVE = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n"


@dataclass
class Answer:
    """What came back: header names in lower case, the body as JSON."""

    status: int
    headers: dict[str, str]
    body: Body

    @property
    def code(self) -> str:
        """The code of an error, which has the one shape and an id."""
        assert set(self.body) == {"error"}, self.body
        assert set(self.body["error"]) == {"code", "message", "field"}
        assert self.headers["content-type"] == "application/json"
        assert self.headers["x-request-id"]
        return str(self.body["error"]["code"])


def next_answer(file: BinaryIO) -> Answer:
    """The next answer that a server has sent; interim ones are skipped."""
    status, headers = 100, {}
    while status == 100:
        status = int(file.readline().split()[1])
        lines = iter(file.readline, b"\r\n")
        headers = dict(line.decode().strip().lower().split(": ", 1) for line in lines)
    return Answer(status, headers, json.loads(file.read(int(headers["content-length"]))))


class Wire:
    """A connection to a server, which a block closes at its end."""

    def __init__(self, server: Running) -> None:
        url = server.client.base_url
        self.socket = socket.create_connection((url.host, url.port or 0), timeout=PATIENCE)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def send(self, content: bytes) -> None:
        """Send as much as the server takes; it may have had enough."""
        with suppress(ConnectionError):
            self.socket.sendall(content)

    def answer(self) -> Answer:
        """The next answer."""
        return next_answer(self._file)

    def is_closed(self) -> bool:
        """Wait for the next byte or the end; whether it was the end."""
        try:
            return self._file.read(1) == b""
        except ConnectionError:
            return True


def post(body: object, path: str = "/v1/infer", more: str = "") -> bytes:
    """A whole request; bytes are its body as they are."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(content)}\r\n{more}\r\n"
    return head.encode() + content
