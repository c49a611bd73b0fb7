"""A stream as it is thought: depth, the answer's probability and the scores, drawn as they come."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from client.answers import Step

BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 48  # steps that a curve shows, the last ones
MOST_ROWS = 16  # problems that are shown at once
FRAMES = 12  # a second


@dataclass(frozen=True)
class Bounds:
    """What ends a thought: its step budget, and the score that halts it, with when it does in words."""

    max_steps: int
    criterion: str | None = None
    rule: str = ""


def watched(steps: Iterable[Step], bounds: Bounds, console: Console) -> None:
    """Draw the steps as they come; the last picture stays."""
    thinking = Thinking(bounds)
    with Live(thinking, console=console, refresh_per_second=FRAMES):
        for step in steps:
            thinking.add(step)


class Thinking:
    """What a stream has shown so far. One problem is drawn with its scores, several with a row each."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._steps: dict[tuple[int, int | None], list[Step]] = defaultdict(list)

    def add(self, step: Step) -> None:
        """One more step, of any problem."""
        taken = self._steps[step.index, step.sample]
        taken.append(step)
        del taken[:-WIDTH]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rows = sorted(self._steps.items(), key=lambda row: (row[0][0], row[0][1] or 0))
        yield self._alone(rows[0][1]) if len(rows) == 1 else self._together(rows)

    def _alone(self, steps: Sequence[Step]) -> Table:
        last = steps[-1]
        table = Table.grid(padding=(0, 2))
        table.add_row("depth", self._depth(last), f"{last.step} of {self._bounds.max_steps}")
        if isinstance(last.label, str):
            shares = _shares(steps, last.label)
            table.add_row(last.label, curve(shares, 1.0), f"{shares[-1]:.4f}" if shares else "", style="bold")
        elif last.label is not None:
            changed, of = _changes(steps), len(last.label)
            table.add_row("changed", curve(changed, of), f"{changed[-1]} of {of}", style="bold")
        for name in last.scores or ():
            values = [value for step in steps if (value := (step.scores or {}).get(name)) is not None]
            halts = name == self._bounds.criterion
            drawn = curve(values, max(values, default=0.0))
            now = f"{values[-1]:.4g}" if values else ""
            table.add_row(
                name, drawn, now, self._bounds.rule if halts else "", style="cyan" if halts else "dim"
            )
        return table

    def _together(self, rows: Sequence[tuple[tuple[int, int | None], Sequence[Step]]]) -> Table:
        table = Table.grid(padding=(0, 2))
        for (index, sample), steps in rows[:MOST_ROWS]:
            last, of = steps[-1], f"problem {index}" + ("" if sample is None else f", sample {sample}")
            shares = _shares(steps, last.label) if isinstance(last.label, str) else []
            label = last.label if isinstance(last.label, str) else ""
            share = f"{shares[-1]:.4f}" if shares else ""
            table.add_row(of, self._depth(last, 16), f"step {last.step}", label, curve(shares, 1.0), share)
        if len(rows) > MOST_ROWS:
            table.add_row(f"and {len(rows) - MOST_ROWS} more")
        return table

    def _depth(self, last: Step, width: int = WIDTH) -> ProgressBar:
        return ProgressBar(self._bounds.max_steps, last.step, width)


def curve(values: Sequence[float], most: float) -> str:
    """One character a value, from 0 to `most`; what is beyond is drawn as that."""
    shares = (value / most if most else 0.0 for value in values)
    return "".join(BLOCKS[round((len(BLOCKS) - 1) * min(1.0, max(0.0, share)))] for share in shares)


def _shares(steps: Sequence[Step], label: str) -> list[float]:
    """The probability of a label over steps."""
    shown = [step.probabilities for step in steps]
    return [shares.get(label, 0.0) for shares in shown if isinstance(shares, Mapping)]


def _changes(steps: Sequence[Step]) -> list[int]:
    """How many tokens have another label than a step before; all at first."""
    labels = [step.label if isinstance(step.label, list) else [] for step in steps]
    before: Sequence[Sequence[str]] = [[], *labels]
    return [
        len(now) if len(now) != len(then) else sum(one != other for one, other in zip(now, then, strict=True))
        for then, now in zip(before, labels, strict=False)
    ]
