"""How often Python's lock should change hands between the engines' threads and the event loop.

    python benchmarks/switch_interval.py [--seconds 160] [--clients 4]

Starts a server of its own on loopback, with the shipped bundles, that goes from one interval
(`sys.setswitchinterval`) to the next every second, so that a noisy machine disturbs all of them alike.
Clients send the small ones of the soak's requests, of all models, whole and streamed, and the next as soon
as one is answered; large ones compute without the lock most of the time. Beside them short probes come 50
times a second. Prints, per interval, requests per second and the probes' latency over all its seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections import defaultdict
from contextlib import suppress
from statistics import median

from neighbours import PAUSE, PROBE, at
from rich.console import Console
from rich.table import Table
from soak import SEED, Server, ask, serving
from soak_requests import Request, requests

INTERVALS = (0.005, 0.001, 0.0002, 0.00005)  # seconds; the first is Python's default
SERVE = f"""
import sys, threading, time, fathom
def take_turns():
    while True:
        sys.setswitchinterval({INTERVALS}[int(time.monotonic()) % {len(INTERVALS)}])
        time.sleep(1 - time.monotonic() % 1)
threading.Thread(target=take_turns, daemon=True).start()
fathom.main()
"""
KINDS, SMALL = 400, 600  # requests to choose from, bytes


async def keep_asking(server: Server, asked: list[Request], draw: random.Random, ends: list[float]) -> None:
    """One request after the other; notes when each was answered."""
    while True:
        await ask(server.client, draw.choice(asked))
        ends.append(time.monotonic())


async def probe(server: Server, seconds: float) -> dict[int, list[float]]:
    """Latencies in milliseconds by second of the clock; what two seconds shared is left out."""
    taken: dict[int, list[float]] = defaultdict(list)
    until = time.monotonic() + seconds
    while (began := time.monotonic()) < until:
        (await server.client.post("/v1/infer", json=PROBE)).raise_for_status()
        if int(began) == int(ended := time.monotonic()):
            taken[int(began)].append(1000 * (ended - began))
        await asyncio.sleep(PAUSE)
    return taken


async def measure(seconds: float, clients: int) -> Table:
    asked = [
        request
        for request in requests(random.Random(SEED), KINDS)
        if len(request.body) < SMALL and "latents" not in request.content
    ]
    ends: list[float] = []
    async with serving([sys.executable, "-c", SERVE, "serve"], clients) as server:
        tasks = [
            asyncio.create_task(keep_asking(server, asked, random.Random(SEED + place), ends))
            for place in range(clients)
        ]
        await probe(server, len(INTERVALS))  # warm up
        began = len(ends)
        taken = await probe(server, seconds)
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
    return table(taken, [int(end) for end in ends[began:]], clients)


def table(taken: dict[int, list[float]], ends: list[int], clients: int) -> Table:
    """Per interval; between brackets the quartiles over its seconds."""
    found = Table(title=f"{clients} clients and probes, {len(taken)} seconds in turn")
    for heading in ("interval ms", "requests/s", "p50 ms", "p90 ms", "p99 ms of all"):
        found.add_column(heading, justify="right")
    for place, interval in enumerate(INTERVALS):
        seconds = [second for second in taken if second % len(INTERVALS) == place]
        by_second = [sorted(taken[second]) for second in seconds]
        rates = [float(ends.count(second)) for second in seconds]
        cells = [spread(rates, 0)] + [
            spread([at(one, share) for one in by_second], 1) for share in (0.5, 0.9)
        ]
        every = sorted(latency for one in by_second for latency in one)
        found.add_row(f"{1000 * interval:g}", *cells, f"{at(every, 0.99):.0f}")
    return found


def spread(values: list[float], digits: int) -> str:
    values = sorted(values)
    low, high = at(values, 0.25), at(values, 0.75)
    return f"{median(values):.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--seconds", type=float, default=160)
    arguments.add_argument("--clients", type=int, default=4)
    given = arguments.parse_args()
    Console(width=110).print(asyncio.run(measure(given.seconds, given.clients)))


if __name__ == "__main__":
    main()
