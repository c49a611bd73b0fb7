"""Stretches of steady load, and which of them a plan is made of."""

import random
from dataclasses import dataclass
from typing import Literal

from loadtest.plan import LoadPlan, Loop

Phase = Literal["alone", "load", "sweep", "control", "probe"]
PHASES: tuple[Phase, ...] = ("alone", "load", "sweep", "control", "probe")
PROBE_RATE = 10.0  # depth-1 requests a second: enough for a median, too few to be a load


@dataclass(frozen=True)
class Cell:
    """One stretch of steady load."""

    phase: Phase
    loop: Loop
    level: float  # users (closed) or requests per second (open); 0 for probes alone
    depth: int | None  # the budget of every request; None draws from the mix
    repeat: int
    warmup_s: float
    duration_s: float
    probe_rate: float = 0.0  # depth-1 requests per second sent into the load

    @property
    def length_s(self) -> float:
        """Seconds from the first to the last request that may start."""
        return self.warmup_s + self.duration_s

    def __str__(self) -> str:
        level = f"{self.level:g} users" if self.loop == "closed" else f"{self.level:g} requests/s"
        depth = "mix" if self.depth is None else f"depth {self.depth}"
        return f"{self.phase} · {self.loop} loop, {level} · {depth}"


def load_cells(plan: LoadPlan) -> list[Cell]:
    """Every level at every depth, `repeats` times over, each round in an order of its own.

    The rounds are shuffled so that a machine that slows down over time does not pass for a dearer depth.
    """
    return [
        cell
        for repeat in range(plan.repeats)
        for cell in _shuffled(
            [
                Cell("load", plan.loop, level, depth, repeat, plan.warmup_s, plan.duration_s)
                for level in plan.levels
                for depth in plan.budgets
            ],
            f"{plan.seed}:{repeat}",
        )
    ]


def alone_cells(plan: LoadPlan) -> list[Cell]:
    """One request at a time at every depth, as often as everything else."""
    if not plan.alone_s:
        return []
    warmup_s = min(plan.warmup_s, plan.alone_s / 4)
    return [
        Cell("alone", "closed", 1.0, depth, repeat, warmup_s, plan.alone_s)
        for repeat in range(plan.repeats)
        for depth in plan.depths
    ]


def probe_cells(plan: LoadPlan, level: float) -> list[Cell]:
    """Depth-1 requests by themselves, then at the very same moments among deep ones at `level`."""
    if not plan.probe_s:
        return []
    deepest = max(plan.depths)
    return [
        Cell("control", "open", 0.0, 1, 0, plan.warmup_s, plan.probe_s, PROBE_RATE),
        Cell("probe", plan.loop, level, deepest, 0, plan.warmup_s, plan.probe_s, PROBE_RATE),
    ]


def _shuffled(cells: list[Cell], seed: str) -> list[Cell]:
    random.Random(seed).shuffle(cells)
    return cells
