"""What the person at the terminal sees: a live view while it runs, tables when it has ended."""

import time
from collections import Counter
from collections.abc import Iterable
from types import TracebackType
from typing import Self

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from loadtest.analyse.estimates import Spread
from loadtest.analyse.rows import Row, load_words
from loadtest.analyse.verdict import Verdict
from loadtest.drive.process import Progress
from loadtest.drive.samples import OUTCOMES, Sample
from loadtest.experiment import Findings, LineFit, Probe
from loadtest.plan import Cell

_SHOWN = 16  # rows of the live table


class LiveView:
    """The live view; on anything but a terminal it says nothing at all."""

    def __init__(self, console: Console, title: str) -> None:
        self._title = title
        self._rows: list[Row] = []
        self._cell: Cell | None = None
        self._began = 0.0
        self._in_flight = 0
        self._recent: list[Sample] = []
        self._live = (
            Live(console=console, transient=True, refresh_per_second=4) if console.is_terminal else None
        )

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def watch(self, cell: Cell, progress: Progress) -> None:
        """Takes in what a client process tells of the running cell."""
        if self._live is None:
            return
        if cell is not self._cell:
            self._cell, self._began, self._recent = cell, time.monotonic(), []
        self._in_flight = progress.in_flight
        self._recent += progress.recent
        self._live.update(self._picture(cell))

    def ended(self, row: Row) -> None:
        """Takes in a finished row."""
        self._rows.append(row)

    def _picture(self, cell: Cell) -> RenderableType:
        elapsed = min(cell.length_s, time.monotonic() - self._began)
        ok = [s.latency_ms for s in self._recent if s.outcome == "ok"]
        counts = Counter(s.outcome for s in self._recent)
        line = Text("  ").join(Text(f"{counts[outcome]} {outcome.replace('_', ' ')}") for outcome in OUTCOMES)
        if ok:
            line.append(f"   p50 {np.quantile(ok, 0.5):.1f} ms  p99 {np.quantile(ok, 0.99):.1f} ms", "cyan")
        late = [s.late_ms for s in self._recent]
        if late:
            line.append(f"   client late {np.quantile(late, 0.99):.1f} ms (p99)", "dim")
        line.append(f"   {self._in_flight} in flight", "dim")
        return Group(
            Text(self._title, "bold"),
            row_table("finished", self._rows[-_SHOWN:]),
            Text(str(cell), "bold cyan"),
            ProgressBar(total=cell.length_s, completed=elapsed, width=60),
            line,
        )


def print_findings(console: Console, findings: Findings, verdict: Verdict) -> None:
    """The tables of a finished run, each named by its loop, and the verdict."""
    phases = {
        "alone": "Alone: closed loop, one request at a time (ms)",
        "load": f"Under load: {findings.plan.loop} loop (ms)",
        "sweep": "Sweep: open loop (ms)",
        "probe": f"Deep load of the probe: {findings.plan.loop} loop (ms)",
    }
    for phase, title in phases.items():
        rows = [row for row in findings.rows if row.phase == phase]
        if rows:
            console.print(row_table(title, rows))
    if findings.fits:
        console.print(_fit_table(findings.fits))
    for found in findings.searches:
        depth = "the mix" if found.depth is None else f"depth {found.depth}"
        best = "none" if found.search.best is None else f"{found.search.best:.4g} requests/s"
        console.print(f"Sweep, {depth}: highest rate that holds: [bold]{best}[/]; {found.search.ended}")
    if findings.probe:
        console.print(probe_words(findings.probe))
    limits = [(health.cell, health.limit) for health in findings.client if health.limit]
    if limits:
        cell, words = limits[0]
        console.print(
            f"[yellow]The client was the limit in {len(limits)} of {len(findings.client)} cells[/]; "
            f"cell {cell}: {words}"
        )
    full = [health.full for health in findings.client if health.full]
    if full:
        console.print(
            f"[yellow]Connections ran out in {len(full)} of {len(findings.client)} cells[/]: {full[0]}"
        )
    for reason in verdict.reasons:
        console.print(f"[red]✗[/] {reason}")
    if verdict.passed:
        console.print("[green]✓[/] every bound was kept")


def row_table(title: str, rows: Iterable[Row]) -> Table:
    """One line a row, in ms, medians where no percentile is named; ~ marks percentiles with too few samples.

    Columns without a figure are left out.
    """
    columns: dict[str, list[str]] = {}
    for row in rows:
        cells = {
            "load": row.load,
            "depth": row.depth,
            **{outcome.replace("_", " "): str(row.outcomes[outcome] or "") for outcome in OUTCOMES},
            **{name: _percentile(row.latency_ms, name) for name in ("p50", "p90", "p95", "p99", "max")},
            "queue": _median(row.queue_ms),
            "compute": _median(row.compute_ms),
            "first step": _median(row.first_step_ms),
            "between": _median(row.between_steps_ms),
            "used": _number(row.steps_used),
            "offered/s": _number(row.rates.offered),
            "achieved/s": _number(row.rates.achieved),
            "goodput/s": _number(row.rates.goodput),
            "right": f"{row.accuracy.share:.1%}" if row.accuracy else "",
        }
        for name, cell in cells.items():
            columns.setdefault(name, []).append(cell)
    table = Table(title=title, title_justify="left", header_style="dim", box=SIMPLE_HEAD, pad_edge=False)
    shown = {name: column for name, column in columns.items() if any(column)}
    for name in shown:
        table.add_column(name, justify="left" if name == "load" else "right")
    for cells_of_row in zip(*shown.values(), strict=True):
        table.add_row(*cells_of_row)
    return table


def _fit_table(fits: Iterable[LineFit]) -> Table:
    table = Table(
        title="latency = a + b·steps",
        title_justify="left",
        header_style="dim",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for name in ("phase", "load", "a ms", "95 %", "b ms/step", "95 %", "R²", "linear"):
        table.add_column(name, justify="left" if name in ("phase", "load") else "right")
    for line in fits:
        fit = line.fit
        table.add_row(
            line.phase,
            load_words(line.loop, line.level),
            f"{fit.a_ms:.2f}",
            f"{fit.a_interval95[0]:.2f} to {fit.a_interval95[1]:.2f}",
            f"{fit.b_ms:.3f}",
            f"{fit.b_interval95[0]:.3f} to {fit.b_interval95[1]:.3f}",
            f"{fit.r_squared:.4f}",
            "yes" if fit.linear else "no",
        )
    return table


def probe_words(probe: Probe) -> str:
    """The probe's result in one sentence."""
    alone, among = probe.alone.latency_ms, probe.among.latency_ms
    if alone is None or among is None:
        return "Probe: too few answers to say anything about head-of-line blocking"
    steps = "" if probe.added_steps is None else f", {probe.added_steps:.1f} steps of the load"
    return (
        f"Probe: depth 1 takes {alone.p50:.1f} ms alone and {among.p50:.1f} ms (p99 {among.p99:.1f}) "
        f"among requests of depth {probe.deep.depth}: {probe.added_ms or 0:+.1f} ms{steps}"
    )


def _percentile(spread: Spread | None, name: str) -> str:
    if spread is None:
        return ""
    return ("~" if name in spread.thin else "") + _number(getattr(spread, name))


def _median(spread: Spread | None) -> str:
    return "" if spread is None else _number(spread.p50)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
