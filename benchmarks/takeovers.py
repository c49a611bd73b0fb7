"""What one request can take away from the others: seven attacks that once worked, and what they do now.

    python benchmarks/takeovers.py [--server COMMAND]

Starts a server of its own on the shipped bundles, on loopback, once per attack. Prints for each what the
others notice. --server names another `fathom serve` to compare with, an older one say.
"""

from __future__ import annotations

import argparse
import asyncio
import shlex
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table
from soak import Server, ask, serving
from soak_requests import Request

SHORT = {"edges": [["a", "b"], ["b", "c"]], "source": "a", "target": "c"}
WIDE = "!(T & (F | T)) | " * 20 + "T"
TO_THE_END = {"halting": {"criterion": "none"}}
PATIENCE = 60  # seconds after which an attack has worked


def graph(nodes: int) -> dict[str, Any]:
    """A chain."""
    edges = [[node, node + 1] for node in range(nodes - 1)]
    return {"edges": edges, "source": 0, "target": nodes - 1}


@asynccontextmanager
async def beside(*calls: Awaitable[Any]) -> AsyncIterator[None]:
    """While others do something."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    await asyncio.sleep(2)
    yield
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError, httpx.HTTPError):
            await task


async def again(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    """The same request for ever."""
    while True:
        await client.post("/v1/infer", json=body)


async def answered(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    (await client.post("/v1/infer", json=body)).raise_for_status()


async def seconds(call: Awaitable[Any]) -> float:
    """How long it takes, or PATIENCE."""
    began = time.monotonic()
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            await call
    return time.monotonic() - began


async def deadline(server: Server, problems: list[dict[str, Any]], model: str) -> str:
    """An answer that is wanted within 50 ms while another request has every slot."""
    deep = {"model": model, "input": problems, "max_steps": 4096, **TO_THE_END}
    timed = {"model": model, "input": problems[0], "max_steps": 4096, "deadline_ms": 50, **TO_THE_END}
    async with beside(server.client.post("/v1/infer", json=deep)):
        taken = sorted([await seconds(answered(server.client, timed)) for _ in range(9)])
    return f"answered after {1000 * taken[4]:.0f} ms, {1000 * taken[-1]:.0f} at worst"


async def behind_deep(server: Server) -> str:
    return await deadline(server, [graph(8)] * 64, "graph")


async def behind_wide(server: Server) -> str:
    return await deadline(server, [{"expression": WIDE}] * 64, "logic")


async def list_stream(server: Server) -> str:
    """A stream of 53 problems beside 64 clients with small ones."""
    body = {"model": "graph", "input": [SHORT] * 53, "max_steps": 128, "stream": True, **TO_THE_END}
    request = Request("", body)
    small = {"model": "graph", "input": SHORT, "max_steps": 1}
    limits = httpx.Limits(max_connections=200)
    async with (
        httpx.AsyncClient(base_url=server.client.base_url, timeout=PATIENCE, limits=limits) as crowd,
        beside(*(again(crowd, small) for _ in range(64))),
    ):
        taken = [await seconds(ask(server.client, request)) for _ in range(3)]
    return f"took {sorted(taken)[1]:.1f} s"


async def whole_states(server: Server) -> str:
    """Streams of whole states as JSON, and how long /health/live takes meanwhile."""
    body = {
        "model": "graph",
        "input": graph(256),
        "max_steps": 4096,
        "stream": True,
        "latents": {"select": "full", "encoding": "json"},
        **TO_THE_END,
    }
    request = Request("", body)
    async with beside(*(ask(server.client, request) for _ in range(4))):
        taken = []
        async with httpx.AsyncClient(base_url=server.client.base_url) as prober:
            for _ in range(100):
                taken.append(await seconds(prober.get("/health/live")))
                await asyncio.sleep(0.02)
    taken.sort()
    return f"/health/live takes {1000 * taken[50]:.0f} ms, {1000 * taken[98]:.0f} at the 99th percentile"


async def trace(server: Server) -> str:
    """The trace of 256 problems of 4,096 steps."""
    body = {"model": "graph", "input": [SHORT] * 256, "max_steps": 4096, "include": ["trace"], **TO_THE_END}
    before, most = server.megabytes(), 0.0
    call = asyncio.ensure_future(server.client.post("/v1/infer", json=body))
    until = time.monotonic() + PATIENCE
    while not call.done() and time.monotonic() < until:
        most = max(most, server.megabytes())
        await asyncio.sleep(0.05)
    status = call.result().status_code if call.done() else "no answer"
    call.cancel()
    return f"{status}, memory grew by {max(0.0, most - before):.0f} MB"


async def header_lines(server: Server) -> str:
    """58 MB of headers on one connection."""
    host, port = server.client.base_url.host, server.client.base_url.port or 80
    _, writer = await asyncio.open_connection(host, port)

    async def send() -> None:
        with suppress(ConnectionError):
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n")
            for number in range(29_000):
                writer.write(b"x-%d: %b\r\n" % (number, b"y" * 2000))
                await writer.drain()
        writer.close()

    return await _noticed(server, send())


async def stalled_bodies(server: Server) -> str:
    """300 bodies of 1 MB of which the last byte never comes."""
    host, port = server.client.base_url.host, server.client.base_url.port or 80
    head = b"POST /v1/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 1000001\r\n\r\n"

    async def send() -> None:
        with suppress(ConnectionError):
            _, writer = await asyncio.open_connection(host, port)
            writer.write(head + b" " * 1_000_000)
            await asyncio.wait_for(writer.drain(), 5)

    return await _noticed(server, asyncio.gather(*(send() for _ in range(300)), return_exceptions=True))


async def _noticed(server: Server, attack: Awaitable[Any]) -> str:
    """How much memory grows during an attack, and how long /health/live takes at most."""
    before, most, longest = server.megabytes(), 0.0, 0.0
    task = asyncio.ensure_future(attack)
    async with httpx.AsyncClient(base_url=server.client.base_url, timeout=PATIENCE) as prober:
        until = time.monotonic() + 8
        while time.monotonic() < until:
            longest = max(longest, await seconds(prober.get("/health/live")))
            most = max(most, server.megabytes())
            await asyncio.sleep(0.02)
    task.cancel()
    growth = max(0.0, most - before)
    return f"memory grew by {growth:.0f} MB, /health/live took {1000 * longest:.0f} ms at most"


ATTACKS: dict[str, Callable[[Server], Awaitable[str]]] = {
    "deadline of 50 ms behind 64 deep problems": behind_deep,
    "deadline of 50 ms behind 64 wide and deep ones": behind_wide,
    "a stream of 53 x 128 steps beside 64 small clients": list_stream,
    "4 JSON streams of states of 256 nodes": whole_states,
    "a trace of 256 x 4,096 steps": trace,
    "58 MB of header lines": header_lines,
    "300 stalled bodies of 1 MB": stalled_bodies,
}


async def measure(command: Sequence[str]) -> None:
    table = Table("attack", "what the others notice", title="attacks by one caller")
    for name, attack in ATTACKS.items():
        async with serving([*command], 32) as server:
            await server.client.post("/v1/infer", json={"model": "graph", "input": SHORT})
            table.add_row(name, await attack(server))
    Console().print(table)


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--server", default=f"{sys.executable} fathom.py serve", help="What to start.")
    asyncio.run(measure(shlex.split(arguments.parse_args().server)))


if __name__ == "__main__":
    main()
