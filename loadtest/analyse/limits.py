"""Who was at the limit: the server, which saturates, or the client, which then measures itself."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loadtest.analyse.summaries import Summary, elapsed_s
from loadtest.drive.pool import CellResult
from loadtest.drive.samples import Sample

BUSY = 0.85  # of one processor: a process busier than this delays its own requests
LATE_MS = 5.0  # lateness under this, or under a fifth of the median latency, is no concern
LATE_SHARE = 0.2


@dataclass(frozen=True)
class ClientHealth:
    """How the client processes fared in one cell.

    `limit` says in words why the client was the limit, None if it was not. `full` says that requests waited
    because too many were in flight; a saturated server brings that about too, so it accuses nobody.
    """

    cell: int
    processes: int
    cpu_share: float  # of the busiest process, of one processor
    cpu_ms_per_request: float
    lag_p95_ms: float
    late_p99_ms: float
    wait_p99_ms: float
    unfinished: int
    limit: str | None
    full: str | None


def client_health(measured: CellResult) -> ClientHealth:
    """Judges one cell from the client's side."""
    shares = [h.cpu_s / h.wall_s for h in measured.health if h.wall_s > 0]
    lags = [lag for h in measured.health for lag in h.lag_ms]
    late = [s.late_ms for s in measured.samples if s.measured]
    latency = [s.latency_ms for s in measured.samples if s.measured and s.outcome == "ok"]
    lag_p95 = float(np.quantile(lags, 0.95)) if lags else 0.0
    wait = [s.wait_ms for s in measured.samples if s.measured]
    wait_p99 = float(np.quantile(wait, 0.99)) if wait else 0.0
    late_p99 = float(np.quantile(late, 0.99)) if late else 0.0
    allowed = max(LATE_MS, LATE_SHARE * float(np.median(latency))) if latency else LATE_MS
    busiest = max(shares, default=0.0)
    limit = None
    if busiest > BUSY:
        limit = (
            f"a client process was busy {busiest:.0%} of the time: give more --processes, or another machine"
        )
    elif late_p99 > allowed:
        limit = f"requests left the client {late_p99:.1f} ms late (p99): its processor is wanted by others"
    elif lag_p95 > allowed:
        limit = (
            f"the client was held up for {lag_p95:.1f} ms at a time (p95): its processor is wanted by others"
        )
    return ClientHealth(
        cell=measured.number,
        processes=len(measured.health),
        cpu_share=busiest,
        cpu_ms_per_request=measured.cost_s * 1e3,
        lag_p95_ms=lag_p95,
        late_p99_ms=late_p99,
        wait_p99_ms=wait_p99,
        unfinished=sum(h.unfinished for h in measured.health),
        limit=limit,
        full=f"requests waited {wait_p99:.1f} ms (p99) because --max-in-flight were under way already, which "
        "their latency includes: raise it if the server was not at its limit"
        if wait_p99 > allowed
        else None,
    )


def saturation(cells: Sequence[CellResult], summary: Summary, max_error_rate: float) -> str | None:
    """Why an open-loop condition is past what the server can take, in words; None while it keeps up.

    Three signs: too many requests go unanswered; many more are in flight at the end than at the beginning;
    or some more are, and the last third of the time is half as slow again as the first. An overload of a
    few per cent takes seconds to show: in a cell of `n` requests one of `n`/20 requests is the least that
    can be seen.
    """
    if summary.error_rate > max_error_rate:
        return f"{summary.error_rate:.1%} of the requests were not answered"
    for measured in cells:
        samples = [s for s in measured.samples if not s.probe]
        begin, seconds = measured.cell.warmup_s, elapsed_s(measured)
        first, last = (_in_flight(samples, when) for when in (begin, begin + seconds))
        offered = sum(begin <= s.due_s < begin + seconds for s in samples)
        growth = last - first
        if growth < max(3, 0.05 * offered):
            continue
        # In a steady state the number in flight varies about its mean roughly like a Poisson count, and so
        # does the difference of two of them, with twice the variance.
        if growth > 3 * (2 * max(first, 1)) ** 0.5 + 1:
            return f"the queue grew from {first} to {last} requests in {seconds:g} s"
        early, late = (_median_in(samples, begin + part * seconds / 3, seconds / 3) for part in (0, 2))
        if late > 1.5 * early:
            return f"the median latency grew from {early:.0f} to {late:.0f} ms in {seconds:g} s"
    return None


def _in_flight(samples: Sequence[Sample], when: float) -> int:
    return sum(s.due_s <= when < s.done_s for s in samples)


def _median_in(samples: Sequence[Sample], begin: float, length: float) -> float:
    """The median latency of what was due in a stretch of time; NaN, which is greater than nothing, without
    any.
    """
    latency = [s.latency_ms for s in samples if begin <= s.due_s < begin + length]
    return float(np.median(latency)) if latency else float("nan")
