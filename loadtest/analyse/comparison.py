"""Two reports side by side: the ratio of every figure, and whether it is beyond the noise."""

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from loadtest.analyse.summaries import load_words

_FLOOR = 0.005  # half a per cent: no two runs of anything are closer than this
# Student's t at 99 % two-sided, since a report compares many figures at once, by degrees of freedom.
_T99 = {4: 4.604, 5: 4.032, 6: 3.707, 7: 3.499, 8: 3.355, 10: 3.169, 15: 2.947, 30: 2.750}
FIGURES = ("p50", "p90", "p95", "p99")
LEAST_REPEATS = 3  # with fewer, how much two runs of the same thing differ is not known


@dataclass(frozen=True)
class Compared:
    """One figure of one condition in both reports. `noise` is the ratio that chance alone would reach, None
    where either was repeated too seldom to know.
    """

    condition: str
    figure: str
    a: float
    b: float
    noise: float | None

    @property
    def ratio(self) -> float:
        return self.b / self.a

    @property
    def verdict(self) -> Literal["slower", "faster", "within the noise", "too few repeats"]:
        """Beyond the noise only when the ratio leaves [1/noise, noise], and the noise is known."""
        if self.noise is None:
            return "too few repeats"
        if 1 / self.noise <= self.ratio <= self.noise:
            return "within the noise"
        return "slower" if self.ratio > 1 else "faster"


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
    others = {_key(summary): summary for summary in b["summaries"]}
    for summary in a["summaries"]:
        other = others.get(_key(summary))
        if other is None or summary["latency_ms"] is None or other["latency_ms"] is None:
            continue
        depth = (
            summary["depth_from"]
            if summary["depth_from"] == summary["depth_to"]
            else f"{summary['depth_from']}-{summary['depth_to']}"
        )
        condition = f"{summary['phase']}, {load_words(summary['loop'], summary['level'])}, depth {depth}"
        for figure in FIGURES:
            if figure in summary["latency_ms"]["thin"] or figure in other["latency_ms"]["thin"]:
                continue
            yield Compared(
                condition,
                f"{figure} ms",
                summary["latency_ms"][figure],
                other["latency_ms"][figure],
                noise(summary, other, figure),
            )


def noise(a: dict[str, Any], b: dict[str, Any], figure: str) -> float | None:
    """The ratio, at least 1, that two runs of the same thing would reach by chance 99 % of the time.

    Either side's scatter is the larger of what resampling within it shows and of what its repeats differ
    by. None with fewer than LEAST_REPEATS on either side: then nothing says how much runs differ.
    Student's t takes account of how few there are.
    """
    counts = [len(summary["repeat_ms"][figure]) for summary in (a, b)]
    if min(counts) < LEAST_REPEATS:
        return None
    scatter = math.hypot(_log_error(a, figure), _log_error(b, figure), _FLOOR)
    freedom = sum(counts) - 2
    return math.exp(_T99[max(known for known in _T99 if known <= freedom)] * scatter)


def _log_error(summary: dict[str, Any], figure: str) -> float:
    """The relative standard error of one figure."""
    low, high = summary["latency_ms"]["interval95"][figure]
    within = math.log(high / low) / (2 * 1.96)
    repeats = summary["repeat_ms"][figure]
    between = statistics.stdev(math.log(value) for value in repeats) / math.sqrt(len(repeats))
    return max(within, between)


def _key(summary: dict[str, Any]) -> tuple[Any, ...]:
    return summary["phase"], summary["loop"], summary["level"], summary["depth_from"], summary["depth_to"]
