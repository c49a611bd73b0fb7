"""What may arrive on a connection before a route sees it: bounded heads, bounded pipelines, one error shape.

uvicorn parses and answers; its parser collects whatever is sent, so what it is fed is counted here.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httptools
from fastapi import FastAPI
from uvicorn.server import ServerState

from model.errors import FathomError
from service.errors import BadRequest, HeadTooLarge, TargetTooLong, Unavailable
from service.http.timeouts import Configuration, Patient

PIECE = 2048  # bytes that are parsed at a time: what may follow a bound before it is seen
MOST_UNREAD = 2**18  # bytes of requests that wait for the answers to earlier ones
REFUSED = 256  # connections over the bound that are told so at the same time; others are just closed


def configuration(app: FastAPI, **more: Any) -> Configuration:
    """How uvicorn serves an application of ours; more is what else it takes."""
    return Configuration(app, Connection, **more)


class Connection(Patient):
    """One client's connection. Its requests are answered one after another."""

    def __init__(
        self,
        config: Configuration,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._unread = bytearray()  # has arrived, and waits for the answer to an earlier request
        self._growth = 0  # bytes since the parser last gave something back
        self._header_bytes = 0
        self._unwanted = 0  # bytes of a body that came after its answer
        self._fault: FathomError | None = None  # why a callback stopped the parser
        self._last_words: FathomError | None = None  # said after the answers that are owed

    # --- what the transport tells ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        most = self.bounds.max_connections
        over = len(self.connections) - most
        if over > REFUSED:
            self.ended = True
            transport.abort()
        elif over > 0:
            self.end(Unavailable(f"{most} connections are open, as many as may be; try again later"))
        else:
            self.wait_for_head()

    def data_received(self, data: bytes) -> None:
        if self.ended or self._last_words is not None:
            return
        idle = self.answering is None and not self.in_head and not self.in_body
        begins = idle and self._growth == 0 and self.cycle is not None
        self._unread += data
        self._parse()
        if begins and self.answering is None and not (self.in_body or self.ended):
            self.wait_for_head()  # of which there is more to come
        if self._unread:  # more requests than one at a time
            self.flow.pause_reading()
        if len(self._unread) > MOST_UNREAD:
            self._refuse(BadRequest("too many requests at once; wait for answers before sending more"))

    # --- what the parser tells ---

    def on_message_begin(self) -> None:
        self.in_head = True
        self._header_bytes = self._unwanted = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        most = self.bounds.max_line_bytes
        if len(self.url) + len(url) > most:
            self._stop(TargetTooLong(f"path and query are over {most} bytes; send what is long in a body"))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.in_body:
            return  # a trailer, which nobody here asks for
        self._header_bytes += len(name) + len(value) + 4
        if self._header_bytes > self.bounds.max_header_bytes or len(self.headers) >= self.bounds.max_headers:
            self._stop(self._head_too_large())
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._growth = 0
        if self.parser.should_upgrade():
            return  # the request is parsed once more, without that wish
        super().on_headers_complete()
        self.wait_no_longer()
        self.in_head, self.in_body = False, True
        if self.config.ending:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._growth = 0
        if self.cycle.response_complete:
            self._unwanted += len(body)
            if self._unwanted > self.bounds.max_body_bytes and not self.ended:
                self.hang_up()
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._growth = 0
        if self.parser.should_upgrade():
            return
        super().on_message_complete()
        self.in_body = False
        if self.answering is None:
            self.wait_for_request()

    # --- requests, one after another ---

    def _parse(self) -> None:
        """Feed the parser in pieces, and no further than to a request that must wait for its turn."""
        most = self.bounds.max_line_bytes + self.bounds.max_header_bytes + PIECE
        while self._unread and not (self.pipeline or self.ended or self.transport.is_closing()):
            piece = bytes(self._unread[:PIECE])
            del self._unread[:PIECE]
            self._growth += len(piece)
            try:
                self.parser.feed_data(piece)
            except httptools.HttpParserUpgrade as upgrade:
                if self.parser.get_method() == b"CONNECT":
                    self._refuse(BadRequest("this is no proxy: CONNECT does not work here"))
                else:
                    self._unread[:0] = self._head_without_upgrade() + piece[upgrade.args[0] :]
            except httptools.HttpParserError:
                self._refuse(self._fault or BadRequest("this is not an HTTP/1 request; see /docs"))
            else:
                if self._growth > most:
                    self._refuse(self._head_too_large())

    def _head_without_upgrade(self) -> bytes:
        """The head once more, for a new parser: there is nothing to upgrade to, so it is a plain request."""
        line = b"%b %b HTTP/%b" % (
            self.parser.get_method(),
            self.url,
            self.parser.get_http_version().encode(),
        )
        headers = [b"%b: %b" % (name, value) for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        return b"\r\n".join([line, *headers, b"", b""])

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        self.answering = None
        if self.ended or self.transport.is_closing():
            self.watch_reader()
        elif self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            self._read_on()
        elif self._last_words is not None:
            self.end(self._last_words)
        elif self.half_closed and not self._unread:
            self.close()
        else:
            (self.wait_for_head if self.in_head else self.wait_for_request)()
            self._read_on()

    def _read_on(self) -> None:
        self.flow.resume_reading()
        self._parse()

    # --- what cannot be read ---

    def _stop(self, fault: FathomError) -> None:
        """Stop the parser from a callback."""
        self._fault = fault
        raise fault

    def _head_too_large(self) -> FathomError:
        size, number = self.bounds.max_header_bytes, self.bounds.max_headers
        return HeadTooLarge(f"the headers are over {size} bytes, or more than {number}; send fewer")

    def _refuse(self, error: FathomError) -> None:
        """Answer what cannot be read with an error, after the answers that are owed, and end."""
        self._unread.clear()
        if self.in_body:  # the request has a route already, or waits for its turn
            if self.pipeline:
                self.pipeline.popleft()
            else:
                self.forget_answer()
                if self.cycle.response_started:
                    self.close()
                    return
        if self.answering is None:
            self.end(error)
        else:
            self._last_words = error
            self.flow.pause_reading()
