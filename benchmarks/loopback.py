"""The service over loopback: against an empty endpoint of the same framework, and against its own engine.

    python benchmarks/loopback.py [--rounds 7] [--server DIR] [--json]

- one step:  requests of one problem and one step, 16 at a time, by processor time and by requests a second,
             against an endpoint that takes and returns bodies of the same shape and does nothing;
- a list:    64 problems in a request, against 64 requests;
- depth:     128 requests with budgets of 64 steps each, and with geometric ones of mean 12: how much sooner
             those are done, over what the sums of their steps promise;
- streaming: 64 streams of 16 steps with full float32 states in frames, against the same without a stream;
- first:     a stream of 64 steps on an idle server: when its first step comes, in times of a step.

--server names another tree of Fathom's, an older one say, that is measured in the same rounds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
from driving import Process, drive, first_event, free_port, post, running
from measure import Report, Spread, paired, parser, ratio, spread
from problems import LIMIT, budgets, problem

FRAMES = "application/vnd.fathom.frames"
AT_ONCE, MANY, LISTED, DEEP, STREAMS, LONG, ALONE = 16, 800, 64, 128, 64, 64, 50
SERVE = "import sys; sys.path.insert(0, {!r}); import fathom; fathom.main()"
Measured = tuple[Process, list[bytes], int]  # where, what, how many at a time


def body(steps: int, problems: int = 1, **more: object) -> dict[str, object]:
    """A request about graphs of ten edges."""
    graph = {"edges": [[node, node + 1] for node in range(10)], "source": 0, "target": 10}
    content = graph if problems == 1 else [graph] * problems
    return {"model": "graph", "input": content, "max_steps": steps, "halting": {"criterion": "none"}, **more}


def deep(kind: str) -> list[bytes]:
    """Requests about graphs of 24 nodes, with budgets of a kind."""
    draw = np.random.default_rng(0)
    return [
        post("/v1/infer", {**body(steps), "input": problem("graph", draw, 24)})
        for steps in budgets(kind, DEEP)
    ]


def plans(server: Process) -> dict[str, Measured]:
    """What is measured of a Fathom server."""
    full = {"latents": {"select": "full", "dtype": "float32"}}
    return {
        "one step": (server, [post("/v1/infer", body(1))] * MANY, AT_ONCE),
        "a list": (server, [post("/v1/infer", body(1, LISTED))] * (MANY // LISTED), 2),
        "fixed": (server, deep("fixed"), STREAMS),
        "geometric": (server, deep("geometric"), STREAMS),
        "whole": (server, [post("/v1/infer", body(16))] * 2 * STREAMS, STREAMS),
        "streams": (
            server,
            [post("/v1/infer", body(16, stream=True, **full), FRAMES)] * 2 * STREAMS,
            STREAMS,
        ),
    }


def first_steps(server: Process) -> Spread:
    """After how many times of a step the first one comes, of streams that are alone."""
    full = {"latents": {"select": "full", "dtype": "float32"}}
    request = post("/v1/infer", body(LONG, stream=True, **full), FRAMES)
    first_event(server.port, request, LONG + 1)
    return spread([first_event(server.port, request, LONG + 1) for _ in range(ALONE)])


def seconds(measured: Measured, cpu: dict[str, list[float]], name: str) -> float:
    """Seconds that a plan takes; notes the server's processor time beside it."""
    server, requests, at_once = measured
    before = server.cpu()
    taken = drive(server.port, requests, at_once)
    cpu.setdefault(name, []).append(server.cpu() - before)
    return taken


def main() -> None:
    arguments = parser(__doc__, rounds=7)
    arguments.add_argument("--server", type=Path, help="A tree of another version to measure, too.")
    asked = arguments.parse_args()
    report, trees = Report(asked.json), {"": Path.cwd()}
    if asked.server:
        trees["other "] = asked.server.resolve()
    empty_port, ports = free_port(), {name: free_port() for name in trees}
    uvicorn = [sys.executable, "-m", "uvicorn", "empty:app", "--app-dir", str(Path(__file__).parent)]
    flags = ["--port", str(empty_port), "--no-access-log", "--log-level", "warning"]
    probe = post("/v1/infer", body(1))
    with ExitStack() as servers:
        empty = servers.enter_context(running([*uvicorn, *flags], empty_port, probe))
        measured: dict[str, Measured] = {"empty": (empty, [probe] * MANY, AT_ONCE)}
        for name, tree in trees.items():
            command = [sys.executable, "-c", SERVE.format(str(tree)), "serve", "--repository", "bundles"]
            command += ["--port", str(ports[name])]
            server = servers.enter_context(running(command, ports[name], probe, tree))
            measured |= {name + plan: what for plan, what in plans(server).items()}
        _measure(measured, asked.rounds, report)
        alone = {
            name.removesuffix("streams").strip() or "Fathom": {"times of a step": first_steps(server)}
            for name, (server, _, _) in measured.items()
            if name.endswith("streams")
        }
        report.add("the first step of a stream on an idle server, after its head", alone)
    report.end()


def _measure(measured: dict[str, Measured], rounds: int, report: Report) -> None:
    cpu: dict[str, list[float]] = {}
    ways: dict[str, Callable[[], float]] = {
        name: partial(seconds, what, cpu, name) for name, what in measured.items()
    }
    wall = paired(ways, rounds)
    cpu = {name: taken[1:] for name, taken in cpu.items()}  # the first warmed up
    table = {}
    for name, (_, requests, _) in measured.items():
        number = len(requests) * (LISTED if name.endswith("list") else 1)
        table[name] = {
            "CPU µs a problem": spread([1e6 * each / number for each in cpu[name]]),
            "problems/s": spread([number / each for each in wall[name]]),
        }
    report.add("the service over loopback, onnx on cpu", table)
    theory = LIMIT * DEEP / sum(budgets("geometric", DEEP))
    for name in [name for name in measured if name.endswith("one step")]:
        who = name.removesuffix("one step")
        ratios = {
            "one step: CPU, of the empty endpoint's": ratio(cpu[name], cpu["empty"]),
            "one step: requests/s, of the empty endpoint's": ratio(wall["empty"], wall[name]),
            "a list: CPU a problem, of one alone": spread(
                [
                    many / (MANY // LISTED * LISTED) / (one / MANY)
                    for many, one in zip(cpu[who + "a list"], cpu[name], strict=True)
                ]
            ),
            "geometric over fixed: wall, of the theory": spread(
                [
                    many / few / theory
                    for many, few in zip(wall[who + "fixed"], wall[who + "geometric"], strict=True)
                ]
            ),
            "geometric over fixed: CPU, of the theory": spread(
                [
                    many / few / theory
                    for many, few in zip(cpu[who + "fixed"], cpu[who + "geometric"], strict=True)
                ]
            ),
            "streams in frames: problems/s, of whole answers'": ratio(
                wall[who + "whole"], wall[who + "streams"]
            ),
            "streams in frames: CPU, of whole answers'": ratio(cpu[who + "streams"], cpu[who + "whole"]),
        }
        report.add(
            f"{who}ratios".strip(), {what: {"median (quartiles)": value} for what, value in ratios.items()}
        )


if __name__ == "__main__":
    main()
