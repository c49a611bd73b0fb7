"""How long a connection waits for its client, whether that is still there, and how the connection ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from model.errors import FathomError
from service.errors import TooSlow, body_of, headers_of, reply_to
from service.http.middleware import REQUEST_ID, new_id
from service.http.peer import CLIENT
from service.http.v1.answers import to_json
from service.settings import Settings

LINGER_SECONDS = 1.0  # for a client to read why its connection ends
STILL_THERE = b"HTTP/1.1 100 Continue\r\n\r\n"  # every client skips it, and who has gone answers with a reset
PROBES = (0.05, 0.1, 0.2, 0.4)  # seconds after one; some clients allow no more than five such answers


class Configuration(uvicorn.Config):
    """uvicorn's, for an application whose connections keep the bounds of its settings."""

    def __init__(self, app: FastAPI, http: type[Patient], **more: Any) -> None:
        super().__init__(app, http=http, ws="none", log_config=None, access_log=False, **more)
        self.settings: Settings = app.state.settings
        self.ending = False  # once set, the next answer on a connection is its last


class Patient(HttpToolsProtocol):
    """uvicorn's connection, with an end to every wait."""

    config: Configuration

    def __init__(
        self,
        config: Configuration,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.bounds = config.settings
        self.in_head = self.in_body = False
        self.ended = False  # nothing more is read
        self.half_closed = False  # the client sends no more, and waits for its answer
        self.answering: RequestResponseCycle | None = None
        self._client: CycleClient | None = None  # whom that is for
        self._timer: asyncio.TimerHandle | None = None  # of the one thing that is waited for
        self._reader_timer: asyncio.TimerHandle | None = None
        self._reader_moved = False

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.wait_no_longer()
        if self._reader_timer:
            self._reader_timer.cancel()
        if self.answering is not None:  # with several requests, uvicorn only tells the last
            self._tell_of_loss(self.answering)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self.answering = cycle
        cycle.transport = Way(self, cycle)  # type: ignore[assignment]  # all that it does with one
        self._client = CycleClient(cycle)
        scope: Any = cycle.scope
        scope["extensions"] = {**(scope.get("extensions") or {}), CLIENT: self._client}
        super()._start_asgi_task(cycle, app)

    def forget_answer(self) -> None:
        """What is being answered needs no answer: its route hears that the client has gone."""
        if self.answering is not None:
            self._tell_of_loss(self.answering)
            self.answering = None

    def _tell_of_loss(self, cycle: RequestResponseCycle) -> None:
        cycle.disconnected = True
        cycle.message_event.set()
        if self._client is not None:
            self._client.has_gone()

    # --- waiting for a request ---

    def wait_for_head(self) -> None:
        """Give up unless a request's head arrives in time."""
        self._wait(self.bounds.head_seconds, self._give_up)

    def wait_for_request(self) -> None:
        """Close unless the next request begins, or the rest of one that was answered arrives, in time."""
        self._wait(self.bounds.keep_alive_seconds, self._give_up)

    def wait_no_longer(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        self.wait_no_longer()
        self._timer = self.loop.call_later(seconds, then)

    def _give_up(self) -> None:
        if self.in_head:
            self.end(TooSlow(f"the request's head took over {self.bounds.head_seconds:g} s; send it at once"))
        else:
            self.close()

    # --- waiting for a reader ---

    def pause_writing(self) -> None:
        super().pause_writing()
        self.watch_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._reader_moved = True

    def watch_reader(self) -> None:
        """Cut the client off where it takes in nothing of what is written for send_seconds."""
        left = self.transport.get_write_buffer_size()

        def look() -> None:
            self._reader_timer = None
            if self._reader_moved or self.transport.get_write_buffer_size() < left:
                self.watch_reader()
            else:
                self.transport.abort()

        if left and self._reader_timer is None:
            self._reader_moved = False
            self._reader_timer = self.loop.call_later(self.bounds.send_seconds, look)

    # --- is anybody there? ---

    def eof_received(self) -> bool:  # type: ignore[override]
        """Whether to keep the connection: the client may have closed its sending side only.

        It cannot be told from one that has gone until something is written, so something is.
        """
        owed = self.answering
        if owed is None or owed.response_started or self.in_head or self.in_body:
            return False
        if owed.scope["http_version"] == "1.0":
            return False
        if not self.half_closed:
            self.half_closed = True
            self._probe(*PROBES)
        return True

    def _probe(self, *pauses: float) -> None:
        if self.answering is None or self.answering.response_started or self.transport.is_closing():
            return
        self.transport.write(STILL_THERE)
        if pauses:
            self._wait(pauses[0], lambda: self._probe(*pauses[1:]))

    # --- ends ---

    def end(self, error: FathomError) -> None:
        """Say why, and hang up."""
        reply, content = reply_to(error), to_json(body_of(error))
        headers = {
            **dict(self.server_state.default_headers),
            b"content-type": b"application/json",
            b"content-length": b"%d" % len(content),
            REQUEST_ID.encode(): new_id().encode(),
            b"connection": b"close",
            **{name.encode(): value.encode() for name, value in headers_of(error).items()},
        }
        lines = b"".join(b"%b: %b\r\n" % header for header in headers.items())
        self.transport.write(STATUS_LINE[reply.status] + lines + b"\r\n" + content)
        self.hang_up()

    def hang_up(self) -> None:
        """Read nothing more, and end in a moment: a reset would overtake what was said."""
        self.ended = True
        self.flow.pause_reading()
        self.transport.write_eof()
        self._wait(LINGER_SECONDS, self.close)

    def close(self) -> None:
        """Close once everything that was written has been read."""
        self.ended = True
        self.transport.close()
        self.watch_reader()


class CycleClient:
    """The client that one answer is for (service/http/peer.py)."""

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._lost: Callable[[], None] | None = None

    def tell(self, lost: Callable[[], None] | None) -> None:
        """Call `lost` at once if the client has gone by now, or when it goes; None: nobody waits any more."""
        self._lost = lost
        if lost is None:
            return
        if self._cycle.disconnected:
            lost()
        else:
            self._cycle.flow.resume_reading()  # who does not read does not hear of a loss

    def has_gone(self) -> None:
        if self._lost is not None:
            self._lost()

    @property
    def has_sent_all(self) -> bool:
        return not self._cycle.more_body

    @property
    def reads(self) -> bool:
        cycle = self._cycle
        in_body = cycle.response_started and not cycle.response_complete and cycle.chunked_encoding
        return bool(in_body) and not (cycle.flow.write_paused or cycle.disconnected)

    def write(self, piece: bytes) -> None:
        self._cycle.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))


class Way:
    """What an answer is written to. It may end while the rest of its request is still to come.

    A head whose body has a known length goes out with the beginning of that: one call of the system, and one
    packet, instead of two.
    """

    def __init__(self, connection: Patient, cycle: RequestResponseCycle) -> None:
        self._connection = connection
        self._cycle = cycle
        self._head: bytes | None = b""  # what is held back; None once there is no head to come

    def write(self, data: bytes) -> None:
        has_body = self._cycle.expected_content_length and self._cycle.scope["method"] != "HEAD"
        if self._head == b"" and has_body:
            self._head = data
        else:
            self.flush(data)

    def flush(self, data: bytes = b"") -> None:
        """Write what is held back, and this."""
        if self._cycle.response_started:
            data, self._head = (self._head or b"") + data, None
        if data:
            self._connection.transport.write(data)

    def is_closing(self) -> bool:
        return self._connection.ended or self._connection.transport.is_closing()

    def close(self) -> None:
        self.flush()
        if self._connection.in_body:
            self._connection.hang_up()
        else:
            self._connection.close()
