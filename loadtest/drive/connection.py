"""One HTTP/1.1 connection that carries one request at a time, and nothing that a measurement does not need.

A general client costs a millisecond and more a request, which on a small machine is what a server costs
too; this one costs about a tenth. Bytes are read by `httptools`, the parser of uvicorn.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import httptools

from loadtest.drive.cases import Label
from loadtest.drive.dialects import EventReader, error_code
from loadtest.drive.samples import Sample

if TYPE_CHECKING:
    from loadtest.drive.client import Shot

CLOSED = "the server closed the connection before its answer was complete"


@dataclass(slots=True)
class Exchange:
    """One request on its way, and what has come back so far. Times are of `time.monotonic`."""

    shot: "Shot"
    request: bytes
    start: float  # of the cell
    label: Label | None
    begun: float
    ended: Callable[["Exchange"], None]  # once: the answer is complete, or `error` says why not
    tell: Callable[[Sample], None]
    streams: bool = False
    sent: float | None = None
    now: float = 0.0  # when the last bytes came
    status: int = 0
    error: str = ""
    body: list[bytes] = field(default_factory=list)
    reader: EventReader | None = None
    first_step: float | None = None
    last_step: float = 0.0
    gaps_ms: list[float] = field(default_factory=list)
    timers: list[asyncio.TimerHandle] = field(default_factory=list)
    connection: "Connection | None" = None
    over: bool = False

    def take(self, chunk: bytes) -> None:
        """A piece of the body. Of a stream only the last event is kept, and when each step came."""
        if self.reader is None:
            self.body.append(chunk)
            return
        for event, data in self.reader.feed(chunk):
            if event == "step":
                if self.first_step is None:
                    self.first_step = self.now
                else:
                    self.gaps_ms.append((self.now - self.last_step) * 1e3)
                self.last_step = self.now
            elif event == "done":
                self.body, self.error = [data], ""
            elif event == "error":
                self.body, self.error = [], error_code(data, 200)

    def headers_done(self, status: int) -> None:
        """The status line and all headers have come."""
        self.status = status
        if status == 200 and self.streams:
            self.reader, self.error = EventReader(), "the stream ended before its done event"


class Connection(asyncio.Protocol):
    """Made by `loop.create_connection`; then `start` an exchange, and another once it has ended."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self._framed = False  # the answer says where it ends
        self.idle_since = 0.0
        self.usable = False

    def start(self, exchange: Exchange) -> None:
        """Sends the request of `exchange`, which hears of the answer."""
        assert self._transport is not None, "a connection is started on once it is made"
        self._exchange, self._framed = exchange, False
        exchange.connection = self
        exchange.sent = self._clock()
        self._transport.write(exchange.request)

    def close(self) -> None:
        """Gives the connection up; an exchange on it is not told."""
        self.usable, self._exchange = False, None
        if self._transport is not None:
            self._transport.abort()

    # --- what asyncio calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its class
        self.usable = True

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            self.close()  # nobody asked
            return
        exchange.now = self._clock()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if not exchange.over:
                self._end(f"not HTTP: {error}", usable=False)

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        exchange = self._exchange
        if exchange is not None:
            exchange.now = self._clock()
            complete = exchange.status and not self._framed  # it ends where the connection does
            self._end("" if complete else str(exc or CLOSED), usable=False)

    # --- what the parser calls ---

    def on_header(self, name: bytes, value: bytes) -> None:  # noqa: ARG002
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._framed = True

    def on_headers_complete(self) -> None:
        if self._exchange is not None:
            self._exchange.headers_done(self._parser.get_status_code())

    def on_body(self, body: bytes) -> None:
        if self._exchange is not None:
            self._exchange.take(body)

    def on_message_complete(self) -> None:
        if self._exchange is not None and self._exchange.status >= 200:  # what is below announces another
            self._end("", usable=self._parser.should_keep_alive())

    def _end(self, error: str, usable: bool) -> None:
        exchange, self._exchange = self._exchange, None
        assert exchange is not None, "only an exchange that was begun ends"
        exchange.error = error or exchange.error
        self.usable = usable and self.usable
        if not usable and self._transport is not None:
            self._transport.abort()
        self.idle_since = exchange.now
        exchange.ended(exchange)
