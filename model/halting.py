"""When to stop thinking: the halting criteria as pure functions of one step's arrays.

Every step computes a score per row and criterion; a criterion compares its score with a threshold,
and a row halts once the comparison has held for `patience` steps running. The functions here are
the reference in NumPy; the step graph computes the same numbers (model/network/scores.py), so that what is
left to do is `decide`, in the service and in calibration alike. Logits are (B, C), states (B, N, D),
masks (B, N); every score is (B,).

Scores on latents reduce by the maximum over real tokens. A mean hides the one token that still
moves, and before the evidence has reached the readout everything the readout shows is stillness.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Flags = NDArray[np.bool_]
Steps = NDArray[np.int64]
TINY = 1e-12  # keeps a division by a zero norm finite
MOST_STEPS = 1_000_000  # a budget, a limit or a patience can be no larger, whoever asks for it
FAR = 1e6  # thresholds end here: no score gets that far


class HaltReason(StrEnum):
    """Why a request stopped."""

    HALTED = "halted"
    BUDGET = "budget"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    ERROR = "error"


@dataclass(frozen=True)
class Criterion:
    """A halting criterion: which way its score points and which thresholds make sense."""

    name: str
    halts_above: bool  # True: halt when score >= threshold; False: when score <= threshold
    default: float  # the field's usual threshold
    low: float  # smallest and largest threshold that is accepted
    high: float
    meaning: str


CRITERIA: dict[str, Criterion] = {
    criterion.name: criterion
    for criterion in (
        Criterion("none", False, 0.0, 0.0, 0.0, "never halt: take exactly max_steps"),
        Criterion("confidence", True, 0.99, 0.0, 1.0, "largest class probability"),
        Criterion("entropy", False, 0.05, 0.0, FAR, "entropy of the readout, nats"),
        Criterion("entropy_diff", False, 1e-3, 0.0, FAR, "change of that entropy, nats"),
        Criterion("kl", False, 5e-4, 0.0, FAR, "KL divergence from the previous readout, nats"),
        Criterion("latent_diff", False, 0.03, 0.0, FAR, "relative movement of the token that moved most"),
        Criterion("cosine", False, 1e-3, 0.0, 2.0, "1 - cosine of the token that turned most"),
        Criterion("acceleration", False, 0.03, 0.0, FAR, "relative change of movement, largest token"),
        Criterion(
            "argmax_stability", True, 5.0, 1.0, MOST_STEPS, "steps for which the answer has not changed"
        ),
        Criterion(
            "learned", True, 0.99, 0.0, 1.0, "a trained head's probability that the answer stays right"
        ),
        Criterion(
            "agreement", True, 0.95, 0.0, 1.0, "least of the answer's confidence, persistence and stillness"
        ),
        Criterion("known", False, 0.1, 0.0, 1.0, 'probability of the answer "not known yet"'),
    )
}

AGREEMENT = "agreement"
AGREES = ("confidence", "argmax_stability", "kl")  # the scores that it is worked out from


def probabilities(logits: Array) -> Array:
    """Softmax over classes: (B, C) -> (B, C)."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def confidence(logits: Array) -> Array:
    """The largest class probability, the post-hoc readout criterion of arXiv 2607.20519."""
    return np.asarray(probabilities(logits).max(axis=-1))


def entropy(logits: Array) -> Array:
    """-sum p log p in nats, the early-exit criterion of BranchyNet (arXiv 1709.01686)."""
    p = probabilities(logits)
    return np.asarray(-(p * np.log(p + TINY)).sum(axis=-1))


def entropy_diff(logits: Array, previous: Array) -> Array:
    """|H_t - H_(t-1)| in nats (Huginn, seal-rg/recurrent-pretraining; usual threshold 1e-3)."""
    return np.asarray(np.abs(entropy(logits) - entropy(previous)))


def kl(logits: Array, previous: Array) -> Array:
    """KL(p_t || p_(t-1)) in nats (Huginn, arXiv 2502.05171, section 6; usual threshold 5e-4)."""
    p, q = probabilities(logits), probabilities(previous)
    return np.asarray((p * (np.log(p + TINY) - np.log(q + TINY))).sum(axis=-1))


def latent_diff(state: Array, previous: Array, mask: NDArray[np.bool_]) -> Array:
    """max over real tokens of ||h_t - h_(t-1)|| / ||h_t|| (after Huginn, which takes the mean)."""
    moved = np.linalg.norm(state - previous, axis=-1) / (np.linalg.norm(state, axis=-1) + TINY)
    return np.asarray(np.where(mask, moved, 0.0).max(axis=-1))


def cosine(state: Array, previous: Array, mask: NDArray[np.bool_]) -> Array:
    """max over real tokens of 1 - cos(h_t, h_(t-1)) (after Huginn; usual threshold 1e-3)."""
    lengths = np.linalg.norm(state, axis=-1) * np.linalg.norm(previous, axis=-1)
    turned = 1.0 - (state * previous).sum(axis=-1) / (lengths + TINY)
    turned = np.where((state != previous).any(axis=-1), turned, 0.0)  # zeros that stand still have not turned
    return np.asarray(np.where(mask, turned, 0.0).max(axis=-1))


def acceleration(state: Array, delta: Array, previous_delta: Array, mask: NDArray[np.bool_]) -> Array:
    """max over real tokens of ||D_t - D_(t-1)|| / ||h_t||, D_t = h_t - h_(t-1), D_0 = 0.

    After arXiv 2509.23314, made relative to the state so that thresholds carry over between models.
    """
    changed = np.linalg.norm(delta - previous_delta, axis=-1) / (np.linalg.norm(state, axis=-1) + TINY)
    return np.asarray(np.where(mask, changed, 0.0).max(axis=-1))


def argmax_stability(logits: Array, previous: Array, stable_for: Array) -> Array:
    """How many steps running the answer has been the same (Huginn; usual threshold 5)."""
    same = logits.argmax(axis=-1) == previous.argmax(axis=-1)
    return np.asarray(np.where(same, stable_for + 1.0, 0.0))


def agreement(confidence: Array, stable_for: Array, kl: Array) -> Array:
    """min(confidence, 1 - 2^-s, 1 - sqrt(KL / 2)): how far the trajectory agrees with its last answer.

    After LESS (arXiv 2606.16908): confidence high, top answer persistent, and divergence between steps small.
    s is argmax_stability. KL stands in for the Jensen-Shannon divergence that is meant there, and is on the
    safe side of it: JS / ln 2 <= total variation <= sqrt(KL / 2) (Lin 1991, Pinsker). No column of the step
    graph: it is worked out from three others.
    """
    still = 1.0 - np.sqrt(np.maximum(kl, 0.0, dtype=np.float64) / 2.0)
    persistent = 1.0 - np.exp2(-np.asarray(stable_for, np.float64))
    return np.asarray(np.minimum(np.minimum(confidence, persistent), still))


def learned(halting_logit: Array) -> Array:
    """sigmoid of a trained head's logit (the early-exit classifier of CALM, arXiv 2207.07061)."""
    return np.asarray(1.0 / (1.0 + np.exp(-halting_logit)))


@dataclass(frozen=True)
class HaltingRule:
    """One row's choice: a criterion, its threshold, and for how many steps running it must hold.

    A name that is not built in is a score of the bundle's own. Raises ValueError where the threshold or
    the patience is out of range.
    """

    criterion: str = "none"
    threshold: float = 0.0
    patience: int = 1

    def __post_init__(self) -> None:
        known = CRITERIA.get(self.criterion)
        low, high = (known.low, known.high) if known else (-FAR, FAR)
        if not low <= self.threshold <= high:
            raise ValueError(
                f"threshold {self.threshold:g} is out of range for {self.criterion}: "
                f"choose from {low:g} to {high:g}"
            )
        if not 1 <= self.patience <= MOST_STEPS:
            raise ValueError(f"patience is {self.patience}, but must be from 1 to {MOST_STEPS}")


# What a decision needs to know of a row: the score it watches (its column; -1: none), and its limits.
TERMS = np.dtype(
    [
        ("column", np.intp),
        ("threshold", np.float64),
        ("halts_above", np.bool_),
        ("min_steps", np.int64),
        ("patience", np.int64),
        ("max_steps", np.int64),
        ("agrees", np.bool_),  # the score is `agreement`, whose first part is in `column`, and the others in
        ("stable", np.intp),
        ("divergence", np.intp),
    ]
)


def terms_of(
    rule: HaltingRule, min_steps: int, max_steps: int, criteria: Mapping[str, Criterion]
) -> NDArray[np.void]:
    """One row of TERMS, of shape (). criteria: `none` first, then in the order of the scores' columns.

    `agreement` need not be among them, but its parts must.
    """
    columns, limits = list(criteria), (min_steps, rule.patience, max_steps)
    if rule.criterion == AGREEMENT:
        column, stable, divergence = (columns.index(name) - 1 for name in AGREES)
        return np.array((column, rule.threshold, True, *limits, True, stable, divergence), TERMS)
    above = criteria[rule.criterion].halts_above
    column = columns.index(rule.criterion) - 1
    return np.array((column, rule.threshold, above, *limits, False, 0, 0), TERMS)


class Decision:
    """The halting decision of some rows, worked out as far as their terms go, for many steps."""

    def __init__(self, terms: NDArray[np.void]) -> None:
        """terms: TERMS, (B,) or one for all."""
        column = terms["column"]
        self.watches = bool(np.logical_or.reduce(column >= 0, axis=None))  # any of them a score
        self._max_steps = terms["max_steps"]
        if not self.watches:
            return
        self._column, self._min_steps, self._patience = column, terms["min_steps"], terms["patience"]
        self._sign = np.where(terms["halts_above"], 1.0, -1.0)  # all scores are to be over their thresholds
        self._threshold = np.where(column >= 0, self._sign * terms["threshold"], np.nan)
        self._agrees = terms["agrees"] if np.logical_or.reduce(terms["agrees"], axis=None) else None
        self._parts = terms["stable"], terms["divergence"]

    def after(self, scores: Array, depth: Steps, held_for: Steps) -> tuple[Flags, Flags, Steps]:
        """What `decide` says."""
        spent = depth >= self._max_steps
        if not self.watches:
            return np.zeros(len(scores), np.bool_), spent, np.zeros(len(scores), np.int64)
        rows = np.arange(len(scores))
        watched = scores[rows, self._column]
        if self._agrees is not None:
            stable, divergence = scores[rows, self._parts[0]], scores[rows, self._parts[1]]
            watched = np.where(self._agrees, agreement(watched, stable, divergence), watched)
        holds = watched * self._sign >= self._threshold
        held_for = (held_for + 1) * (holds & (depth >= self._min_steps))
        return held_for >= self._patience, spent, held_for


def decide(
    scores: Array, depth: Steps, held_for: Steps, terms: NDArray[np.void]
) -> tuple[Flags, Flags, Steps]:
    """The halting decision after a step: (halted, out of budget, the new held_for), each (B,).

    scores (B, S) are the step's; depth (B,) counts it; held_for (B,) says for how many steps running the
    criterion held before it; terms are those of a Decision. Before min_steps the criterion is not
    looked at, and a score that is not a number satisfies nothing.
    """
    return Decision(terms).after(scores, depth, held_for)
