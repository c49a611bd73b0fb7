"""Two reports side by side: the ratio of every figure, and whether it is beyond the noise."""

import json
import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from loadtest.analyse.rows import load_words
from loadtest.errors import LoadTestError
from loadtest.show.report import SCHEMA_VERSION

CONFIDENCE = 2.576  # standard errors: 99 %, since a report compares many figures at once
_FLOOR = 0.005  # half a per cent: no two runs of anything are closer than this
# Student's t at 99 % two-sided, by degrees of freedom; few repeats know their own scatter badly.
_T99 = {
    1: 63.66,
    2: 9.925,
    3: 5.841,
    4: 4.604,
    5: 4.032,
    6: 3.707,
    7: 3.499,
    8: 3.355,
    10: 3.169,
    15: 2.947,
    30: 2.750,
}
FIGURES = ("p50", "p90", "p95", "p99")


@dataclass(frozen=True)
class Compared:
    """One figure of one condition in both reports. `noise` is the ratio that chance alone would reach."""

    condition: str
    figure: str
    a: float
    b: float
    noise: float

    @property
    def ratio(self) -> float:
        return self.b / self.a

    @property
    def verdict(self) -> Literal["slower", "faster", "within the noise"]:
        """Beyond the noise only when the ratio leaves [1/noise, noise]."""
        if 1 / self.noise <= self.ratio <= self.noise:
            return "within the noise"
        return "slower" if self.ratio > 1 else "faster"


def print_comparison(a: Path, b: Path) -> None:
    """Prints the comparison of two reports. Raises LoadTestError for files that are not reports of this
    version.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    first, second = read_report(a), read_report(b)
    for difference in differences(first, second):
        console.print(f"[yellow]differs[/] {difference}")
    compared = list(compare(first, second))
    if not compared:
        raise LoadTestError(
            "the two reports have no condition in common: same loop, level and depths are needed"
        )
    table = Table(
        title="B against A", title_justify="left", header_style="dim", box=SIMPLE_HEAD, pad_edge=False
    )
    for name in ("condition", "figure", "A", "B", "B/A", "noise", ""):
        table.add_column(name, justify="left" if name in ("condition", "figure", "") else "right")
    colours = {"slower": "red", "faster": "green", "within the noise": "dim"}
    for line in compared:
        colour = colours[line.verdict]
        noise = f"±{(line.noise - 1):.1%}"
        table.add_row(
            line.condition, line.figure, f"{line.a:.4g}", f"{line.b:.4g}", f"{line.ratio:.3f}", noise,
            f"[{colour}]{line.verdict}[/]",
        )  # fmt: skip
    console.print(table)
    if min(first["plan"]["repeats"], second["plan"]["repeats"]) < 3:
        console.print(
            "Noise between runs is unknown with fewer than 3 --repeats: take the last column with care."
        )


def read_report(path: Path) -> dict[str, Any]:
    """The report in a folder or a file. Raises LoadTestError when there is none that can be read."""
    file = path / "report.json" if path.is_dir() else path
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LoadTestError(f"{path} is not a load test report: {error}") from error
    if not isinstance(report, dict) or report.get("schema_version") != SCHEMA_VERSION:
        raise LoadTestError(f"{path} is not a report of schema version {SCHEMA_VERSION}")
    return report


def differences(a: dict[str, Any], b: dict[str, Any]) -> Iterator[str]:
    """What else changed between two reports, in words."""
    for part, names in {
        "target": ("url", "model", "version", "bundle_sha256", "server"),
        "plan": ("stream", "halting", "mix", "arrivals", "duration_s", "repeats", "difficulty", "problems"),
        "environment": ("platform", "processors"),
    }.items():
        for name in names:
            if a[part][name] != b[part][name]:
                yield f"{name}: {a[part][name]} → {b[part][name]}"
    for name, report in (("A", a), ("B", b)):
        if report["client"]["limited"]:
            yield f"in {name} the client was the limit at times"


def compare(a: dict[str, Any], b: dict[str, Any]) -> Iterator[Compared]:
    """Every figure that both reports have, for conditions of the same phase, loop, level and depth."""
    others = {_key(row): row for row in b["rows"]}
    for row in a["rows"]:
        other = others.get(_key(row))
        if other is None or row["latency_ms"] is None or other["latency_ms"] is None:
            continue
        depth = (
            row["depth_from"]
            if row["depth_from"] == row["depth_to"]
            else f"{row['depth_from']}-{row['depth_to']}"
        )
        condition = f"{row['phase']}, {load_words(row['loop'], row['level'])}, depth {depth}"
        for figure in FIGURES:
            if figure in row["latency_ms"]["thin"] or figure in other["latency_ms"]["thin"]:
                continue
            yield Compared(
                condition,
                f"{figure} ms",
                row["latency_ms"][figure],
                other["latency_ms"][figure],
                noise(row, other, figure),
            )


def noise(a: dict[str, Any], b: dict[str, Any], figure: str) -> float:
    """The ratio, at least 1, that two runs of the same thing would reach by chance 99 % of the time.

    Either side's scatter is the larger of what resampling within it shows and of what its repeats differ
    by. With repeats, Student's t takes account of how few they are.
    """
    scatter = math.hypot(_log_error(a, figure), _log_error(b, figure), _FLOOR)
    freedom = len(a["repeat_p50_ms"]) + len(b["repeat_p50_ms"]) - 2
    times = CONFIDENCE
    if min(len(a["repeat_p50_ms"]), len(b["repeat_p50_ms"])) >= 2:
        times = _T99[max((known for known in _T99 if known <= freedom), default=1)]
    return math.exp(times * scatter)


def _log_error(row: dict[str, Any], figure: str) -> float:
    """The relative standard error of one figure."""
    low, high = row["latency_ms"]["interval95"][figure]
    within = math.log(high / low) / (2 * 1.96)
    repeats = row["repeat_p50_ms"]
    if len(repeats) < 2:
        return within
    between = statistics.stdev(math.log(value) for value in repeats) / math.sqrt(len(repeats))
    return max(within, between)


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["phase"], row["loop"], row["level"], row["depth_from"], row["depth_to"]
