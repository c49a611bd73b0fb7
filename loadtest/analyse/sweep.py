"""The search for the highest rate that a server keeps up with."""

from collections.abc import Callable
from dataclasses import dataclass

HALVINGS = 3  # of the last octave, on a logarithmic scale: the answer is known to 2^(1/8), nine per cent


@dataclass(frozen=True)
class Point:
    """One rate that was tried, requests per second. `saturated` and `missed` say in words why not; `client`
    that the client was at its limit; `stopped` that the run was interrupted and the point says nothing.
    """

    rate: float
    saturated: str | None
    missed: str | None
    client: str | None
    stopped: bool = False
    achieved: float | None = None  # answers per second, over all budgets
    p99_ms: float | None = None

    @property
    def holds(self) -> bool:
        return self.saturated is None and self.missed is None and not self.stopped


@dataclass(frozen=True)
class Search:
    """What a sweep found. `best` is the highest rate that keeps up (and keeps the SLO, if there is one),
    `broken` the lowest that does not; None where there was none. `ended` says why the search went no
    higher.
    """

    points: tuple[Point, ...]
    best: float | None
    broken: float | None
    ended: str


def search(measure: Callable[[float], Point], start: float, ceiling: float) -> Search:
    """Doubles the rate from `start` until the server saturates, then closes in on the highest rate that
    holds.

    A missed SLO does not end the doubling: the curve up to saturation is worth having. At a `start` that
    does not hold, the rate is halved instead, down to a 64th. Stops at `ceiling`, and where the client
    itself is the limit.
    """
    points: list[Point] = []

    def attempt(rate: float) -> Point:
        points.append(measure(rate))
        return points[-1]

    rate = min(start, ceiling)
    ended = f"the highest rate allowed, {ceiling:g}/s"
    while True:
        point = attempt(rate)
        if point.stopped:
            ended = "interrupted"
            break
        if point.saturated and point.client:
            ended = f"the client was the limit at {rate:.4g}/s: {point.client}"
            break
        if point.saturated:
            ended = f"saturated at {rate:.4g}/s: {point.saturated}"
            break
        if rate >= ceiling:
            break
        rate = min(2 * rate, ceiling)
    rate = min(start, ceiling)
    while not points[-1].stopped and not any(p.holds for p in points) and rate > start / 64:
        rate /= 2
        attempt(rate)
    for _ in range(HALVINGS):
        best, broken = _bracket(points)
        if best is None or broken is None or points[-1].stopped:
            break
        attempt((best * broken) ** 0.5)
    best, broken = _bracket(points)
    return Search(tuple(sorted(points, key=lambda p: p.rate)), best, broken, ended)


def _bracket(points: list[Point]) -> tuple[float | None, float | None]:
    """The lowest rate that fails, and the highest that holds below it."""
    broken = min((p.rate for p in points if not p.holds and not p.stopped), default=None)
    holding = [p.rate for p in points if p.holds and (broken is None or p.rate < broken)]
    return max(holding, default=None), broken
