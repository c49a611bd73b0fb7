"""Figures out of samples: percentiles and the line `latency = a + b·steps`, each with the interval it is
known to.

Requests that follow one another share the weather of the server, so intervals that take them for
independent are too narrow. Every cell is therefore cut into slices of time, and whole slices are resampled
(the block bootstrap: Künsch, "The jackknife and the bootstrap for general stationary observations", Annals
of Statistics 17, 1989); where a condition was repeated, repeats are resampled first and slices within them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SLICES = 20  # per cell
RESAMPLES = 300
_TAIL = 10  # a percentile with fewer samples than this beyond it is called thin
PERCENTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}
Interval = tuple[float, float]


@dataclass(frozen=True)
class Spread:
    """How a quantity is distributed, in the unit of its values. `thin` names percentiles with too few samples
    beyond them to stand on; `interval95` is given for latencies only."""

    count: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float
    thin: tuple[str, ...]
    interval95: dict[str, Interval] | None = None


def spread(values: Sequence[float] | Floats, interval95: dict[str, Interval] | None = None) -> Spread | None:
    """The Spread of `values`, by linear interpolation between order statistics; None when there are none."""
    if len(values) == 0:
        return None
    sample = np.asarray(values, dtype=np.float64)
    points = {name: float(np.quantile(sample, q)) for name, q in PERCENTILES.items()}
    thin = tuple(name for name, q in PERCENTILES.items() if len(sample) * (1 - q) < _TAIL - 1e-9)
    return Spread(
        count=len(sample),
        mean=float(sample.mean()),
        p50=points["p50"],
        p90=points["p90"],
        p95=points["p95"],
        p99=points["p99"],
        max=float(sample.max()),
        thin=thin,
        interval95=interval95,
    )


def slice_of(due_s: Floats, warmup_s: float, duration_s: float) -> Ints:
    """Which of its cell's SLICES each sample belongs to, by its intended start."""
    part = (due_s - warmup_s) / duration_s * SLICES
    return np.clip(part, 0, SLICES - 1).astype(np.int64)


def resample(cells: int, draw: np.random.Generator) -> Ints:
    """How often each slice of a condition counts in each resample: shape (RESAMPLES, cells · SLICES).

    `cells` are the repeats of the condition; its slices are numbered through them.
    """
    counts = np.zeros((RESAMPLES, cells * SLICES), dtype=np.int64)
    for row in range(RESAMPLES):
        repeats = draw.integers(0, cells, cells)
        slices = draw.integers(0, SLICES, (cells, SLICES)) + repeats[:, None] * SLICES
        np.add.at(counts[row], slices.ravel(), 1)
    return counts


def resampled_quantiles(values: Floats, slices: Ints, counts: Ints, quantiles: Sequence[float]) -> Floats:
    """Each quantile in each resample, shape (RESAMPLES, len(quantiles)); NaN where a resample came out
    empty.
    """
    order = np.argsort(values, kind="stable")
    ordered, places = values[order], slices[order]
    out = np.full((len(counts), len(quantiles)), np.nan)
    for row, count in enumerate(counts):
        weight = np.cumsum(count[places])
        if len(weight) and weight[-1]:
            # the smallest value with at least the share q of the weight at or under it
            at = np.searchsorted(weight, np.asarray(quantiles) * weight[-1] - 1e-9)
            out[row] = ordered[np.minimum(at, len(ordered) - 1)]
    return out


def interval(values: Floats) -> Interval | None:
    """The middle 95 % of resampled figures; None without any."""
    known = values[np.isfinite(values)]
    return (float(np.quantile(known, 0.025)), float(np.quantile(known, 0.975))) if len(known) else None


def percentile_intervals(values: Floats, slices: Ints, counts: Ints) -> dict[str, Interval]:
    """The 95 % interval of each of PERCENTILES."""
    resampled = resampled_quantiles(values, slices, counts, list(PERCENTILES.values()))
    found = {name: interval(resampled[:, i]) for i, name in enumerate(PERCENTILES)}
    return {name: ends for name, ends in found.items() if ends}


@dataclass(frozen=True)
class Residual:
    """How far the line is from the median latency at one number of steps, in milliseconds."""

    steps: int
    count: int
    median_ms: float
    fitted_ms: float
    residual_ms: float


@dataclass(frozen=True)
class Fit:
    """`latency = a + b·steps` through the median latencies, by weighted least squares.

    `linear` is false when a median lies farther from the line than a tenth of itself: then the line is no
    model of the latency. Two numbers of steps test nothing, since a line goes through any two points:
    `linear` and `r_squared` are None.
    """

    a_ms: float
    b_ms: float
    a_interval95: Interval
    b_interval95: Interval
    r_squared: float | None
    linear: bool | None
    residuals: tuple[Residual, ...]

    def at(self, steps: float) -> float:
        """The fitted latency in milliseconds."""
        return self.a_ms + self.b_ms * steps


@dataclass(frozen=True)
class Condition:
    """The samples that a fit takes from one condition: steps used, latencies, slices, and the resampling
    counts.
    """

    steps: Ints
    latency_ms: Floats
    slices: Ints
    counts: Ints


def fit_line(conditions: Sequence[Condition], least: int = 5) -> Fit | None:
    """The Fit over all conditions, one point per condition and number of steps with `least` samples.

    None with fewer than two different numbers of steps. Points are weighted by the inverse variance of
    their median under resampling, so that a noisy deep point does not bend the line at the shallow end.
    """
    points: list[tuple[int, int, float, Floats]] = []
    for condition in conditions:
        for steps in np.unique(condition.steps):
            here = condition.steps == steps
            if here.sum() < least:
                continue
            values = condition.latency_ms[here]
            medians = resampled_quantiles(values, condition.slices[here], condition.counts, [0.5])[:, 0]
            medians = np.where(np.isfinite(medians), medians, np.median(values))
            points.append((int(steps), int(here.sum()), float(np.median(values)), medians))
    points.sort(key=lambda point: point[0])
    steps_ = np.array([point[0] for point in points], dtype=np.float64)
    if len(set(steps_)) < 2:
        return None
    median = np.array([point[2] for point in points])
    resampled = np.stack([point[3] for point in points], axis=1)  # (resamples, points)
    floor = np.maximum(median * 0.002, 1e-3)  # no median is known better than the clock and the client allow
    weight = 1.0 / (resampled.var(axis=0) + floor**2)
    a, b = _line(steps_, median[None, :], weight)
    a_all, b_all = _line(steps_, resampled, weight)
    fitted = a[0] + b[0] * steps_
    residual = median - fitted
    total = float((weight * (median - np.average(median, weights=weight)) ** 2).sum())
    a_interval, b_interval = interval(a_all), interval(b_all)
    assert a_interval is not None, "every resample gives a line"
    assert b_interval is not None, "every resample gives a line"
    tested = len(set(steps_)) > 2
    explained = 1.0 - float((weight * residual**2).sum()) / total if total > 0 else 1.0
    return Fit(
        a_ms=float(a[0]),
        b_ms=float(b[0]),
        a_interval95=a_interval,
        b_interval95=b_interval,
        r_squared=explained if tested else None,
        linear=bool((np.abs(residual) <= 0.1 * median).all()) if tested else None,
        residuals=tuple(
            Residual(point[0], point[1], point[2], float(fit), float(left))
            for point, fit, left in zip(points, fitted, residual, strict=True)
        ),
    )


def _line(steps: Floats, latency: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """Weighted least squares of each row of `latency` (R, P) on `steps` (P): intercepts and slopes (R)."""
    share = weight / weight.sum()
    centre = (share * steps).sum()
    slope = (share * (steps - centre) * latency).sum(axis=1) / (share * (steps - centre) ** 2).sum()
    return (share * latency).sum(axis=1) - slope * centre, slope


def wilson(successes: int, trials: int) -> Interval:
    """The 95 % interval of a share (Wilson, JASA 22, 1927)."""
    if trials == 0:
        return (0.0, 1.0)
    z, share = 1.959964, successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    # In exact arithmetic the share lies within; at 0 and 1 rounding would leave it just outside.
    return (min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half)))
