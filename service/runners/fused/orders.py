"""Orders: what the kernel is told of every row, so that it decides as the engine would."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.halting import Steps

ORDERS = np.dtype(
    [
        ("column", np.int32),  # of the score that is watched; -1: none
        ("above", np.int32),
        ("threshold", np.float32),
        ("min_steps", np.int32),
        ("patience", np.int32),
        ("depth", np.int32),  # steps taken; the kernel counts on
        ("held_for", np.int32),  # steps running for which the criterion has held; the kernel counts on
        ("steps", np.int32),  # to take in this launch, 0 for nobody's row; the kernel says how many it took
    ]
)
NUMBERS = ORDERS.itemsize // 4  # of an order


def orders_of(terms: NDArray[np.void], depth: Steps, held_for: Steps, most: int) -> NDArray[np.void]:
    """Orders (R,) for at most `most` steps of rows with these TERMS (R,), of model/halting.py.

    `agreement` is worked out in float64 by the engine alone: such a row takes one step at a time.
    """
    orders = np.zeros(len(terms), ORDERS)
    orders["column"] = np.where(terms["agrees"], -1, terms["column"])
    orders["above"] = terms["halts_above"]
    orders["threshold"] = on_the_safe_side(terms["threshold"], terms["halts_above"])
    orders["min_steps"], orders["patience"] = terms["min_steps"], terms["patience"]
    orders["depth"], orders["held_for"] = depth, held_for
    orders["steps"] = np.clip(terms["max_steps"] - depth, 0, np.where(terms["agrees"], 1, most))
    return orders


def for_one_step(rows: int) -> NDArray[np.void]:
    """Orders (R,) for a step each, about which the engine decides."""
    orders = np.zeros(rows, ORDERS)
    orders["column"], orders["patience"], orders["steps"] = -1, 1, 1
    return orders


def on_the_safe_side(thresholds: NDArray[np.float64], above: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The float32 with which every float32 score compares as with the float64: rounded up where a score
    must reach it, down where a score must stay below."""
    nearest: NDArray[Any] = thresholds.astype(np.float32)
    up, down = np.nextafter(nearest, np.float32(np.inf)), np.nextafter(nearest, np.float32(-np.inf))
    safe = np.where(above & (nearest < thresholds), up, nearest)
    return np.asarray(np.where(~above & (nearest > thresholds), down, safe), np.float32)
