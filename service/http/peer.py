"""The client's side of a connection: its body, read with a limit, and the moment it goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.requests import Request
from starlette.types import Receive

from service.engine.ticket import Ticket
from service.errors import Overloaded, TooLarge, TooSlow
from service.http.inflate import inflater_of
from service.http.keys import ANYBODY
from service.http.limits import Limits
from service.settings import Settings

SMALL = 2**14  # bytes; a body of this size costs little more than its connection, and is always read
GONE = 499  # nobody reads this status; it is what metrics and the access log show


class Bodies:
    """The bodies that are held at this time, with bounds on each and on all of them together."""

    def __init__(self, settings: Settings, limits: Limits) -> None:
        self._settings = settings
        self._limits = limits
        self.held = 0  # bytes

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """A request's body, decompressed, which counts as held until the block ends.

        Raises TooLarge once it is over its caller's limit and Overloaded once all are over theirs, or while
        the caller owes steps, without reading the rest; TooSlow where it does not arrive in time,
        UnknownEncoding or BadRequest where it is compressed otherwise than it can be read.
        """
        caller = request.scope["state"].get("caller", ANYBODY)
        self._limits.check_steps(caller)
        limit = self._limits.of(caller).max_body_bytes
        seconds, pieces, size = self._settings.body_seconds, [], 0
        inflate = inflater_of(request.headers.get("content-encoding", ""))
        declared = request.headers.get("content-length", "")
        self._check(int(declared) if declared.isdecimal() else 0, limit, held=0)
        try:
            try:
                async with asyncio.timeout(seconds):
                    async for sent in request.stream():
                        for piece in inflate.pieces(sent):
                            size += len(piece)
                            self.held += len(piece)
                            self._check(size, limit, held=size)
                            pieces.append(piece)
                            if inflate.works:
                                await asyncio.sleep(0)  # others have their turn between two pieces
                inflate.end()
            except TimeoutError:
                raise TooSlow(f"the body took over {seconds:g} s to arrive; send it at once") from None
            body = b"".join(pieces)
            pieces.clear()
            yield body
        finally:
            self.held -= size

    def _check(self, size: int, limit: int, held: int) -> None:
        """Whether a body may have this size, of which `held` bytes are held by now."""
        most = self._settings.max_pending_bytes
        if size > limit:
            raise TooLarge(f"the body is over {limit} bytes; send fewer problems per request")
        if size > SMALL and self.held - held + size > most:
            raise Overloaded(f"bodies of {most} bytes are held, as many as may be; try again later", 1)


@dataclass
class Client:
    """Whoever waits for an answer."""

    gone: bool = False


@asynccontextmanager
async def waiting_client(receive: Receive, ticket: Ticket) -> AsyncIterator[Client]:
    """While a client waits for a ticket: when it goes away, or when the block ends, the slots are freed.

    The server only tells of a lost connection to those who listen, so one task does nothing else. It
    cancels the ticket, whose events then end; whoever iterates over them needs no further care.
    """
    client = Client()

    async def listen() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        client.gone = True
        ticket.cancel()

    listener = asyncio.create_task(listen())
    try:
        yield client
    finally:
        listener.cancel()
        ticket.close()
