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

    def measured(self, bucket: Bucket, rows: int, seconds: float) -> None:
        """A batch of so many rows took so long. The first of a bucket counts little: it warms up."""
        now = seconds / rows
        known = dict(self.seconds)
        before = known.pop(bucket, now)
        known[bucket] = before + WEIGHT * (now - before)
        if len(known) > MOST_BUCKETS:
            del known[next(iter(known))]
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
