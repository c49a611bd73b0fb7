"""All that a load test has found, and how its parts are put together from cells."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from loadtest.analyse.estimates import Fit, Interval, Spread, fit_line
from loadtest.analyse.limits import ClientHealth, client_health, saturation
from loadtest.analyse.summaries import Summary, fit_condition, summarise
from loadtest.analyse.sweep import Search
from loadtest.drive.budgets import bins
from loadtest.drive.cells import PHASES, Cell, Phase
from loadtest.drive.pool import CellResult
from loadtest.drive.scrape import Reading
from loadtest.plan import LoadPlan, Loop

QUEUED = 0.3  # of what deeper requests take longer, spent in the server's queue: a slope is queueing
SHARED = 1.25  # times the slope alone: then steps are taken beside others

Condition = tuple[Phase, Loop, float, int | None]
Slope = Literal["steps", "shared", "queueing"]


@dataclass(frozen=True)
class LineFit:
    """A Fit and the condition it was taken under.

    `slope` says what its b is: the cost of a step; that of a step among others' on the same device; or,
    where requests wait in a queue, the queue's.
    """

    phase: Phase
    loop: Loop
    level: float
    slope: Slope
    fit: Fit


@dataclass(frozen=True)
class Probe:
    """The same depth-1 requests by themselves (`control`) and among deep ones (`among`): what head-of-line
    blocking costs the shallow.

    `added_ms` is the difference of the medians, with its 95 % interval; `added_server_ms` the same by the
    server's own clock; `added_steps` in steps of the deep load's slope, None without one that is surely
    above zero and no queueing.
    """

    control: Summary
    among: Summary
    deep: Summary
    added_ms: float | None
    added_interval95: Interval | None
    added_server_ms: float | None
    added_steps: float | None

    @property
    def blocks(self) -> bool:
        """Whether the shallow wait longer, beyond what chance explains."""
        return self.added_interval95 is not None and self.added_interval95[0] > 0


@dataclass(frozen=True)
class DepthSearch:
    """The sweep of one depth (None: of the mix)."""

    depth: int | None
    search: Search


@dataclass(frozen=True)
class Findings:
    """All that a load test has found. `cells` is empty when only a report.json was read."""

    plan: LoadPlan
    cells: tuple[CellResult, ...]
    summaries: tuple[Summary, ...]
    fits: tuple[LineFit, ...]
    probe: Probe | None
    searches: tuple[DepthSearch, ...]
    client: tuple[ClientHealth, ...]
    server: tuple[Reading, ...]
    interrupted: bool


def condition_of(cell: Cell) -> Condition:
    """What repeats of a cell have in common."""
    return cell.phase, cell.loop, cell.level, cell.depth


def groups_of(cell: Cell, plan: LoadPlan) -> tuple[tuple[int, int], ...]:
    """The ranges of budgets that a cell is reported in: its depth, or those of the mix."""
    return bins(plan.depths) if cell.depth is None else ((cell.depth, cell.depth),)


def find(
    plan: LoadPlan,
    cells: Sequence[CellResult],
    searches: Sequence[DepthSearch],
    server: Sequence[Reading],
    interrupted: bool,
) -> Findings:
    """Boils everything down that was measured."""
    conditions: dict[Condition, list[CellResult]] = {}
    for cell in cells:
        conditions.setdefault(condition_of(cell.cell), []).append(cell)
    summaries = [
        summarise(repeats, depths, plan.slo_p99_ms, plan.seed)
        for repeats in conditions.values()
        if repeats[0].cell.level
        for depths in groups_of(repeats[0].cell, plan)
    ]
    summaries = sorted((summary for summary in summaries if summary.requests), key=_order)
    fits = _fits(plan, conditions, summaries)
    return Findings(
        plan=plan,
        cells=tuple(cells),
        summaries=tuple(summaries),
        fits=fits,
        probe=_probe(plan, conditions, summaries, fits),
        searches=tuple(searches),
        client=tuple(client_health(cell) for cell in cells),
        server=tuple(server),
        interrupted=interrupted,
    )


def _fits(
    plan: LoadPlan, conditions: Mapping[Condition, list[CellResult]], summaries: Iterable[Summary]
) -> tuple[LineFit, ...]:
    """A line for every level, alone and under load; the depths of a sweep are at rates of their own."""
    levels: dict[tuple[Phase, Loop, float], list[list[CellResult]]] = {}
    for (phase, loop, level, _), repeats in conditions.items():
        if phase in ("alone", "load"):
            levels.setdefault((phase, loop, level), []).append(repeats)
    fits: list[LineFit] = []
    for (phase, loop, level), group in levels.items():
        fit = fit_line([fit_condition(repeats, (1, max(plan.depths)), plan.seed) for repeats in group])
        if fit is None:
            continue
        here = [s for s in summaries if (s.phase, s.loop, s.level) == (phase, loop, level)]
        alone = next((line.fit for line in fits if line.phase == "alone"), None)
        fits.append(LineFit(phase, loop, level, _slope(plan, group, here, fit, alone), fit))
    return tuple(fits)


def _slope(
    plan: LoadPlan,
    group: Sequence[Sequence[CellResult]],
    summaries: Sequence[Summary],
    fit: Fit,
    alone: Fit | None,
) -> Slope:
    if summaries[0].phase == "alone":
        return "steps"
    if _waited(summaries) > QUEUED:
        return "queueing"
    for repeats in group:
        whole = summarise(repeats, (1, max(plan.depths)), None, plan.seed)
        if repeats[0].cell.loop == "open" and saturation(repeats, whole, plan.max_error_rate):
            return "queueing"
    if alone is None:
        return "shared"  # how much of it is the step's own, only a baseline could tell
    if fit.b_interval95[0] > SHARED * max(alone.b_interval95[1], 0.0):
        return "shared"
    return "steps"


def _waited(summaries: Sequence[Summary]) -> float:
    """How much of what the deepest take longer than the shallowest they spend in the server's queue."""
    known = [(s.queue_ms.p50, s.latency_ms.p50) for s in summaries if s.queue_ms and s.latency_ms]
    if len(known) < 2 or known[-1][1] <= known[0][1]:
        return 0.0
    return (known[-1][0] - known[0][0]) / (known[-1][1] - known[0][1])


def _probe(
    plan: LoadPlan,
    conditions: Mapping[Condition, list[CellResult]],
    summaries: Iterable[Summary],
    fits: Iterable[LineFit],
) -> Probe | None:
    of = {phase: repeats for (phase, _, _, _), repeats in conditions.items() if phase in ("control", "probe")}
    deep = next((summary for summary in summaries if summary.phase == "probe"), None)
    if len(of) < 2 or deep is None:
        return None
    control, among = (
        summarise(of[phase], (1, 1), plan.slo_p99_ms, plan.seed, probe=True) for phase in ("control", "probe")
    )
    before, after = control.latency_ms, among.latency_ms
    if before is None or after is None:
        return Probe(control, among, deep, None, None, None, None)
    added = after.p50 - before.p50
    by_server = None
    if among.server_ms and control.server_ms:
        by_server = among.server_ms.p50 - control.server_ms.p50
    # A slope that may as well be zero would turn any delay into any number of steps.
    slopes = {f.phase: f.fit.b_ms for f in fits if f.fit.b_interval95[0] > 0 and f.slope != "queueing"}
    slope = slopes.get("load", slopes.get("alone"))
    return Probe(
        control=control,
        among=among,
        deep=deep,
        added_ms=added,
        added_interval95=_of_difference(before, after),
        added_server_ms=by_server,
        added_steps=None if slope is None else added / slope,
    )


def _of_difference(before: Spread, after: Spread) -> Interval | None:
    """The interval of a difference of two medians from those of each (MOVER: Zou and Donner, Statistics in
    Medicine 27, 2008).
    """
    if not before.interval95 or not after.interval95:
        return None
    (low, high), (low_after, high_after) = before.interval95["p50"], after.interval95["p50"]
    down = np.hypot(after.p50 - low_after, high - before.p50)
    up = np.hypot(high_after - after.p50, before.p50 - low)
    return float(after.p50 - before.p50 - down), float(after.p50 - before.p50 + up)


def _order(summary: Summary) -> tuple[int, float, float]:
    phase = PHASES.index(summary.phase)
    depth, level = summary.depth_to, summary.level
    return (phase, depth, level) if summary.phase == "sweep" else (phase, level, depth)
