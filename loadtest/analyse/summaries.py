"""Summaries: all the samples of one condition boiled down to the figures of a report."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from loadtest.analyse.estimates import (
    PERCENTILES,
    SLICES,
    Condition,
    Interval,
    Spread,
    percentile_intervals,
    resample,
    slice_of,
    spread,
    wilson,
)
from loadtest.drive.cells import Cell, Phase
from loadtest.drive.pool import CellResult
from loadtest.drive.samples import OUTCOMES, Sample
from loadtest.plan import Loop


@dataclass(frozen=True)
class Rates:
    """Requests per second of the measured time. `offered` were due, `achieved` were answered within it;
    `goodput` are the answers within the SLO's latency, None without an SLO.
    """

    offered: float
    achieved: float
    goodput: float | None


@dataclass(frozen=True)
class Accuracy:
    """Right answers among the labelled ones."""

    correct: int
    labelled: int
    share: float
    interval95: Interval


@dataclass(frozen=True)
class Summary:
    """One condition: a phase, a loop at a level, and the budgets from `depth_from` to `depth_to`.

    `latency_ms` counts from the intended start and holds answered and timed-out requests, the latter with
    the time they were given: they took at least that long. Everything else holds answered requests only.
    """

    phase: Phase
    loop: Loop
    level: float
    depth_from: int
    depth_to: int
    mixed: bool
    probe: bool
    cells: tuple[int, ...]
    seconds: float
    outcomes: dict[str, int]
    errors: dict[str, int]
    latency_ms: Spread | None
    repeat_ms: dict[str, tuple[float, ...]]  # each of PERCENTILES in every repeat
    queue_ms: Spread | None
    compute_ms: Spread | None
    server_ms: Spread | None
    outside_ms: Spread | None  # the client's total less the server's: network, HTTP, client
    first_step_ms: Spread | None
    between_steps_ms: Spread | None
    late_ms: Spread | None
    wait_ms: Spread | None
    steps_asked: float | None  # mean
    steps_used: float | None  # mean
    used_depths: dict[int, int]
    halt_reasons: dict[str, int]
    rates: Rates
    accuracy: Accuracy | None

    @property
    def depth(self) -> str:
        """The budgets in words: `8`, or `5-8` for a group of a mix."""
        return (
            f"{self.depth_from}" if self.depth_from == self.depth_to else f"{self.depth_from}-{self.depth_to}"
        )

    @property
    def load(self) -> str:
        """The loop and its level in words."""
        return load_words(self.loop, self.level)

    @property
    def requests(self) -> int:
        """All requests of the measured time, whatever became of them."""
        return sum(self.outcomes.values())

    @property
    def error_rate(self) -> float:
        """The share that was not answered, of those whose client waited for the answer."""
        awaited = self.requests - self.outcomes["cancelled"]
        return 1 - self.outcomes["ok"] / awaited if awaited else 0.0

    def keeps(self, slo_p99_ms: float) -> bool:
        """Whether the 99th percentile of latency lies within the SLO; one that timed out has missed it."""
        if self.latency_ms is None:
            return False
        return self.latency_ms.p99 <= slo_p99_ms and self.outcomes["timed_out"] <= 0.01 * self.requests


def load_words(loop: Loop, level: float) -> str:
    """`open, 50/s` or `closed, 8 users`: no figure is shown without its loop."""
    if loop == "open" and not level:
        return "probes only"
    if loop == "open":
        return f"open, {level:.4g}/s"
    return f"closed, {level:g} user{'' if level == 1 else 's'}"


def measured_samples(cell: CellResult, depth_from: int, depth_to: int, probe: bool = False) -> list[Sample]:
    """The samples past the warm-up that asked for a budget in the closed range."""
    return [s for s in cell.samples if s.measured and s.probe == probe and depth_from <= s.asked <= depth_to]


def summarise(
    cells: Sequence[CellResult],
    depths: tuple[int, int],
    slo_p99_ms: float | None,
    seed: int,
    probe: bool = False,
) -> Summary:
    """The Summary of one condition: `cells` are its repeats, `depths` its group of budgets."""
    cell = cells[0].cell
    kept = [measured_samples(c, *depths, probe) for c in cells]
    samples = [sample for part in kept for sample in part]
    ok = [s for s in samples if s.outcome == "ok"]
    seconds = sum(elapsed_s(c) for c in cells)
    # A completion counts where it ends: under overload what was due in a second is answered in a later one.
    ended = [
        s
        for c in cells
        for s in c.samples
        if s.probe == probe and s.outcome == "ok" and depths[0] <= s.asked <= depths[1]
        if c.cell.warmup_s <= s.done_s <= c.cell.warmup_s + elapsed_s(c)
    ]
    labelled = [s.correct for s in ok if s.correct is not None]
    gaps = [gap for s in ok for gap in s.gaps_ms]
    return Summary(
        phase=cell.phase,
        loop="open" if probe else cell.loop,
        level=cell.probe_rate if probe else cell.level,
        depth_from=depths[0],
        depth_to=depths[1],
        mixed=cell.depth is None,
        probe=probe,
        cells=tuple(c.number for c in cells),
        seconds=seconds,
        outcomes={outcome: sum(s.outcome == outcome for s in samples) for outcome in OUTCOMES},
        errors=dict(Counter(s.error for s in samples if s.error).most_common()),
        latency_ms=_latency(cells, kept, seed),
        repeat_ms=_repeats(kept),
        queue_ms=_spread(ok, lambda s: s.queue_ms),
        compute_ms=_spread(ok, lambda s: s.compute_ms),
        server_ms=_spread(ok, lambda s: s.server_ms),
        outside_ms=_spread(ok, lambda s: None if s.server_ms is None else s.latency_ms - s.server_ms),
        first_step_ms=_spread(ok, lambda s: s.first_step_ms),
        between_steps_ms=spread(gaps),
        late_ms=_spread(samples, lambda s: s.late_ms),
        wait_ms=_spread(samples, lambda s: s.wait_ms),
        steps_asked=float(np.mean([s.asked for s in ok])) if ok else None,
        steps_used=_mean(s.steps for s in ok),
        used_depths=dict(sorted(Counter(s.steps for s in ok if s.steps is not None).items())),
        halt_reasons=dict(Counter(s.halt_reason for s in ok if s.halt_reason).most_common()),
        rates=Rates(
            offered=len(samples) / seconds if seconds else 0.0,
            achieved=len(ended) / seconds if seconds else 0.0,
            goodput=None
            if slo_p99_ms is None or not seconds
            else sum(s.latency_ms <= slo_p99_ms for s in ended) / seconds,
        ),
        accuracy=_accuracy(labelled),
    )


def elapsed_s(cell: CellResult) -> float:
    """The measured seconds of a cell: its duration, or what there was of it when it was interrupted."""
    if not cell.interrupted:
        return cell.cell.duration_s
    last = max((s.done_s for s in cell.samples), default=0.0)
    return min(cell.cell.duration_s, max(0.0, last - cell.cell.warmup_s))


def fit_condition(cells: Sequence[CellResult], depths: tuple[int, int], seed: int) -> Condition:
    """What the fit takes of a condition: answered requests whose steps are known."""
    kept = [[s for s in measured_samples(c, *depths) if s.outcome == "ok" and s.steps] for c in cells]
    return Condition(
        steps=np.array([s.steps for part in kept for s in part], dtype=np.int64),
        latency_ms=np.array([s.latency_ms for part in kept for s in part], dtype=np.float64),
        slices=_slices([c.cell for c in cells], kept),
        counts=resample(len(cells), np.random.default_rng([seed, cells[0].number])),
    )


def _repeats(kept: list[list[Sample]]) -> dict[str, tuple[float, ...]]:
    latency = [np.array([s.latency_ms for s in part if s.outcome in ("ok", "timed_out")]) for part in kept]
    return {
        name: tuple(float(np.quantile(values, q)) for values in latency if len(values))
        for name, q in PERCENTILES.items()
    }


def _latency(cells: Sequence[CellResult], kept: list[list[Sample]], seed: int) -> Spread | None:
    timed = [[s for s in part if s.outcome in ("ok", "timed_out")] for part in kept]
    values = np.array([s.latency_ms for part in timed for s in part], dtype=np.float64)
    counts = resample(len(cells), np.random.default_rng([seed, cells[0].number, 1]))
    return spread(values, percentile_intervals(values, _slices([c.cell for c in cells], timed), counts))


def _slices(cells: Sequence[Cell], kept: list[list[Sample]]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    parts = [
        slice_of(np.array([s.due_s for s in part], dtype=np.float64), cell.warmup_s, cell.duration_s)
        + place * SLICES
        for place, (cell, part) in enumerate(zip(cells, kept, strict=True))
    ]
    return np.concatenate(parts)


def _spread(samples: Iterable[Sample], of: Callable[[Sample], float | None]) -> Spread | None:
    return spread([value for sample in samples if (value := of(sample)) is not None])


def _mean(values: Iterable[int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _accuracy(labelled: list[bool]) -> Accuracy | None:
    if not labelled:
        return None
    correct = sum(labelled)
    return Accuracy(correct, len(labelled), correct / len(labelled), wilson(correct, len(labelled)))
