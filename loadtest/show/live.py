"""What the person at the terminal sees while a load test runs."""

import time
from collections import Counter
from types import TracebackType
from typing import Self

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from loadtest.analyse.summaries import Summary
from loadtest.drive.cells import Cell
from loadtest.drive.messages import Progress
from loadtest.drive.samples import OUTCOMES
from loadtest.show.tables import summary_table

_SHOWN = 16  # lines of the table of what has ended


class LiveView:
    """The live view; on anything but a terminal it says nothing at all."""

    def __init__(self, console: Console, title: str) -> None:
        self._title, self._width = title, console.width
        self._summaries: list[Summary] = []
        self._cell: Cell | None = None
        self._began = 0.0
        self._in_flight = 0
        self._outcomes: Counter[str] = Counter()
        self._latency_ms: list[float] = []
        self._late_ms: list[float] = []
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
            self._cell, self._began = cell, time.monotonic()
            self._outcomes, self._latency_ms, self._late_ms = Counter(), [], []
        self._in_flight = progress.in_flight
        self._outcomes.update(progress.outcomes)
        self._latency_ms += progress.latency_ms
        self._late_ms += progress.late_ms
        self._live.update(self._picture(cell))

    def ended(self, summary: Summary) -> None:
        """Takes in a finished summary."""
        self._summaries.append(summary)

    def _picture(self, cell: Cell) -> RenderableType:
        elapsed = min(cell.length_s, time.monotonic() - self._began)
        counts = [f"{self._outcomes[o]} {o.replace('_', ' ')}" for o in OUTCOMES if self._outcomes[o]]
        line = Text("  ".join(counts))
        if self._latency_ms:
            p50, p99 = np.quantile(self._latency_ms, (0.5, 0.99))
            line.append(f"   p50 {p50:.1f} ms  p99 {p99:.1f} ms", "cyan")
        if self._late_ms:
            line.append(f"   client late {np.quantile(self._late_ms, 0.99):.1f} ms (p99)", "dim")
        line.append(f"   {self._in_flight} in flight", "dim")
        return Group(
            Text(self._title, "bold"),
            summary_table("finished", self._summaries[-_SHOWN:], self._width),
            Text(str(cell), "bold cyan"),
            ProgressBar(total=cell.length_s, completed=elapsed, width=60),
            line,
        )
