"""The order of a load test: alone, under load or swept, probed."""

from collections.abc import Callable
from dataclasses import dataclass, field

from loadtest.analyse.findings import DepthSearch, condition_of, groups_of
from loadtest.analyse.limits import client_health, saturation
from loadtest.analyse.summaries import Summary, summarise
from loadtest.analyse.sweep import Point, search
from loadtest.drive.cells import Cell, alone_cells, load_cells, probe_cells
from loadtest.drive.messages import Progress
from loadtest.drive.pool import CellResult, Pool
from loadtest.plan import LoadPlan

PROBE_SHARE = 0.7  # of the swept rate, when there is no level given


@dataclass
class Campaign:
    """Carries out a plan with a pool. `watch` is told of progress, `ended` of every summary as soon as it is
    known. Afterwards `cells` and `searches` have what was measured.
    """

    plan: LoadPlan
    pool: Pool
    watch: Callable[[Cell, Progress], None]
    ended: Callable[[Summary], None]
    cells: list[CellResult] = field(default_factory=list)
    searches: list[DepthSearch] = field(default_factory=list)
    _cost_s: float = 0.0005  # client CPU seconds per request, until measured
    _alone_s: dict[int, float] = field(default_factory=dict)  # median latency alone by depth, in seconds

    def run(self) -> None:
        """The whole plan, or as much of it as there was before an interruption."""
        for cell in alone_cells(self.plan):
            self._alone(cell)
        for cell in load_cells(self.plan):
            if self._measure(cell) and cell.repeat == self.plan.repeats - 1:
                self._tell(cell)
        if self.plan.sweep:
            for depth in self.plan.budgets:
                if not self.pool.interrupted:
                    self.searches.append(self._sweep(depth))
        for cell in probe_cells(self.plan, self._probe_level()):
            self._measure(cell)

    def _measure(self, cell: Cell) -> CellResult | None:
        if self.pool.interrupted:
            return None
        rate = cell.level + cell.probe_rate
        if cell.loop == "closed":
            quickest = min(self._alone_s.values(), default=0.01)
            rate = cell.level / self._alone_s.get(cell.depth or 0, quickest)
        result = self.pool.run(cell, self.pool.size_for(rate, self._cost_s), self.watch)
        self.cells.append(result)
        return result

    def _alone(self, cell: Cell) -> None:
        result = self._measure(cell)
        if result is None:
            return
        assert cell.depth is not None, "alone cells have one depth"
        summary = self._tell(cell) if cell.repeat == self.plan.repeats - 1 else self._summaries(cell)[0]
        if summary.latency_ms:
            self._alone_s[cell.depth] = summary.latency_ms.p50 / 1e3
            self._cost_s = max(1e-5, result.cost_s)

    def _tell(self, cell: Cell) -> Summary:
        summaries = self._summaries(cell)
        for summary in summaries:
            self.ended(summary)
        return summaries[0]

    def _summaries(self, like: Cell) -> list[Summary]:
        repeats = [cell for cell in self.cells if condition_of(cell.cell) == condition_of(like)]
        return [
            summarise(repeats, depths, self.plan.slo_p99_ms, self.plan.seed)
            for depths in groups_of(like, self.plan)
        ]

    def _sweep(self, depth: int | None) -> DepthSearch:
        alone = self._alone_s.get(depth or 0, max(self._alone_s.values(), default=0.25))
        return DepthSearch(
            depth, search(lambda rate: self._try(depth, rate), 0.5 / alone, self.plan.max_rate)
        )

    def _try(self, depth: int | None, rate: float) -> Point:
        """One rate of a sweep, all its repeats together."""
        cells: list[CellResult] = []
        for repeat in range(self.plan.repeats):
            cell = Cell("sweep", "open", rate, depth, repeat, self.plan.warmup_s, self.plan.duration_s)
            result = self._measure(cell)
            cells += [result] if result else []
        if not cells or cells[-1].interrupted:
            return Point(rate, None, None, None, stopped=True)
        whole = summarise(cells, (1, max(self.plan.depths)), self.plan.slo_p99_ms, self.plan.seed)
        self.ended(whole)
        slo = self.plan.slo_p99_ms
        missed = None
        if slo is not None and not whole.keeps(slo):
            missed = f"p99 was {whole.latency_ms.p99:.1f} ms" if whole.latency_ms else "nothing was answered"
        client = next((h.limit for h in map(client_health, cells) if h.limit), None)
        return Point(
            rate=rate,
            saturated=saturation(cells, whole, self.plan.max_error_rate),
            missed=missed,
            client=client,
            achieved=whole.rates.achieved,
            p99_ms=whole.latency_ms.p99 if whole.latency_ms else None,
        )

    def _probe_level(self) -> float:
        """The first level asked for; in a sweep some way below what was found."""
        if self.plan.levels:
            return self.plan.levels[0]
        best = self.searches[-1].search.best if self.searches else None
        return PROBE_SHARE * (best or 1.0)
