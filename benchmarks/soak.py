"""Whether the server's memory stays: steady load for half an hour, then the same with clients that leave.

    python benchmarks/soak.py [--minutes 30] [--clients 12]

Starts a server of its own on the shipped bundles, on loopback. Every answer under load must equal, to
the last bit, the one that the same request got alone. Prints memory and speed each minute, and ends with
exit code 1 where a request was lost, an answer was wrong, a slot stayed taken, or memory grew: where the
median of a part's last third is above that of its middle third. Its first third fills what is kept.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import resource
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import httpx
from rich.console import Console
from soak_requests import Request, requests

OUT = Console(highlight=False, markup=False, soft_wrap=True)
KINDS, SEED = 200, 10  # so many different requests are sent again and again
GROWTH_MB = 4  # what a flat line may rise by
START_SECONDS = STOP_SECONDS = 60
LEAVERS = 0.25  # the share of clients who leave in mid-thought, in the second part
PATIENCE = 120  # seconds until a request that has no answer is lost


@dataclass
class Server:
    """A running `fathom serve`."""

    pid: int
    client: httpx.AsyncClient

    def megabytes(self) -> float:
        """Its resident memory."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * resource.getpagesize() / 1e6

    async def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        page = (await self.client.get("/metrics")).text
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", page, re.MULTILINE))


@dataclass
class Tally:
    """What has become of the requests."""

    right: int = 0
    left: int = 0
    wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


@asynccontextmanager
async def serving(command: list[str], clients: int) -> AsyncIterator[Server]:
    """A server on a free port that is ready; ended when the block ends."""
    process = await asyncio.create_subprocess_exec(
        *command, "--host", "127.0.0.1", "--port", "0", stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None, "it was asked for"
    log: asyncio.Task[None] | None = None
    try:
        async with asyncio.timeout(START_SECONDS):
            while not (found := re.search(r"http://\S+", line := (await process.stderr.readline()).decode())):
                sys.stderr.write(line)
                if not line:
                    raise SystemExit("the server did not start")
        log = asyncio.create_task(_pass_on(process.stderr))
        limits = httpx.Limits(max_connections=2 * clients)
        async with httpx.AsyncClient(base_url=found.group(), timeout=PATIENCE, limits=limits) as client:
            while (await client.get("/health/ready")).status_code != 200:
                await asyncio.sleep(0.05)
            yield Server(process.pid, client)
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()
        if log is not None:
            await log


async def _pass_on(stream: asyncio.StreamReader) -> None:
    async for line in stream:
        sys.stderr.write(line.decode())


async def ask(client: httpx.AsyncClient, request: Request) -> Any:
    """The results of a request, whole or from the end of its stream, and how many steps were shown."""
    if not request.streams:
        response = await client.post("/v1/infer", content=request.body)
        response.raise_for_status()
        return response.json()["results"], 0
    shown, event = 0, ""
    async with client.stream("POST", "/v1/infer", content=request.body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if line.startswith("event: "):
                event = line.removeprefix("event: ")
                shown += event == "step"
            elif line.startswith("data: ") and event == "done":
                return json.loads(line.removeprefix("data: "))["results"], shown
    raise httpx.ReadError("the stream ended without `done`")


async def leave(client: httpx.AsyncClient, request: Request, draw: random.Random) -> None:
    """Ask for more steps than there is time for, and go away."""
    with suppress(TimeoutError):
        async with asyncio.timeout(draw.uniform(0.002, 0.2)):
            await ask(client, request.deep())


async def keep_asking(
    server: Server,
    asked: list[Request],
    answers: list[Any],
    tally: Tally,
    draw: random.Random,
    leavers: float,
) -> None:
    """One client after the other, for ever."""
    while True:
        place = draw.randrange(len(asked))
        try:
            if draw.random() < leavers:
                await leave(server.client, asked[place], draw)
                tally.left += 1
            elif await ask(server.client, asked[place]) == answers[place]:
                tally.right += 1
            else:
                tally.wrong.append(asked[place].title)
        except (httpx.HTTPError, KeyError, ValueError) as error:
            tally.lost.append(f"{asked[place].title}: {error!r}")
            await asyncio.sleep(0.1)  # a server that refuses at once would otherwise fill the list


async def watch(server: Server, tally: Tally, minutes: float) -> list[float]:
    """Megabytes, once a second; a line each minute."""
    samples: list[float] = []
    began = marked = time.monotonic()
    answered, steps = tally.right, await server.metric("fathom_steps_total")
    while (now := time.monotonic()) < began + 60 * minutes:
        samples.append(server.megabytes())
        if now >= marked + 60:
            taken = await server.metric("fathom_steps_total")
            speed = (tally.right - answered) / (now - marked), (taken - steps) / (now - marked)
            last = samples[-60:]
            OUT.print(
                f"{(now - began) / 60:5.0f} min  {median(last):6.1f} MB, at most {max(last):6.1f}"
                f"  {speed[0]:6.1f} answers/s  {speed[1]:7.0f} steps/s  {tally.left} left"
            )
            marked, answered, steps = now, tally.right, taken
        await asyncio.sleep(1)
    return samples


async def part(
    server: Server, asked: list[Request], answers: list[Any], clients: int, minutes: float, leavers: float
) -> bool:
    """Load for so long; whether memory stayed and every answer was right."""
    tally = Tally()
    draws = [random.Random(SEED + place) for place in range(clients)]
    tasks = [asyncio.create_task(keep_asking(server, asked, answers, tally, draw, leavers)) for draw in draws]
    samples = await watch(server, tally, minutes)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        if not task.cancelled():
            task.result()
    third = len(samples) // 3
    middle, last = median(samples[third : 2 * third]), median(samples[2 * third :])
    free = await slots_become_free(server)
    OUT.print(
        f"{tally.right} right, {len(tally.wrong)} wrong, {len(tally.lost)} lost, {tally.left} left;"
        f" {'all slots free' if free else 'SLOTS STILL TAKEN'};"
        f" {middle:.1f} MB in the middle third, {last:.1f} MB in the last"
    )
    for trouble in (tally.wrong + tally.lost)[:10]:
        OUT.print(f"  {trouble}")
    return free and not tally.wrong and not tally.lost and last - middle <= GROWTH_MB


async def slots_become_free(server: Server) -> bool:
    """Whether nobody thinks any more soon after everybody has gone."""
    for _ in range(100):
        if await server.metric("fathom_running") + await server.metric("fathom_waiting") == 0:
            return True
        await asyncio.sleep(0.05)
    return False


async def soak(command: list[str], minutes: float, clients: int) -> bool:
    """Both parts against one server."""
    asked = requests(random.Random(SEED), KINDS)
    async with serving(command, clients) as server:
        OUT.print(f"{server.megabytes():.1f} MB when ready")
        answers = [await ask(server.client, request) for request in asked]
        OUT.print(f"{server.megabytes():.1f} MB after {len(asked)} requests, one at a time")
        good = True
        for title, leavers in (("steady load", 0.0), ("with clients that leave", LEAVERS)):
            OUT.print(f"{title}, {clients} clients")
            good &= await part(server, asked, answers, clients, minutes, leavers)
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30, help="of each part")
    parser.add_argument("--clients", type=int, default=12)
    given = parser.parse_args()
    good = asyncio.run(soak([sys.executable, "-m", "fathom", "serve"], given.minutes, given.clients))
    OUT.print("memory stayed" if good else "NOT GOOD")
    sys.exit(not good)


if __name__ == "__main__":
    main()
