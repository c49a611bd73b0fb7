"""What the caller asked for, checked, and the cells that come of it."""

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from loadtest.drive.budgets import Mix
from loadtest.errors import LoadTestError

Phase = Literal["alone", "load", "sweep", "probe"]
Loop = Literal["open", "closed"]
Arrivals = Literal["poisson", "constant"]
Wire = Literal["v1", "v2"]
Halting = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """One load test in full. Raises LoadTestError for figures that make no sense together.

    Times end in their unit. `halting` is the request field, None leaves the choice to the server's own
    default. Exactly one of `concurrency`, `rates` and `sweep` is set.
    """

    url: str
    model: str | None
    wire: Wire = "v1"
    depths: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    mix: Mix | None = None
    concurrency: tuple[int, ...] = ()
    rates: tuple[float, ...] = ()
    sweep: bool = False
    max_rate: float = 5000.0
    arrivals: Arrivals = "poisson"
    duration_s: float = 10.0
    warmup_s: float = 1.0
    repeats: int = 1
    alone_s: float = 3.0
    probe_s: float = 5.0
    stream: bool = False
    halting: Halting | None = field(default_factory=lambda: {"criterion": "none"})
    deadline_ms: float | None = None
    problems: Path | None = None
    difficulty: tuple[int, int] = (1, 5)
    slo_p99_ms: float | None = None
    max_error_rate: float = 0.01
    timeout_s: float = 30.0
    connections: int = 256
    processes: int | None = None
    seed: int = 0
    api_key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise LoadTestError(f"{self.url!r} is not a server's address: write http://HOST:PORT")
        if (bool(self.concurrency) + bool(self.rates) + self.sweep) != 1:
            raise LoadTestError("give one of --concurrency (closed loop), --rate (open loop) and --sweep")
        positive = {
            "--concurrency": min(self.concurrency, default=1),
            "--rate": min(self.rates, default=1),
            "--duration": self.duration_s,
            "--repeats": self.repeats,
            "--timeout": self.timeout_s,
            "--connections": self.connections,
            "--processes": 1 if self.processes is None else self.processes,
            "--max-rate": self.max_rate,
            "--deadline-ms": 1 if self.deadline_ms is None else self.deadline_ms,
            "--slo-p99-ms": 1 if self.slo_p99_ms is None else self.slo_p99_ms,
            "--difficulty": self.difficulty[0],
        }
        for flag, value in positive.items():
            if not 0 < value < float("inf"):
                raise LoadTestError(f"{flag} must be above 0, not {value:g}")
        for flag, value in {
            "--warmup": self.warmup_s,
            "--alone": self.alone_s,
            "--probe": self.probe_s,
        }.items():
            if not 0 <= value < float("inf"):
                raise LoadTestError(f"{flag} must not be negative, and is {value:g}")
        if not 0 <= self.max_error_rate <= 1:
            raise LoadTestError(f"--max-error-rate is a share between 0 and 1, not {self.max_error_rate:g}")
        if self.wire == "v2" and self.stream:
            raise LoadTestError(
                "--stream needs --protocol v1: the Open Inference Protocol has no stream of steps"
            )
        if self.wire == "v2" and self.halting and "target_accuracy" in self.halting:
            raise LoadTestError(
                "target_accuracy needs --protocol v1: v2 knows a criterion and its threshold only"
            )

    @property
    def loop(self) -> Loop:
        """Closed when a number of users is given, else open."""
        return "closed" if self.concurrency else "open"

    @property
    def levels(self) -> tuple[float, ...]:
        """Users or requests per second to hold, in the caller's order; none when sweeping."""
        return tuple(float(level) for level in self.concurrency) or self.rates

    @property
    def budgets(self) -> tuple[int | None, ...]:
        """The depths to load one after the other, or (None,) for the mix."""
        return (None,) if self.mix else self.depths


@dataclass(frozen=True)
class Cell:
    """One stretch of steady load."""

    phase: Phase
    loop: Loop
    level: float  # users (closed) or requests per second (open)
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


def load_cells(plan: Plan) -> list[Cell]:
    """Every level at every depth, `repeats` times over, each round in an order of its own.

    The rounds are shuffled so that a machine that slows down over time does not pass for a dearer depth.
    """
    cells = []
    for repeat in range(plan.repeats):
        round_ = [
            Cell("load", plan.loop, level, depth, repeat, plan.warmup_s, plan.duration_s)
            for level in plan.levels
            for depth in plan.budgets
        ]
        random.Random(f"{plan.seed}:{repeat}").shuffle(round_)
        cells += round_
    return cells


def alone_cells(plan: Plan) -> list[Cell]:
    """One request at a time at every depth, and at depth 1 for the probe to be held against."""
    if not plan.alone_s:
        return []
    depths = sorted({*plan.depths, *((1,) if plan.probe_s else ())})
    warmup_s = min(plan.warmup_s, plan.alone_s / 4)
    return [Cell("alone", "closed", 1.0, depth, 0, warmup_s, plan.alone_s) for depth in depths]


def arrivals(kind: Arrivals, rate: float, length_s: float, seed: int) -> list[float]:
    """Intended start times in seconds from 0 up to `length_s`, `rate` a second: evenly spaced or a Poisson
    process.
    """
    if kind == "constant":
        return [float(due) for due in np.arange(0.0, length_s, 1.0 / rate)]
    draw = np.random.default_rng(seed)
    count = int(rate * length_s + 10 * (rate * length_s) ** 0.5 + 20)  # ten standard deviations to spare
    due = np.cumsum(draw.exponential(1.0 / rate, count))
    return [float(value) for value in due[due < length_s]]
