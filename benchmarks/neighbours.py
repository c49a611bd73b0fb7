"""What one greedy caller costs the others: short probes beside the widest and deepest problems there are.

    python benchmarks/neighbours.py [--seconds 20]

Starts a server of its own on the shipped bundles, on loopback. The greedy caller keeps more of the widest
logic problems under way than there are slots, each for 4,096 steps: as lists, or as many requests of one
problem. The probes ask for one step of a short one, 50 times a second. Prints the probes' latency idle and
beside the greedy caller, and the steps per second that he gets with and without the probes.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx
from rich.console import Console
from rich.table import Table
from soak import Server, serving

WIDE = "!(T & (F | T)) | " * 20 + "T"  # 221 characters without blanks
DEEPEST, LISTED, SINGLE = 4096, 48, 96
PROBE = {"model": "logic", "input": {"expression": "T & !(F | T)"}, "max_steps": 1}
PAUSE = 0.02  # seconds between probes


async def greedy(client: httpx.AsyncClient, problems: int) -> None:
    """Ask for the most, and for the same again as soon as it is answered."""
    problem = {"expression": WIDE}
    body = {
        "model": "logic",
        "input": problem if problems == 1 else [problem] * problems,
        "max_steps": DEEPEST,
        "halting": {"criterion": "none"},
    }
    while True:
        response = await client.post("/v1/infer", json=body)
        if response.status_code == 429:
            await asyncio.sleep(float(response.headers["retry-after"]))


@asynccontextmanager
async def crowd(server: Server, requests: int, problems: int) -> AsyncIterator[None]:
    """The greedy caller at work."""
    limits = httpx.Limits(max_connections=requests)
    async with httpx.AsyncClient(base_url=server.client.base_url, timeout=None, limits=limits) as client:
        tasks = [asyncio.create_task(greedy(client, problems)) for _ in range(requests)]
        await asyncio.sleep(5)  # until everybody has had a turn
        yield
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
    while await server.metric("fathom_running"):
        await asyncio.sleep(0.1)


async def probe(server: Server, seconds: float) -> list[float]:
    """The latencies of probes in milliseconds, in ascending order."""
    taken = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.monotonic()
        (await server.client.post("/v1/infer", json=PROBE)).raise_for_status()
        taken.append(1000 * (time.monotonic() - began))
        await asyncio.sleep(PAUSE)
    return sorted(taken)


async def rate(server: Server, seconds: float, probes: bool) -> tuple[list[float], float]:
    """Latencies of probes, if there are any, and the steps per second of everybody else."""
    before, began = await server.metric("fathom_steps_total"), time.monotonic()
    taken = await probe(server, seconds) if probes else []
    if not probes:
        await asyncio.sleep(seconds)
    steps = await server.metric("fathom_steps_total") - before - len(taken)
    return taken, steps / (time.monotonic() - began)


async def measure(seconds: float) -> None:
    table = Table(title=f"probes of one step, {seconds:g} s each")
    for heading in ("", "p50 ms", "p99 ms", "p99 / idle", "greedy steps/s", "without probes", "kept"):
        table.add_column(heading, justify="right" if heading else "left")
    async with serving([sys.executable, "fathom.py", "serve"], 4) as server:
        await probe(server, 2)
        idle = await probe(server, seconds)
        table.add_row("idle", f"{at(idle, 0.5):.1f}", f"{at(idle, 0.99):.1f}", *[""] * 4)
        for name, requests, problems in (("lists", 2, LISTED), ("single problems", SINGLE, 1)):
            async with crowd(server, requests, problems):
                _, first = await rate(server, seconds / 2, probes=False)
                taken, beside = await rate(server, seconds, probes=True)
                _, second = await rate(server, seconds / 2, probes=False)
            alone = (first + second) / 2
            worst = at(taken, 0.99)
            table.add_row(
                f"beside {requests * problems} as {name}",
                f"{at(taken, 0.5):.1f}",
                f"{worst:.1f}",
                f"{worst / at(idle, 0.99):.1f}",
                f"{beside:.0f}",
                f"{alone:.0f}",
                f"{beside / alone:.0%}",
            )
    Console().print(table)


def at(ascending: list[float], share: float) -> float:
    """A quantile."""
    return ascending[min(len(ascending) - 1, int(share * len(ascending)))]


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--seconds", type=float, default=20, help="How long each measurement takes.")
    asyncio.run(measure(arguments.parse_args().seconds))


if __name__ == "__main__":
    main()
