"""Running problems through the model as it is served, and keeping what every step said.

Evaluation and calibration both read these traces: each problem runs once, to the largest number of
steps, and every budget and every halting rule is then a question about arrays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from model.halting import CRITERIA, HaltingRule
from model.recurrent import RecurrentTransformer
from model.scores import SCORES
from model.served import ServedModel
from training.task import Problems

TOKENS = 1024  # of the problems run together; on a CPU what stays in cache is fastest


@dataclass(frozen=True)
class Trace:
    """What the steps 1..T said about P problems."""

    right: NDArray[np.bool_]  # (P, T) whether the answer after a step is the right one
    scores: NDArray[np.float32]  # (P, T, S) in the order of model.scores.SCORES

    @property
    def problems(self) -> int:
        return len(self.right)

    def accuracy(self, steps: int) -> float:
        """Share of right answers after this many steps."""
        return float(self.right[:, steps - 1].mean())

    def depths(self, rule: HaltingRule) -> NDArray[np.int64]:
        """After how many steps each problem halts under a rule, at most T: (P,)."""
        limit = self.right.shape[1]
        if rule.criterion == "none":
            return np.full(self.problems, limit)
        watched = self.scores[:, :, SCORES.index(rule.criterion)]
        above = CRITERIA[rule.criterion].halts_above
        holds = watched >= rule.threshold if above else watched <= rule.threshold
        # A rule that has held for `patience` steps running: all of a sliding window.
        windows = np.lib.stride_tricks.sliding_window_view(holds, rule.patience, axis=1)
        ready: NDArray[np.bool_] = np.all(windows, axis=2)
        return np.asarray(np.where(ready.any(axis=1), ready.argmax(axis=1) + rule.patience, limit))

    def halted(self, rule: HaltingRule) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Under a rule: whether each answer is right, and after how many steps it came, both (P,)."""
        depths = self.depths(rule)
        return self.right[np.arange(self.problems), depths - 1], depths

    def oracle(self) -> NDArray[np.int64]:
        """The first step from which the answer stays right, T where it never does: (P,)."""
        limit = self.right.shape[1]
        wrong_last = limit - np.argmin(self.right[:, ::-1], axis=1)  # the last wrong step, 1-based
        return np.asarray(np.where(self.right.all(axis=1), 1, np.minimum(wrong_last + 1, limit)))


@torch.inference_mode()
def trace(network: RecurrentTransformer, problems: Problems, steps: int, device: str = "cpu") -> Trace:
    """Run every problem for `steps` steps of the served model."""
    model = ServedModel(network).eval()
    carried = len(model.context)
    rows = max(1, TOKENS // problems.inputs.mask.shape[1])
    right, scores = [], []
    for start in range(0, len(problems.labels), rows):
        chosen = slice(start, start + rows)
        labels = problems.labels[chosen].to(device)
        tensors = model.embed(*(tensor[chosen].to(device) for tensor in problems.inputs))
        said, scored = [], []
        for taken in range(steps):
            depth = torch.full((len(labels),), taken, dtype=torch.int64, device=device)
            *following, logits, score = model.step(*tensors, depth)
            tensors = (*tensors[:carried], *following)
            said.append(logits.argmax(dim=-1) == labels)
            scored.append(score)
        right.append(torch.stack(said, dim=1).cpu().numpy())
        scores.append(torch.stack(scored, dim=1).cpu().numpy())
    return Trace(np.concatenate(right), np.concatenate(scores))


@torch.inference_mode()
def accuracy_at(network: RecurrentTransformer, problems: Problems, steps: int, device: str = "cpu") -> float:
    """Share of right answers after `steps` steps, without the scores."""
    inputs = type(problems.inputs)(*(tensor.to(device) for tensor in problems.inputs))
    answers = network(inputs, steps).argmax(dim=-1).cpu()
    return float((answers == problems.labels).float().mean())
