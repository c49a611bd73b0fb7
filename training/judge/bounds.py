"""Exact bounds on an accuracy that was measured on so many problems."""

from __future__ import annotations

from scipy.special import betaincinv


def lower_bound(right: int, problems: int, risk: float) -> float:
    """Clopper-Pearson: the accuracy under which `right` or more would be this unlikely, at most `risk`.

    Exact for binomial counts (Biometrika 26, 1934), whose tail is an incomplete beta function.
    """
    return float(betaincinv(right, problems - right + 1, risk)) if right else 0.0
