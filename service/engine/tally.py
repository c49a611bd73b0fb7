"""What all the steps of one row have answered: how often each class, and the sum of probabilities."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model.halting import probabilities
from model.row import Floats

Aggregate = Literal["mode", "mean"]
TIE = 1e-9  # of a step: of classes that were given equally often, the one that was given last counts


@dataclass(eq=False)
class Tally:
    """Arrays (N, C), one row per answer of the readout: one for all, or one per token."""

    steps: int = 0
    given: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 0), np.int64))  # steps
    last: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 0), np.int64))  # when; 0: never
    total: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))  # of probabilities

    def add(self, logits: Floats) -> None:
        """Count a step that showed logits (C,) or (N, C)."""
        rows = logits.reshape(-1, logits.shape[-1]).astype(np.float64)
        if not self.steps:
            self.given, self.last = np.zeros((2, *rows.shape), np.int64)
            self.total = np.zeros(rows.shape)
        self.steps += 1
        best = np.arange(len(rows)), rows.argmax(axis=-1)
        self.given[best] += 1
        self.last[best] = self.steps
        self.total += probabilities(rows)

    def copy(self) -> Tally:
        """One that can go on by itself."""
        return Tally(self.steps, self.given.copy(), self.last.copy(), self.total.copy())

    def logits(self, aggregate: Aggregate, shape: tuple[int, ...]) -> Floats:
        """What a readout would have to show to mean this: the logarithm of the steps' shares, or of the mean.

        shape is that of a step's logits. Of answers that were given equally often the last one is first.
        """
        if aggregate == "mean":
            shares = self.total / self.steps
        else:
            newest = self.last == np.where(self._is_first(), self.last, 0).max(axis=-1, keepdims=True)
            shares = (self.given + TIE * (newest & self._is_first())) / self.steps
        with np.errstate(divide="ignore"):
            return np.log(shares).reshape(shape)

    def entropy(self) -> NDArray[np.float64]:
        """Of the answers over steps, in nats: -sum q log q, q the share of steps that gave a class; (N,)."""
        shares = self.given / self.steps
        logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
        return np.maximum(0.0, -(shares * logs).sum(axis=-1))

    def _is_first(self) -> NDArray[np.bool_]:
        return np.asarray(self.given == self.given.max(axis=-1, keepdims=True))
