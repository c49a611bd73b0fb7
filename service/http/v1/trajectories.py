"""Several trajectories of one problem: which of them is the answer, and what an intervention has changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from model.halting import Criterion, probabilities
from model.readout import Shown
from model.row import Floats
from service.engine.messages import Finished


@dataclass(frozen=True)
class Trajectories:
    """How the problems of a submission belong to the inputs: one of each in order, then all the others."""

    inputs: int
    each: int = 1  # trajectories of one input

    def place(self, index: int) -> tuple[int, int]:
        """Of a problem: its input, and which of that input's trajectories it is."""
        if index < self.inputs:
            return index, 0
        place, which = divmod(index - self.inputs, self.each - 1)
        return place, which + 1

    def of(self, place: int) -> list[int]:
        """The problems of an input."""
        first = self.inputs + place * (self.each - 1)
        return [place, *range(first, first + self.each - 1)]


@dataclass(frozen=True)
class Sampled:
    """A trajectory that has an answer. sure: the larger, the better it may be trusted."""

    end: Finished
    answer: Shown
    sure: float

    @property
    def vote(self) -> str:
        """The whole answer, in words: the labels of all tokens are one vote."""
        label = self.answer.label
        return label if isinstance(label, str) else " ".join(label or ())


def chosen(samples: Sequence[Sampled], by: str) -> tuple[Sampled, dict[str, Any]]:
    """The sample that is the answer, and how all have voted.

    majority: the surest of those whose answer most have given; surest: the surest of all. Of equals the
    first one.
    """
    votes = Counter(sample.vote for sample in samples)
    if by == "majority":
        best = max(samples, key=lambda sample: (votes[sample.vote], sample.sure))
    else:
        best = max(samples, key=lambda sample: sample.sure)
    return best, {"votes": dict(votes), "agreement": votes[best.vote] / len(samples)}


def sureness(logits: Floats, score: float | None, criterion: Criterion) -> float:
    """How good a trajectory's end is: by the score that it halts on, or else by the readout's confidence."""
    if score is None:
        return float(probabilities(logits.astype(np.float64)).max(axis=-1).mean())
    if not np.isfinite(score):
        return -np.inf
    return score if criterion.halts_above else -score


def divergence(clean: Floats, changed: Floats) -> float:
    """KL(clean || changed) of two readouts, in nats; the mean over tokens where there are several."""
    p, q = _log_probabilities(clean), _log_probabilities(changed)
    return max(0.0, float((np.exp(p) * (p - q)).sum(axis=-1).mean()))


def _log_probabilities(logits: Floats) -> Floats:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))
