"""What the benchmarks have in common: paired rounds, ratios with their spread, and how they are told."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

from rich.console import Console
from rich.table import Table

Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}
Ways = Mapping[str, Callable[[], float]]


@dataclass(frozen=True)
class Spread:
    """The median of some values, and their quartiles."""

    low: float
    middle: float
    high: float

    def __str__(self) -> str:
        return f"{self.middle:.3g} ({self.low:.3g} to {self.high:.3g})"


def spread(values: list[float]) -> Spread:
    """Of at least one value."""
    if len(values) < 2:
        return Spread(values[0], values[0], values[0])
    low, _, high = quantiles(values, n=4, method="inclusive")
    return Spread(low, median(values), high)


def paired(ways: Ways, rounds: int) -> dict[str, list[float]]:
    """What each way measures in each round. Ways take turns, every round in another order.

    A noisy machine disturbs all of them alike, so that ratios within a round mean something where the
    values themselves do not. The round before the first warms up, and is left out.
    """
    taken: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for count in range(rounds + 1):
        for name in names[count % len(names) :] + names[: count % len(names)]:
            value = ways[name]()
            if count:
                taken[name].append(value)
    return taken


def ratio(over: list[float], under: list[float]) -> Spread:
    """Round by round."""
    return spread([above / below for above, below in zip(over, under, strict=True)])


def parser(words: str | None, rounds: int) -> argparse.ArgumentParser:
    """The command line of a benchmark: its module's docstring, --rounds, --clock and --json."""
    asked = argparse.ArgumentParser(description=(words or "").partition("\n")[0])
    asked.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="cpu: processor time of all threads, which others on the machine disturb less.",
    )
    asked.add_argument("--rounds", type=int, default=rounds, help="Paired rounds that are measured.")
    asked.add_argument("--json", action="store_true", help="One JSON object instead of tables.")
    return asked


class Report:
    """Tables for people, or one JSON object for programs."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._content: dict[str, Any] = {}

    def add(self, title: str, rows: Mapping[str, Mapping[str, Spread | float | int | str]]) -> None:
        """A table: rows by their names, each with the same columns."""
        self._content[title] = {
            name: {column: _plain(value) for column, value in row.items()} for name, row in rows.items()
        }
        if self._as_json:
            return
        table = Table(title=title)
        table.add_column("")
        for column in next(iter(rows.values())):
            table.add_column(column, justify="right")
        for name, row in rows.items():
            table.add_row(name, *(_shown(value) for value in row.values()))
        Console().print(table)

    def end(self) -> None:
        """All of it, where it is for programs."""
        if self._as_json:
            print(json.dumps(self._content))  # noqa: T201


def _plain(value: Spread | float | str) -> Any:
    return value.__dict__ if isinstance(value, Spread) else value


def _shown(value: Spread | float | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
