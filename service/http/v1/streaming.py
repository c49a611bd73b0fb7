"""Streams of steps: server-sent events, or binary frames for callers who want raw tensors.

A stream is `step` events and then exactly one `done` or `error`. It never ends cleanly without one:
where even the error cannot be sent, the connection is cut.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from model.errors import FathomError
from service.engine.messages import Event, Finished, Stepped
from service.engine.ticket import Ticket
from service.errors import body_of, error_body, reply_to
from service.http.peer import GONE, Client, WaitingClient, client_of
from service.http.threads import Threads
from service.http.v1.answers import Answers, raise_if_all_failed, to_json
from service.http.v1.latents import FramePacker, JsonPacker, Packer
from service.http.v1.prepare import Prepared

log = logging.getLogger("fathom")
SSE = "text/event-stream"
FRAMES = "application/vnd.fathom.frames"


class Format(Protocol):
    """How events become bytes."""

    media_type: str
    packer: Packer
    ping: bytes  # what keeps a silent connection open; empty: nothing does

    def encode(self, event: str, data: dict[str, Any]) -> bytes: ...


class SseFormat:
    """`event:` and `data:` lines.

    Not the framework's own server-sent events: those make a checked object and a write of every event, ping
    at an interval of their own, and know neither frames nor an error that the status line came too early for.
    """

    media_type = SSE
    ping = b": ping\n\n"

    def __init__(self, prepared: Prepared) -> None:
        self.packer: Packer = JsonPacker(prepared.latents.encoding)

    def encode(self, event: str, data: dict[str, Any]) -> bytes:
        return b"event: %b\ndata: %b\n\n" % (event.encode(), to_json(data))


class FrameFormat:
    """u32 little-endian JSON length | JSON, with the event's name as `event` | raw tensors."""

    media_type = FRAMES
    ping = b""

    def __init__(self) -> None:
        self._raw = FramePacker()
        self.packer: Packer = self._raw

    def encode(self, event: str, data: dict[str, Any]) -> bytes:
        raw = self._raw.take()
        header = to_json({"event": event, **data})
        return struct.pack("<I", len(header)) + header + (b"" if event == "error" else raw)


class EventStream(Response):
    """The response that follows a ticket to its end.

    The status line goes out at once: whoever gets here has been validated and admitted to the queue. Steps
    are packed and written where the ticket hears of them; only for what takes long, for a client that reads
    too slowly, and for the end the task that waits here is woken.
    """

    def __init__(
        self, ticket: Ticket, prepared: Prepared, format_: Format, ping_seconds: float, threads: Threads
    ) -> None:
        super().__init__(media_type=format_.media_type)
        del self.headers["content-length"]
        self.headers["cache-control"] = "no-cache"
        self.headers["x-accel-buffering"] = "no"  # nginx would hold events back
        self._ticket = ticket
        self._prepared = prepared
        self._format = format_
        self._answers = Answers(prepared, format_.packer)
        self._ping_seconds = ping_seconds
        self._threads = threads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with WaitingClient(scope, receive, self._ticket) as client:
            try:
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                wire = Wire(send, client_of(scope), self._format.ping, self._ping_seconds)
                self._ticket.offer(lambda events: self._sent_at_once(wire, events))
                async with wire:
                    status, last = await self._follow(wire, client)
                scope["state"]["outcome"] = GONE if client.gone else status
                await send({"type": "http.response.body", "body": last})
            except OSError:  # how some servers tell of a client that has gone
                scope["state"]["outcome"] = GONE

    def _sent_at_once(self, wire: Wire, events: Sequence[Event]) -> bool:
        steps = [event for event in events if isinstance(event, Stepped)]
        if len(steps) < len(events) or not wire.is_free or not self._answers.are_small(steps):
            return False
        wire.write_now(self._steps(steps))
        return True

    async def _follow(self, wire: Wire, client: WaitingClient) -> tuple[int, bytes]:
        """Send what is not sent at once, but for the last piece.

        Returns the status that the outcome would have had without a stream, and that piece.
        """
        ends: list[Finished] = []
        piece = b""
        try:
            async for events in self._ticket:
                if client.gone:
                    return GONE, b""
                ends += [event for event in events if isinstance(event, Finished)]
                steps = [event for event in events if isinstance(event, Stepped)]
                small = self._answers.are_small(steps)
                piece += await self._threads.run(small, partial(self._steps, steps))
                if piece and self._ticket.unfinished:  # else the end goes with it
                    await wire.write(piece)
                    piece = b""
            asked = self._prepared
            raise_if_all_failed(ends, self._ticket.stopped, asked.steered, asked.encoded)
            small = self._answers.are_small(ends)
            return 200, piece + await self._threads.run(small, lambda: self._done(ends))
        except OSError:
            raise
        except FathomError as error:
            return reply_to(error).status, piece + self._format.encode("error", body_of(error))
        except Exception:
            log.exception("a stream broke down")
            fault = error_body("internal", "the stream broke down; try again")
            return 500, piece + self._format.encode("error", fault)

    def _steps(self, steps: Sequence[Stepped]) -> bytes:
        return b"".join(self._format.encode("step", self._answers.step(event)) for event in steps)

    def _done(self, ends: list[Finished]) -> bytes:
        dropped = {"dropped_steps": self._ticket.dropped_steps}
        return self._format.encode("done", {**self._answers.whole(ends), **dropped})


class Wire:
    """Sends pieces of a body, and a ping whenever it has been silent for too long."""

    def __init__(self, send: Send, client: Client | None, ping: bytes, ping_seconds: float) -> None:
        self._send = send
        self._client = client
        self._ping = ping
        self._ping_seconds = ping_seconds
        self._last = time.monotonic()
        self._pinger: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._pinger = asyncio.create_task(self._keep_open()) if self._ping else None

    async def __aexit__(self, *_: object) -> None:
        if self._pinger:
            self._pinger.cancel()

    async def write(self, piece: bytes) -> None:
        """Waits while the client reads more slowly than we write.

        Gives nobody else a turn by itself: a ticket has more to say only once its engine has had one.
        """
        await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        self._last = time.monotonic()

    @property
    def is_free(self) -> bool:
        """Whether a piece can be written without waiting."""
        return self._client is not None and self._client.reads

    def write_now(self, piece: bytes) -> None:
        """Only while the wire is free."""
        assert self._client is not None, "a wire that is free has a client"
        self._client.write(piece)
        self._last = time.monotonic()

    async def _keep_open(self) -> None:
        with suppress(OSError):  # the client has gone; the one who writes events will notice
            while True:
                silent = time.monotonic() - self._last
                if silent >= self._ping_seconds:
                    await self.write(self._ping)
                    silent = 0.0
                await asyncio.sleep(self._ping_seconds - silent)
