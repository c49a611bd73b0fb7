"""Problems of one difficulty that the pictures follow step by step, and the one among them that is shown."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.network.scores import SCORES
from training.judge.evaluate import Evaluation
from training.judge.traces import Trace, trace
from training.task import Problems

PROBLEMS = 64
STILL = 0.05  # a problem has settled once no token moves by more than this share of its length


@dataclass(frozen=True)
class Followed:
    """Problems of the task's pictured difficulty with their traces."""

    problems: Problems
    traced: Trace
    steps: int  # as many as are worth a look: until most have settled, and some more

    def shown(self) -> int:
        """A problem that ends right after having been wrong, later than nine in ten of those."""
        ends, begins = self.traced.right[:, self.steps - 1], self.traced.right[:, 0]
        kinds = (ends & ~begins, ends, np.ones_like(ends))  # the first of them that there is
        candidates = next(found for kind in kinds if len(found := np.flatnonzero(kind)))
        sizes = self.problems.inputs.mask.sum(dim=1).numpy()[candidates]
        order = np.lexsort((-sizes, self.traced.oracle()[candidates]))  # of equally late ones a short one
        return int(candidates[order[int(0.9 * (len(order) - 1))]])

    def late(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Which problems end right after having been wrong: (P,). All, where there are none."""
        found = self.traced.right[:, -1] & ~self.traced.right[:, 0]
        return np.asarray(found if found.any() else np.ones_like(found))


def follow(evaluation: Evaluation, rng: np.random.Generator) -> Followed:
    """Draw the problems and run them, for no more steps than the evaluation took."""
    task = evaluation.subject.task
    limit = next(iter(evaluation.traces[task.splits[0]].values())).right.shape[1]
    problems = task.problems(rng, task.splits[0], task.pictured, PROBLEMS)
    traced = trace(evaluation.subject.backend, problems, min(limit, 4 * task.pictured + 16))
    return Followed(problems, traced, _worth_a_look(traced))


def _worth_a_look(traced: Trace) -> int:
    moving = traced.scores[:, :, SCORES.index("latent_diff")] > STILL  # (P, T)
    limit = moving.shape[1]
    settled = np.where(moving.any(axis=1), limit - moving[:, ::-1].argmax(axis=1), 1)
    return int(min(limit, np.ceil(1.25 * np.quantile(settled, 0.9)) + 4))
