"""What a step costs, measured by bucket."""

from __future__ import annotations

import math

from model.row import Bucket

UNKNOWN = 1e-3  # seconds a row and step, before anything was measured
WEIGHT = 0.2  # of the newest measurement


class Costs:
    """Seconds per row and step. A bucket that was never seen is judged by the one nearest in size."""

    def __init__(self) -> None:
        self._seconds: dict[Bucket, float] = {}

    def measured(self, bucket: Bucket, rows: int, seconds: float) -> None:
        """A batch of so many rows took so long. The first of a bucket counts little: it warms up."""
        now = seconds / rows
        before = self._seconds.get(bucket, now)
        self._seconds[bucket] = before + WEIGHT * (now - before)

    def of(self, bucket: Bucket) -> float:
        """Seconds that a row of this bucket takes for a step."""
        known = self._seconds.get(bucket)
        if known is not None:
            return known
        if not self._seconds:
            return UNKNOWN
        size = math.prod(bucket)
        nearest = min(self._seconds, key=lambda other: abs(math.log(size / math.prod(other))))
        return self._seconds[nearest] * size / math.prod(nearest)
