"""What a command shows while it works: a live line in a terminal, few plain ones elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from training.config import TrainConfig
from training.curriculum import Curriculum


class Display(Progress):
    """Shows updates as they pass; silent if told so, or on any process but the first."""

    def __init__(self, config: TrainConfig, console: Console, silent: bool) -> None:
        self._unit, self._probe, self._accuracy = config.task.unit, config.task.probe, "-"
        self._plain = not console.is_terminal and not silent
        super().__init__(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=silent or not console.is_terminal,
        )
        self._row = self.add_task(f"train {config.task.name}", total=config.all_updates, facts="")

    def updated(self, updates: int, curriculum: Curriculum) -> None:
        """One more update is done."""
        self.update(self._row, completed=updates, facts=self._facts(curriculum))

    def probed(self, updates: int, curriculum: Curriculum, accuracy: float, seconds: float) -> None:
        """The accuracy on problems far harder than those trained on has been measured."""
        self._accuracy = f"{accuracy:.1%}"
        if self._plain:
            said = f"update {updates}  {self._facts(curriculum)}  {seconds:.0f} s"
            self.console.print(said, highlight=False)

    def _facts(self, curriculum: Curriculum) -> str:
        trained = f"{curriculum.difficulty} {self._unit}, burn-in {curriculum.burn_in}"
        return f"{trained}, loss {curriculum.loss:.4f}, {self._probe} {self._unit}: {self._accuracy}"


@contextmanager
def counted(console: Console, what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar in a terminal while something is measured; what it gives takes how many more are done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        row = progress.add_task(what, total=total)
        yield lambda more: progress.advance(row, more)
