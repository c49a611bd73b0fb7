"""The scores of a step in torch: the formulas of model/halting.py, as they go into the step graph.

A test holds the two against each other; sources of the formulas stand there. A network with a halting
head has one more score, `learned`, and one that can answer "not known yet" has `known`: see served.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.halting import TINY

SCORES = (
    "confidence",
    "entropy",
    "entropy_diff",
    "kl",
    "latent_diff",
    "cosine",
    "acceleration",
    "argmax_stability",
)


def _entropy(log_p: Tensor) -> Tensor:
    return -(log_p.exp() * log_p).sum(dim=-1)


def _length(vectors: Tensor) -> Tensor:
    """Never zero. Not `+ TINY`: exporters take the sum with so little for nothing, and leave it out."""
    return vectors.norm(dim=-1).clamp(min=TINY)


def _largest(values: Tensor, mask: Tensor) -> Tensor:
    """The maximum over real tokens: (B, N) -> (B,)."""
    return torch.where(mask, values, 0.0).amax(dim=-1)


def readout_scores(logits: Tensor, previous: Tensor, stable_for: Tensor) -> tuple[Tensor, ...]:
    """confidence, entropy, entropy_diff, kl, argmax_stability: each (B,), from (B, C) logits."""
    log_p, log_q = torch.log_softmax(logits, dim=-1), torch.log_softmax(previous, dim=-1)
    entropy = _entropy(log_p)
    kl = (log_p.exp() * (log_p - log_q)).sum(dim=-1)
    same = logits.argmax(dim=-1) == previous.argmax(dim=-1)
    stability = torch.where(same, stable_for + 1.0, torch.zeros_like(stable_for))
    return log_p.exp().amax(dim=-1), entropy, (entropy - _entropy(log_q)).abs(), kl, stability


def latent_scores(state: Tensor, previous: Tensor, delta: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
    """latent_diff, cosine, acceleration: each (B,), from (B, N, D) states; delta is the last movement."""
    length, far = _length(state), (state - previous).norm(dim=-1)
    moved = far / length
    turned = 1.0 - (state * previous).sum(dim=-1) / (length * _length(previous))
    turned = torch.where(far > 0, turned, 0.0)  # what stands still has not turned, a token of zeros either
    changed = (state - previous - delta).norm(dim=-1) / length
    return _largest(moved, mask), _largest(turned, mask), _largest(changed, mask)
