"""The slots of the running batch: who thinks where, and how far each has come.

One NumPy column per fact, one row per slot, so that a halting decision for the whole batch is a few
array comparisons. Everything that differs between requests lives here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model.halting import CRITERIA, columns, satisfied
from service.engine.waiting import Waiting
from service.engine.work import Submission
from service.runners.layout import Bucket, Floats

Rows = NDArray[np.intp]
Flags = NDArray[np.bool_]


class Slots:
    """A fixed number of slots; arrays are (slots,), indexed by slot number."""

    def __init__(self, slots: int, scores: Sequence[str]) -> None:
        self._columns = columns(scores)
        self.occupied = np.zeros(slots, np.bool_)
        self.depth = np.zeros(slots, np.int64)
        self.max_steps = np.ones(slots, np.int64)
        self.min_steps = np.ones(slots, np.int64)
        self.column = np.full(slots, -1, np.intp)  # the score this row watches; -1: none
        self.threshold = np.zeros(slots, np.float64)
        self.halts_above = np.zeros(slots, np.bool_)
        self.patience = np.ones(slots, np.int64)
        self.held_for = np.zeros(slots, np.int64)  # steps running for which the criterion has held
        self.deadline = np.full(slots, np.inf, np.float64)
        self.started = np.zeros(slots, np.float64)
        self.every_step = np.zeros(slots, np.bool_)
        self.work: list[Waiting | None] = [None] * slots
        self.bucket: list[Bucket] = [()] * slots
        self._free = list(range(slots - 1, -1, -1))

    @property
    def free(self) -> int:
        return len(self._free)

    def take(self, work: Waiting, bucket: Bucket, now: float) -> int:
        """Seat a problem in the lowest free slot with its terms; returns the slot."""
        slot, problem, rule = self._free.pop(), work.problem, work.problem.rule
        self.occupied[slot] = True
        self.depth[slot] = self.held_for[slot] = 0
        self.max_steps[slot], self.min_steps[slot] = problem.max_steps, problem.min_steps
        self.column[slot] = self._columns[rule.criterion]
        self.threshold[slot], self.patience[slot] = rule.threshold, rule.patience
        self.halts_above[slot] = CRITERIA[rule.criterion].halts_above
        self.deadline[slot] = np.inf if problem.deadline is None else problem.deadline
        self.started[slot] = now
        self.every_step[slot] = problem.every_step
        self.work[slot], self.bucket[slot] = work, bucket
        return slot

    def release(self, slot: int) -> None:
        """Empty a slot for the next problem."""
        assert self.occupied[slot], f"slot {slot} is already free"
        self.occupied[slot] = False
        self.work[slot] = None
        self._free.append(slot)
        self._free.sort(reverse=True)

    def holder(self, slot: int) -> Waiting:
        """The problem in an occupied slot."""
        work = self.work[slot]
        assert work is not None, f"slot {slot} is empty"
        return work

    def holding(self, submission: Submission) -> list[int]:
        """The slots a submission's problems occupy."""
        return [slot for slot, work in enumerate(self.work) if work and work.submission is submission]

    def thinking(self) -> Rows:
        """The occupied slots, in order."""
        return np.flatnonzero(self.occupied)

    def advance(self, rows: Rows, scores: Floats, now: float) -> tuple[Flags, Flags, Flags]:
        """Count a step for `rows` and decide: (halted, out of budget, past the deadline), each (R,).

        scores (R, S) are this step's. Before min_steps the criterion is not looked at.
        """
        self.depth[rows] += 1
        depth = self.depth[rows]
        holds = satisfied(scores, self.column[rows], self.threshold[rows], self.halts_above[rows])
        holds &= depth >= self.min_steps[rows]
        held_for = np.where(holds, self.held_for[rows] + 1, 0)
        self.held_for[rows] = held_for
        halted = holds & (held_for >= self.patience[rows])
        return halted, depth >= self.max_steps[rows], now >= self.deadline[rows]
