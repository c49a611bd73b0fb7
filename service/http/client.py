"""The client's side of a connection: its body, read with a limit, and the moment it goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.requests import Request
from starlette.types import Receive

from service.engine.worker import Ticket
from service.errors import TooLarge

GONE = 499  # nobody reads this status; it is what metrics and the access log show


async def read_body(request: Request, limit: int) -> bytes:
    """The body. Raises TooLarge once it is over `limit` bytes, without reading the rest."""
    refusal = TooLarge(f"the body is over {limit} bytes; send fewer problems per request")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise refusal
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise refusal
        chunks.append(chunk)
    return b"".join(chunks)


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
        ticket.cancel()
