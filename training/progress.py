"""What a run shows while it trains: a live line in a terminal, few plain ones elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Self

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


class Display:
    """Shows updates as they pass; silent if told so, or on any process but the first."""

    def __init__(self, config: TrainConfig, console: Console, silent: bool) -> None:
        self._console = console
        self._unit = config.task.unit
        self._probe = config.task.probe
        self._live = console.is_terminal and not silent
        self._silent = silent
        self._accuracy = "-"
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not self._live,
        )
        self._row = self._progress.add_task(f"train {config.task.name}", total=config.all_updates, facts="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, updates: int, curriculum: Curriculum) -> None:
        """One more update is done."""
        if self._live:
            self._progress.update(self._row, completed=updates, facts=self._facts(curriculum))

    def probed(self, updates: int, curriculum: Curriculum, accuracy: float, seconds: float) -> None:
        """The accuracy on problems far harder than those trained on has been measured."""
        self._accuracy = f"{accuracy:.1%}"
        if not self._live and not self._silent:
            self._console.print(
                f"update {updates}  {self._facts(curriculum)}  {seconds:.0f} s", highlight=False
            )

    def _facts(self, curriculum: Curriculum) -> str:
        trained = f"{curriculum.difficulty} {self._unit}, burn-in {curriculum.burn_in}"
        return f"{trained}, loss {curriculum.loss:.4f}, {self._probe} {self._unit}: {self._accuracy}"
