"""The client's side of a connection: its body, read with a limit, and the moment it goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope

from service.engine.ticket import Ticket
from service.errors import Overloaded, TooLarge, TooSlow
from service.http.inflate import inflater_of
from service.http.keys import ANYBODY, first_of
from service.http.limits import Limits
from service.settings import Settings

SMALL = 2**14  # bytes; a body of this size costs little more than its connection, and is always read
CLIENT = "fathom.client"
GONE = 499  # nobody reads this status; it is what metrics and the access log show


class Bodies:
    """The bodies that are held at this time, with bounds on each and on all of them together."""

    def __init__(self, settings: Settings, limits: Limits) -> None:
        self._settings = settings
        self._limits = limits
        self.held = 0  # bytes

    async def read(self, request: Request) -> Body:
        """A request's body, decompressed, which counts as held until its block ends.

        Raises TooLarge once it is over its caller's limit and Overloaded once all are over theirs, or while
        the caller owes steps, without reading the rest; TooSlow where it does not arrive in time,
        UnknownEncoding or BadRequest where it is compressed otherwise than it can be read.
        """
        caller = request.scope["state"].get("caller", ANYBODY)
        self._limits.check_steps(caller)
        limit = self._limits.of(caller).max_body_bytes
        headers = request.scope["headers"]
        inflate = inflater_of(first_of(headers, b"content-encoding").decode("latin-1"))
        declared = first_of(headers, b"content-length")
        self._check(int(declared) if declared.isdigit() else 0, limit, held=0)
        body, pieces = Body(self), []
        try:
            client = client_of(request.scope)
            seconds = self._settings.body_seconds
            async with asyncio.timeout(None if client is not None and client.has_sent_all else seconds):
                more = True
                while more:
                    sent, more = await _part_of_a_body(request.receive)
                    for piece in inflate.pieces(sent):
                        body.grow(len(piece))
                        self._check(body.size, limit, held=body.size)
                        pieces.append(piece)
                        if inflate.works:
                            await asyncio.sleep(0)  # others have their turn between two pieces
            inflate.end()
        except TimeoutError:
            body.let_go()
            raise TooSlow(f"the body took over {seconds:g} s to arrive; send it at once") from None
        except BaseException:
            body.let_go()
            raise
        body.content = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return body

    def _check(self, size: int, limit: int, held: int) -> None:
        """Whether a body may have this size, of which `held` bytes are held by now."""
        most = self._settings.max_pending_bytes
        if size > limit:
            raise TooLarge(f"the body is over {limit} bytes; send fewer problems per request")
        if size > SMALL and self.held - held + size > most:
            raise Overloaded(f"bodies of {most} bytes are held, as many as may be; try again later", 1)


class Body:
    """A body that is held while the block runs that it is the context of."""

    def __init__(self, bodies: Bodies) -> None:
        self.content = b""
        self.size = 0
        self._bodies = bodies

    def grow(self, size: int) -> None:
        self.size += size
        self._bodies.held += size

    def let_go(self) -> None:
        """Harmless when repeated."""
        self._bodies.held -= self.size
        self.size = 0

    def __enter__(self) -> bytes:
        content, self.content = self.content, b""
        return content

    def __exit__(self, *_: object) -> None:
        self.let_go()


async def _part_of_a_body(receive: Receive) -> tuple[bytes, bool]:
    """What has come, and whether more will. Raises ClientDisconnect."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return message.get("body", b""), message.get("more_body", False)


class Client(Protocol):
    """Whom an answer is for, by a connection of ours. Stands in an ASGI scope's extensions, under CLIENT."""

    def tell(self, lost: Callable[[], None] | None) -> None:
        """Call `lost` at once if the client has gone by now, or when it goes; None: nobody waits any more."""

    @property
    def has_sent_all(self) -> bool:
        """Whether the whole body is here."""

    @property
    def reads(self) -> bool:
        """Whether more of a body of unknown length can be written now, without waiting for the client."""

    def write(self, piece: bytes) -> None:
        """Write a piece of such a body, as `send` would, but without a task; only while the client reads."""


def client_of(scope: Scope) -> Client | None:
    """None where another server has the connection."""
    client: Client | None = scope.get("extensions", {}).get(CLIENT)
    return client


class WaitingClient:
    """Whoever waits for a ticket: when it goes away, or when the block ends, the slots are freed.

    A lost connection cancels the ticket, whose events then end; whoever iterates over them needs no further
    care. Our own connections call when that happens; where another server has the connection, it only tells
    those who listen, so one task does nothing else.
    """

    def __init__(self, scope: Scope, receive: Receive, ticket: Ticket) -> None:
        self.gone = False
        self._receive = receive
        self._ticket = ticket
        self._client = client_of(scope)
        self._listener: asyncio.Task[None] | None = None

    def __enter__(self) -> WaitingClient:
        if self._client is not None:
            self._client.tell(self._lose)
        else:
            self._listener = asyncio.create_task(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            self._client.tell(None)
        if self._listener is not None:
            self._listener.cancel()
        self._ticket.close()

    def _lose(self) -> None:
        self.gone = True
        self._ticket.cancel()

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._lose()
