"""Exact bounds on an accuracy that was measured on so many problems."""

from __future__ import annotations

import functools

import numpy as np


@functools.cache
def lower_bound(right: int, problems: int, risk: float) -> float:
    """Clopper-Pearson: the accuracy under which `right` or more would be this unlikely, at most `risk`.

    Exact for binomial counts (Biometrika 26, 1934). Found by bisection on the binomial tail.
    """
    if right == 0:
        return 0.0
    logs = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, problems + 1)))))  # log n!
    counts = np.arange(right, problems + 1)
    ways = logs[problems] - logs[counts] - logs[problems - counts]
    low, high = 0.0, right / problems
    while high - low > 1e-7:
        middle = (low + high) / 2  # never 0 or 1
        tail = np.exp(ways + counts * np.log(middle) + (problems - counts) * np.log1p(-middle)).sum()
        low, high = (middle, high) if tail <= risk else (low, middle)
    return low
