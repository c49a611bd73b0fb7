"""Running problems through the model as it is served, and keeping what every step said.

Evaluation and calibration both read these traces: each problem runs once, to the largest number of
steps, and every budget and every halting rule is then a question about arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.halting import CRITERIA, Criterion, HaltingRule, decide, terms_of
from model.network.recurrent import RecurrentTransformer
from model.network.scores import SCORES
from training.judge.backends import Backend, torch_backend
from training.task import Problems


@dataclass(frozen=True)
class Trace:
    """What the steps 1..T said about P problems."""

    right: NDArray[np.bool_]  # (P, T) whether the answer after a step is the right one
    scores: NDArray[np.float32]  # (P, T, S)
    names: tuple[str, ...] = SCORES  # of the S scores
    own: Mapping[str, Criterion] = field(default_factory=dict)  # those of them that are no built-in criterion

    @property
    def problems(self) -> int:
        return len(self.right)

    def until(self, steps: int) -> Trace:
        """The first steps of it."""
        return replace(self, right=self.right[:, :steps], scores=self.scores[:, :steps])

    def accuracy(self, steps: int) -> float:
        """Share of right answers after this many steps."""
        return float(self.right[:, steps - 1].mean())

    def depths(self, rule: HaltingRule, min_steps: int = 1) -> NDArray[np.int64]:
        """After how many steps each problem halts under a rule, at most T: (P,)."""
        known = {**CRITERIA, **self.own}
        criteria = {name: known[name] for name in ("none", *self.names)}
        terms = terms_of(rule, min_steps, self.right.shape[1], criteria)
        ends, depth, held_for = np.zeros((3, self.problems), np.int64)
        for scores in self.scores.swapaxes(0, 1):
            depth = depth + 1
            halted, spent, held_for = decide(scores, depth, held_for, terms)
            ends = np.where((halted | spent) & (ends == 0), depth, ends)
            if ends.all():
                break
        return ends

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
def trace(
    model: RecurrentTransformer | Backend,
    problems: Problems,
    steps: int,
    done: Callable[[int], None] | None = None,
) -> Trace:
    """Run every problem for `steps` steps of the served model; done hears how many more have been run.

    Problems of like length run together, without the padding that none of them needs: every axis of
    an input but the first is a problem's length. The results are in the problems' own order.
    """
    backend = torch_backend(model) if isinstance(model, RecurrentTransformer) else model
    lengths = _lengths(problems)
    order = torch.argsort(lengths, stable=True)
    count = len(order)
    right = np.empty((count, steps), np.bool_)
    scores = np.empty((count, steps, len(backend.scores)), np.float32)
    start = 0
    while start < count:
        fitting = max(1, backend.tokens // int(lengths[order[start]]))
        length = int(lengths[order[start : start + fitting]].max())
        chosen = order[start : start + max(1, backend.tokens // length)]
        labels = problems.labels[chosen].to(backend.device)
        inputs = [_cut(tensor, chosen, length).to(backend.device) for tensor in problems.inputs]
        said, scored = [], []
        for *_, logits, score in backend.walk(inputs, steps):
            said.append(logits.argmax(dim=-1) == labels)
            scored.append(score)
        right[chosen.numpy()] = torch.stack(said, dim=1).cpu().numpy()
        scores[chosen.numpy()] = torch.stack(scored, dim=1).cpu().numpy()
        start += len(chosen)
        if done is not None:
            done(len(chosen))
    return Trace(right, scores, backend.scores)


def _lengths(problems: Problems) -> Tensor:
    """How many tokens each problem has, up to its last real one: (P,) int64."""
    mask = problems.inputs.mask
    place = torch.arange(1, mask.shape[1] + 1)
    return (mask * place).amax(dim=1).clamp(min=1)


def _cut(tensor: Tensor, chosen: Tensor, length: int) -> Tensor:
    """Some rows of an input, every other axis cut to a length, in memory of its own."""
    index: tuple[Tensor | slice, ...] = (chosen, *[slice(length)] * (tensor.dim() - 1))
    return tensor[index].contiguous()


def accuracy_at(network: RecurrentTransformer, problems: Problems, steps: int, device: str = "cpu") -> float:
    """Share of right answers after `steps` steps."""
    return trace(torch_backend(network, device), problems, steps).accuracy(steps)
