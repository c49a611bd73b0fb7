"""What a step costs, measured by bucket."""

from __future__ import annotations

import math

from model.row import Bucket

UNKNOWN = 1e-3  # seconds a row and step, before anything was measured
WEIGHT = 0.2  # of the newest measurement
MOST_BUCKETS = 64  # that are remembered, those that were seen last


class Costs:
    """Seconds per row and step. A bucket that was never seen is judged by the one nearest in size.

    One thread measures and any may ask: the table is replaced, never changed.
    """

    def __init__(self) -> None:
        self.seconds: dict[Bucket, float] = {}
        self._first: set[Bucket] = set()  # measured once so far

    def measured(self, bucket: Bucket, rows: int, seconds: float) -> None:
        """A batch of so many rows took so long. A bucket's first counts until the next: it warms up."""
        now = seconds / rows
        known = dict(self.seconds)
        before = known.pop(bucket, None)
        if before is None:
            self._first.add(bucket)
            before = now
        elif bucket in self._first:
            self._first.remove(bucket)
            before = min(before, now)
        known[bucket] = before + WEIGHT * (now - before)
        if len(known) > MOST_BUCKETS:
            oldest = next(iter(known))
            del known[oldest]
            self._first.discard(oldest)
        self.seconds = known

    def of(self, bucket: Bucket) -> float:
        """Seconds that a row of this bucket takes for a step."""
        known = self.seconds
        if bucket in known:
            return known[bucket]
        if not known:
            return UNKNOWN
        size = math.prod(bucket)
        nearest = min(known, key=lambda other: abs(math.log(size / math.prod(other))))
        return known[nearest] * size / math.prod(nearest)
