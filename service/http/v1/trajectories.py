"""Several trajectories of one problem: what is done to each, which is the answer, what has changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from model.errors import RequestError
from model.halting import Criterion, probabilities
from model.readout import Shown
from model.row import Floats
from service.engine.messages import Finished, Trajectory
from service.engine.steering import Noise, StateChange, Steering
from service.http.v1.schemas import InferRequest, Samples

MOST_ROWS = 16  # trajectories of a request, for every problem that it may have


@dataclass(frozen=True)
class FanOut:
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


def check_samples(fan_out: FanOut, max_problems: int) -> None:
    """Raises RequestError where there would be too many of them."""
    rows, most = fan_out.each * fan_out.inputs, MOST_ROWS * max_problems
    if rows > most:
        raise RequestError(
            f"{fan_out.each} samples of {fan_out.inputs} problems are too many; this server takes "
            f"{most} in all",
            "samples.count",
        )


def steering_of(
    interventions: tuple[StateChange, ...], samples: Samples | None, sample: int = 0
) -> Steering | None:
    noise = None if samples is None else Noise(samples.noise, samples.seed, sample)
    return Steering(interventions, noise) if interventions or noise else None


def others_of(
    problem: Trajectory, interventions: tuple[StateChange, ...], request: InferRequest
) -> list[Trajectory]:
    """The other trajectories of a problem: further samples, or the one without interventions."""
    if request.samples is not None:
        return [
            replace(problem, steering=steering_of(interventions, request.samples, sample))
            for sample in range(1, request.samples.count)
        ]
    if request.paired:
        return [replace(problem, steering=None, every_step=False, view=None, keeps=False)]
    return []


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
