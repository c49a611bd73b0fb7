"""The order of a load test: alone, under load or swept, probed; and the rows and fits that come of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from loadtest.analyse.estimates import Fit, fit_line
from loadtest.analyse.limits import ClientHealth, client_health, saturation
from loadtest.analyse.rows import Row, fit_condition, make_row
from loadtest.analyse.sweep import Point, Search, search
from loadtest.drive.budgets import bins
from loadtest.drive.pool import Measured, Pool
from loadtest.drive.process import Progress
from loadtest.plan import Cell, Loop, Phase, Plan, alone_cells, load_cells

PROBE_RATE = 10.0  # depth-1 requests a second: enough for a median, too few to be a load
PROBE_SHARE = 0.7  # of the swept rate, when there is no level given


@dataclass(frozen=True)
class LineFit:
    """A Fit and the condition it was taken under."""

    phase: Phase
    loop: Loop
    level: float
    fit: Fit


@dataclass(frozen=True)
class Probe:
    """Depth-1 requests alone and among deep ones: what head-of-line blocking costs the shallow.

    `added_ms` is the difference of the medians; `added_steps` the same in steps of the deep load's own
    slope, None without a slope that is surely above zero.
    """

    alone: Row
    among: Row
    deep: Row
    added_ms: float | None
    added_steps: float | None


@dataclass(frozen=True)
class DepthSearch:
    """The sweep of one depth (None: of the mix)."""

    depth: int | None
    search: Search


@dataclass(frozen=True)
class Findings:
    """All that a load test has found."""

    plan: Plan
    cells: tuple[Measured, ...]
    rows: tuple[Row, ...]
    fits: tuple[LineFit, ...]
    probe: Probe | None
    searches: tuple[DepthSearch, ...]
    client: tuple[ClientHealth, ...]
    interrupted: bool


@dataclass
class Experiment:
    """Carries out a plan with a pool. `watch` is told of progress, `ended` of every row as soon as it is
    known.
    """

    plan: Plan
    pool: Pool
    watch: Callable[[Cell, Progress], None]
    ended: Callable[[Row], None]
    _cells: list[Measured] = field(default_factory=list)
    _cost_s: float = 0.002  # client CPU seconds per request, until measured
    _alone_s: dict[int, float] = field(default_factory=dict)  # median latency alone by depth, in seconds

    def run(self) -> Findings:
        """The whole plan, or as much of it as there was before an interruption."""
        searches: list[DepthSearch] = []
        for cell in alone_cells(self.plan):
            self._alone(cell)
        for cell in load_cells(self.plan):
            self._measure(cell)
            if cell.repeat == self.plan.repeats - 1:
                self._tell(cell)
        if self.plan.sweep:
            searches = [self._sweep(depth) for depth in self.plan.budgets if not self.pool.interrupted]
        if self.plan.probe_s and self.plan.alone_s:
            self._measure(self._probe_cell(searches))
        return self._findings(tuple(searches))

    def _measure(self, cell: Cell) -> Measured | None:
        if self.pool.interrupted:
            return None
        rate = cell.level + cell.probe_rate
        if cell.loop == "closed":
            quickest = min(self._alone_s.values(), default=0.01)
            rate = cell.level / self._alone_s.get(cell.depth or 0, quickest)
        measured = self.pool.run(cell, self.pool.size_for(rate, self._cost_s), self.watch)
        self._cells.append(measured)
        return measured

    def _alone(self, cell: Cell) -> None:
        measured = self._measure(cell)
        if measured is None:
            return
        row = self._tell(cell)
        assert cell.depth is not None, "alone cells have one depth"
        if row.latency_ms:
            self._alone_s[cell.depth] = row.latency_ms.p50 / 1e3
            self._cost_s = max(1e-5, measured.cost_s)

    def _tell(self, cell: Cell) -> Row:
        groups = self._groups(cell)
        cells = self._repeats(cell)
        rows = [make_row(cells, depths, self.plan.slo_p99_ms, self.plan.seed) for depths in groups]
        for row in rows:
            self.ended(row)
        return rows[0]

    def _groups(self, cell: Cell) -> tuple[tuple[int, int], ...]:
        return bins(self.plan.depths) if cell.depth is None else ((cell.depth, cell.depth),)

    def _repeats(self, like: Cell) -> list[Measured]:
        return [m for m in self._cells if _condition(m.cell) == _condition(like)]

    def _sweep(self, depth: int | None) -> DepthSearch:
        alone = self._alone_s.get(depth or 0, max(self._alone_s.values(), default=0.25))
        return DepthSearch(
            depth, search(lambda rate: self._try(depth, rate), 0.5 / alone, self.plan.max_rate)
        )

    def _try(self, depth: int | None, rate: float) -> Point:
        """One rate of a sweep, all its repeats together."""
        cells: list[Measured] = []
        for repeat in range(self.plan.repeats):
            cell = Cell("sweep", "open", rate, depth, repeat, self.plan.warmup_s, self.plan.duration_s)
            measured = self._measure(cell)
            cells += [measured] if measured else []
        if not cells or cells[-1].interrupted:
            return Point(rate, None, None, None, stopped=True)
        whole = make_row(cells, (1, max(self.plan.depths)), self.plan.slo_p99_ms, self.plan.seed)
        self.ended(whole)
        slo = self.plan.slo_p99_ms
        missed = None
        if slo is not None and not whole.keeps(slo):
            missed = f"p99 was {whole.latency_ms.p99:.1f} ms" if whole.latency_ms else "nothing was answered"
        client = next((h.limit for h in map(client_health, cells) if h.limit), None)
        return Point(rate, saturation(cells, whole, self.plan.max_error_rate), missed, client)

    def _probe_cell(self, searches: list[DepthSearch]) -> Cell:
        """Deep requests only, at the first level asked for, with depth-1 requests among them."""
        plan = self.plan
        level = (
            plan.levels[0]
            if plan.levels
            else PROBE_SHARE * (searches[-1].search.best or 1.0)
            if searches
            else 1.0
        )
        return Cell("probe", plan.loop, level, max(plan.depths), 0, plan.warmup_s, plan.probe_s, PROBE_RATE)

    def _findings(self, searches: tuple[DepthSearch, ...]) -> Findings:
        conditions: dict[tuple[object, ...], list[Measured]] = {}
        for measured in self._cells:
            conditions.setdefault(_condition(measured.cell), []).append(measured)
        rows = tuple(
            make_row(cells, depths, self.plan.slo_p99_ms, self.plan.seed)
            for cells in conditions.values()
            for depths in self._groups(cells[0].cell)
        )
        fits = self._fits(list(conditions.values()))
        return Findings(
            plan=self.plan,
            cells=tuple(self._cells),
            rows=tuple(sorted((row for row in rows if row.requests), key=_order)),
            fits=fits,
            probe=self._probe(rows, fits),
            searches=searches,
            client=tuple(client_health(measured) for measured in self._cells),
            interrupted=self.pool.interrupted,
        )

    def _fits(self, conditions: Sequence[list[Measured]]) -> tuple[LineFit, ...]:
        """A line for every level, alone and under load; the depths of a sweep are at rates of their own."""
        levels: dict[tuple[Phase, Loop, float], list[list[Measured]]] = {}
        for cells in conditions:
            cell = cells[0].cell
            if cell.phase in ("alone", "load"):
                levels.setdefault((cell.phase, cell.loop, cell.level), []).append(cells)
        fits = []
        for (phase, loop, level), group in levels.items():
            everything = (1, max(self.plan.depths))
            fit = fit_line([fit_condition(cells, everything, self.plan.seed) for cells in group])
            if fit:
                fits.append(LineFit(phase, loop, level, fit))
        return tuple(fits)

    def _probe(self, rows: Sequence[Row], fits: Sequence[LineFit]) -> Probe | None:
        cells = [m for m in self._cells if m.cell.phase == "probe"]
        alone = next((row for row in rows if row.phase == "alone" and row.depth_to == 1), None)
        deep = next((row for row in rows if row.phase == "probe"), None)
        if not cells or alone is None or deep is None:
            return None
        among = make_row(cells, (1, 1), self.plan.slo_p99_ms, self.plan.seed, probe=True)
        added = None
        if among.latency_ms and alone.latency_ms:
            added = among.latency_ms.p50 - alone.latency_ms.p50
        # A slope that may as well be zero would turn any delay into any number of steps.
        slopes = {f.phase: f.fit.b_ms for f in fits if f.fit.b_interval95[0] > 0}
        slope = slopes.get("load", slopes.get("alone"))
        steps = None if added is None or slope is None else added / slope
        return Probe(alone, among, deep, added, steps)


def _condition(cell: Cell) -> tuple[object, ...]:
    return (cell.phase, cell.loop, cell.level, cell.depth)


def _order(row: Row) -> tuple[int, float, float]:
    phase = ("alone", "load", "sweep", "probe").index(row.phase)
    return (phase, row.depth_to, row.level) if row.phase == "sweep" else (phase, row.level, row.depth_to)
