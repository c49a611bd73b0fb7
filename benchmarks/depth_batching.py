"""Continuous depth batching against its two alternatives, on the same runner and the same problems.

    python benchmarks/depth_batching.py [BUNDLE]

- continuous: a row that is done leaves at once and the next takes its slot (the engine);
- static:     a batch is stepped until its deepest row is done, then the next one begins;
- alone:      one problem at a time.

Problems draw their budgets from a geometric distribution. Rounds take turns and the ratio is taken
within a round, so that a noisy machine disturbs both sides alike. The bound is what continuous could
gain over static if a step's cost were proportional to its rows: steps computed by static / needed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console
from rich.table import Table

from model.bundle import read_bundle
from model.codecs import CodecLimits, codec_of
from model.halting import HaltReason
from model.row import Layout
from service.engine.engine import Engine, EngineLimits
from service.engine.messages import Problem, Submission
from service.runners.open import open_runner

SLOTS, PROBLEMS, ROUNDS, MEAN_DEPTH, LIMIT = 32, 256, 5, 12, 64


class Silence:
    """An observer that does not care."""

    def stepped(self, rows: int, seconds: float) -> None: ...
    def queued(self, seconds: float) -> None: ...
    def yielded(self) -> None: ...
    def finished(self, reason: HaltReason, steps: int) -> None: ...
    def load(self, running: int, waiting: int, slots: int) -> None: ...
    def restarted(self) -> None: ...
    def dropped(self, steps: int) -> None: ...


def random_graph(draw: np.random.Generator, nodes: int) -> dict[str, object]:
    """A sparse random digraph and a question about it."""
    edges = draw.integers(0, nodes, (2 * nodes, 2)).tolist()
    return {"edges": edges, "nodes": list(range(nodes)), "source": 0, "target": nodes - 1}


def waves(problems: list[Problem], size: int) -> Iterator[list[Problem]]:
    for at in range(0, len(problems), size):
        yield problems[at : at + size]


def run_continuous(engine: Engine, problems: list[Problem]) -> None:
    engine.submit(Submission(tuple(problems), time.monotonic()))
    while not engine.idle:
        engine.step()


def run_static(engine: Engine, problems: list[Problem]) -> None:
    for wave in waves(problems, SLOTS):
        deepest = max(problem.max_steps for problem in wave)
        run_continuous(engine, [Problem(problem.row, deepest) for problem in wave])


def run_alone(engine: Engine, problems: list[Problem]) -> None:
    for problem in problems:
        run_continuous(engine, [problem])


def main() -> None:
    bundle = read_bundle(Path(sys.argv[1] if len(sys.argv) > 1 else "bundles/graph/1"))
    codec = codec_of(bundle.manifest, CodecLimits())
    draw = np.random.default_rng(0)
    layout = Layout(bundle.manifest)
    rows = [layout.row(codec.encode(random_graph(draw, 24), "input")) for _ in range(PROBLEMS)]
    depths = np.minimum(draw.geometric(1 / MEAN_DEPTH, PROBLEMS), LIMIT)
    problems = [Problem(row, int(depth)) for row, depth in zip(rows, depths, strict=True)]
    needed = int(depths.sum())
    static = sum(len(wave) * max(problem.max_steps for problem in wave) for wave in waves(problems, SLOTS))

    runner = open_runner(bundle, "auto", "auto", SLOTS)
    engine = Engine(bundle.manifest, runner, EngineLimits(SLOTS), Silence())
    ways: dict[str, Callable[[Engine, list[Problem]], None]] = {
        "continuous": run_continuous,
        "static": run_static,
        "alone": run_alone,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way(engine, problems[:SLOTS])  # warm up
    for _ in range(ROUNDS):
        for name, way in ways.items():
            began = time.perf_counter()
            way(engine, problems)
            seconds[name].append(time.perf_counter() - began)
    runner.close()

    table = Table(
        title=f"{PROBLEMS} problems, {needed} steps, {SLOTS} slots, {runner.backend} on {runner.device}"
    )
    for heading in ("", "problems/s", "continuous is faster by", "bound"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name in ways:
        ratios = [other / mine for other, mine in zip(seconds[name], seconds["continuous"], strict=True)]
        bound = f"{static / needed:.2f}x" if name == "static" else ""
        table.add_row(name, f"{PROBLEMS / median(seconds[name]):.0f}", f"{median(ratios):.2f}x", bound)
    Console().print(table)


if __name__ == "__main__":
    main()
