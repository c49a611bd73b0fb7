"""The readout: what logits are to whoever asked, by the kind that the manifest names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.manifest import Manifest

Answer = bool | int | float | str | None  # None: not known yet
Shares = dict[str, float]
FEW_CLASSES = 16


@dataclass(frozen=True)
class Shown:
    """An answer: one, one per token, or none but the output itself. What a kind has not is None."""

    answer: Answer | list[Answer] = None
    label: str | list[str] | None = None
    probabilities: Shares | list[Shares] | None = None
    output: NDArray[Any] | None = None


def answer_of(manifest: Manifest, logits: NDArray[Any]) -> Shown:
    """Logits of one row, without padding, -> its answer: (C,) classes, any shape a tensor.

    Of tokens (N, C), or of the cells of a grid (H, W, C), one after the other, the last axis fastest.
    """
    if manifest.readout.kind == "tensor":
        return Shown(output=logits)
    if manifest.readout.kind == "classes" and len(manifest.classes) <= FEW_CLASSES:
        return _of_few(manifest, logits.reshape(-1).tolist())
    rows = logits.reshape(-1, logits.shape[-1])
    best = [manifest.classes[place] for place in rows.argmax(axis=-1).tolist()]
    shares = _shares([spec.label for spec in manifest.classes], rows)
    if manifest.readout.kind == "classes":
        return Shown(best[0].answer, best[0].label, shares[0])
    return Shown([spec.answer for spec in best], [spec.label for spec in best], shares)


def _of_few(manifest: Manifest, logits: list[float]) -> Shown:
    """As answer_of, without arrays, which take longer and give others the turn of Python's lock."""
    largest = max(logits)
    weights = [math.exp(value - largest) for value in logits]
    whole = sum(weights)
    best = manifest.classes[logits.index(largest)]
    shares = {spec.label: weight / whole for spec, weight in zip(manifest.classes, weights, strict=True)}
    return Shown(best.answer, best.label, shares)


def _shares(labels: Sequence[str], logits: NDArray[Any]) -> list[Shares]:
    """Softmax of (N, C), by label."""
    weights = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return [dict(zip(labels, row, strict=True)) for row in weights.tolist()]
