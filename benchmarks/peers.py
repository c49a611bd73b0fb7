"""Fathom against other servers of the same step graph, on budgets of mixed depth.

    python benchmarks/peers.py --python PEERS/bin/python [--peers litserve,ray,bentoml,fastapi] [--json]

Saturation: 64 clients that always wait for an answer; a peer's best batch size and number of workers are
searched for, and its best is what counts. Then all are offered the same load, half of the peer's saturation,
at random times (an open loop): latency counts from when a request was due. Fathom and the peer take turns.
Before that, the peer's answers are held against Fathom's.
On a machine that others use, who runs more processes gets more of it: then processor time tells more.
"""

from __future__ import annotations

import math
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from driving import Process, ask, drive, free_port, offer, post, running
from measure import Report, parser, ratio, spread
from peer_servers import PATHS
from problems import BUNDLES, budgets, problem

NUMBER, CLIENTS, SIZE, COMPARED = 384, 64, 24, 24
CHOICES = tuple(product((8, 16, 32), ((1, 2), (2, 1))))  # batch size, (workers, threads of each)
PEER_SERVERS = str(Path(__file__).parent / "peer_servers.py")


def contents(task: str) -> list[dict[str, Any]]:
    """The same problems and budgets for everybody."""
    draw = np.random.default_rng(0)
    return [
        {"input": problem(task, draw, SIZE), "max_steps": steps} for steps in budgets("geometric", NUMBER)
    ]


def requests(task: str) -> list[bytes]:
    """As Fathom takes them."""
    more = {"model": task, "halting": {"criterion": "none"}}
    return [post("/v1/infer", {**content, **more}) for content in contents(task)]


def requests_of(peer: str, task: str) -> list[bytes]:
    """As a peer takes them."""
    asked = contents(task)
    return [post(PATHS[peer], {"contents": [each]} if peer == "bentoml" else each) for each in asked]


def check(server: Process, theirs: list[bytes], fathom: Process, mine: list[bytes]) -> None:
    """Raises RuntimeError where a peer does not answer as Fathom does."""
    for asked, own in zip(theirs[:COMPARED], mine[:COMPARED], strict=True):
        found, (expected,) = ask(server.port, asked), ask(fathom.port, own)["results"]
        if isinstance(found, list):
            (found,) = found
        near = all(
            math.isclose(share, found["probabilities"][label], abs_tol=1e-4)
            for label, share in expected["probabilities"].items()
        )
        if not near or any(found[name] != expected[name] for name in ("answer", "label", "steps")):
            raise RuntimeError(f"the peer answers {found}, and Fathom {expected}")


def saturated(server: Process, asked: list[bytes]) -> tuple[float, float]:
    """Requests per second, and milliseconds of processor time that each takes."""
    before = server.cpu()
    speed = len(asked) / drive(server.port, asked, CLIENTS)
    return speed, 1000 * (server.cpu() - before) / len(asked)


def offered(server: Process, asked: list[bytes], rate: float, seed: int) -> tuple[float, float]:
    """Median and 99th percentile of latency in ms, at this many requests per second on average."""
    times = np.cumsum(np.random.default_rng(seed).exponential(1 / rate, len(asked))).tolist()
    taken = offer(server.port, asked, times, 256)
    return 1000 * taken[len(taken) // 2], 1000 * taken[min(len(taken) - 1, int(0.99 * len(taken)))]


def peer_command(
    python: str, peer: str, task: str, port: int, batch: int, workers: int, threads: int
) -> list[str]:
    flags = {"bundle": BUNDLES[task], "port": port, "batch": batch, "workers": workers, "threads": threads}
    return [python, PEER_SERVERS, peer, *(f"--{name}={value}" for name, value in flags.items())]


def compared(task: str, peer: str, python: str, fathom: Process, rounds: int) -> dict[str, object]:
    """One peer on one bundle, at its best."""
    mine, theirs = requests(task), requests_of(peer, task)
    choices = CHOICES if peer != "fastapi" else ((1, (1, 1)), (1, (1, 2)))
    speeds: dict[tuple[int, tuple[int, int]], float] = {}
    for batch, (workers, threads) in choices:
        port = free_port()
        command = peer_command(python, peer, task, port, batch, workers, threads)
        with running(command, port, theirs[0]) as server:
            saturated(server, theirs[:CLIENTS])
            speeds[batch, (workers, threads)] = saturated(server, theirs)[0]
    best = max(speeds, key=lambda choice: speeds[choice])
    port = free_port()
    with running(peer_command(python, peer, task, port, best[0], *best[1]), port, theirs[0]) as server:
        check(server, theirs, fathom, mine)
        saturated(server, theirs)
        pairs = [(saturated(server, theirs), saturated(fathom, mine)) for _ in range(rounds)]
        rate = spread([peer[0] for peer, _ in pairs]).middle / 2
        waits = [
            (offered(server, theirs, rate, seed), offered(fathom, mine, rate, seed)) for seed in range(rounds)
        ]
    return {
        "batch, workers": f"{best[0]}, {best[1][0]}",
        "requests/s": spread([peer[0] for peer, _ in pairs]),
        "Fathom's": spread([own[0] for _, own in pairs]),
        "Fathom / peer": ratio([own[0] for _, own in pairs], [peer[0] for peer, _ in pairs]),
        "CPU ms": spread([peer[1] for peer, _ in pairs]),
        "Fathom's CPU ms": spread([own[1] for _, own in pairs]),
        "CPU: peer / Fathom": ratio([peer[1] for peer, _ in pairs], [own[1] for _, own in pairs]),
        "offered/s": rate,
        "p50 ms": spread([wait[0][0] for wait in waits]),
        "Fathom's p50": spread([wait[1][0] for wait in waits]),
        "p99 ms": spread([wait[0][1] for wait in waits]),
        "Fathom's p99": spread([wait[1][1] for wait in waits]),
        "p99: Fathom / peer": ratio([wait[1][1] for wait in waits], [wait[0][1] for wait in waits]),
    }


def main() -> None:
    arguments = parser(__doc__, rounds=3)
    arguments.add_argument("--python", required=True, help="The interpreter of the peers' environment.")
    arguments.add_argument("--peers", default=",".join(PATHS), help="Which, comma-separated.")
    arguments.add_argument("--tasks", default=",".join(BUNDLES), help="On which bundles, comma-separated.")
    asked = arguments.parse_args()
    report, port = Report(asked.json), free_port()
    probe = requests("graph")[0]
    command = [sys.executable, "fathom.py", "serve", "--port", str(port)]
    with running(command, port, probe) as fathom:
        for task in asked.tasks.split(","):
            table = {
                peer: compared(task, peer, asked.python, fathom, asked.rounds)
                for peer in asked.peers.split(",")
            }
            report.add(f"{task}: {NUMBER} problems of {SIZE} tokens, geometric budgets", table)
    report.end()


if __name__ == "__main__":
    main()
