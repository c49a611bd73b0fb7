"""The slots of the running batch: who thinks where, and how far each has come.

One NumPy column per fact, one row per slot, so that a halting decision for the whole batch is a few
array comparisons. Everything that differs between requests lives here and nowhere else.
"""

from __future__ import annotations

import heapq
from collections.abc import Container, Mapping
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from model.halting import TERMS, Criterion, Decision, Flags, Steps, terms_of
from model.row import Bucket, Floats
from service.engine.messages import Submission
from service.engine.queue import Progress
from service.engine.steering import NEVER

Rows = NDArray[np.intp]
Kind = tuple[Bucket, bool]  # and whether the steps are lean


class Slots:
    """A fixed number of slots; arrays are (slots,), indexed by slot number."""

    def __init__(self, slots: int, criteria: Mapping[str, Criterion], lean: Container[str] = ()) -> None:
        """criteria: what a row can halt on, `none` first, then in the order of the scores' columns.

        lean: those of them that a lean step is enough for.
        """
        self._lean_criteria = lean
        self._terms_of = lru_cache(256)(partial(terms_of, criteria=criteria))
        self.occupied = np.zeros(slots, np.bool_)
        self.tenant = np.zeros(slots, np.int64)  # changes with whoever sits there: tells guests from ghosts
        self.account = np.zeros(slots, np.intp)  # of the submission, in the ledger
        self.depth = np.zeros(slots, np.int64)  # steps decided about
        self.launched = np.zeros(slots, np.int64)  # steps asked for; some may be under way
        self.terms = np.zeros(slots, TERMS)
        self.held_for = np.zeros(slots, np.int64)  # steps running for which the criterion has held
        self.deadline = np.full(slots, np.inf, np.float64)
        self.followed = np.zeros(slots, np.bool_)  # whose every step is told or counted
        self.views = [False] * slots  # whose states are asked for
        self.alone = np.zeros(slots, np.bool_)  # who is launched again only once its last step is decided
        self.steer_at = np.full(slots, NEVER, np.int64)  # the next step before which a state is changed
        self.steered = 0  # slots in which that may come
        self.following = 0  # slots that are followed
        self.progress: list[Progress | None] = [None] * slots
        self.kind: list[Kind] = [((), False)] * slots  # who can share a step
        self._free = list(range(slots))  # a heap

    @property
    def free(self) -> int:
        return len(self._free)

    def seat(self, progress: Progress, account: int) -> int:
        """Give a problem the lowest free slot, where it goes on as it left; returns the slot.

        Raises where its terms cannot be held; then the slot stays free.
        """
        slot, trajectory = self._free[0], progress.trajectory
        self.account[slot] = account
        self.depth[slot] = self.launched[slot] = progress.carry.depth
        self.terms[slot] = self._terms_of(trajectory.rule, trajectory.min_steps, trajectory.max_steps)
        self.held_for[slot] = progress.held_for
        self.deadline[slot] = np.inf if progress.deadline is None else progress.deadline
        self.followed[slot] = trajectory.every_step or trajectory.tallies
        self.views[slot] = trajectory.view is not None
        self.alone[slot] = trajectory.keeps or trajectory.steering is not None
        if trajectory.steering is not None:
            self.steer_at[slot] = trajectory.steering.next(max(progress.carry.depth, progress.steered) + 1)
            self.steered += 1
        lean = not (trajectory.scored or trajectory.keeps) and (
            trajectory.rule.criterion in self._lean_criteria
        )
        self.progress[slot], self.kind[slot] = progress, (progress.carry.row.bucket, lean)
        self.occupied[slot] = True
        self.following += bool(self.followed[slot])
        heapq.heappop(self._free)
        return slot

    def release(self, slot: int) -> None:
        """Empty a slot for the next problem."""
        assert self.occupied[slot], f"slot {slot} is already free"
        self.occupied[slot] = False
        self.tenant[slot] += 1
        trajectory = self.holder(slot).trajectory
        self.following -= bool(self.followed[slot])
        if trajectory.steering is not None:
            self.steered -= 1
            self.steer_at[slot] = NEVER
        self.progress[slot] = None
        heapq.heappush(self._free, slot)

    def holder(self, slot: int) -> Progress:
        """The problem in an occupied slot."""
        progress = self.progress[slot]
        assert progress is not None, f"slot {slot} is empty"
        return progress

    def holding(self, submission: Submission) -> list[int]:
        """The slots a submission's problems occupy."""
        return [
            slot
            for slot, progress in enumerate(self.progress)
            if progress and progress.submission is submission
        ]

    def boarding(self, ahead: bool) -> Rows:
        """Who may take a step now: within the budget, and with nothing undecided unless `ahead`."""
        if not ahead:
            return self.settled()  # who had no step left has gone
        ready = self.occupied & (self.launched < self.terms["max_steps"])
        return np.flatnonzero(ready & (self.launched <= self.depth + ~self.alone))

    def to_steer(self, ready: Rows) -> list[int]:
        """Those of `ready` whose state is changed before the step that they take next."""
        due = self.steer_at[ready] == self.launched[ready] + 1
        return ready[due].tolist() if due.any() else []

    def settled(self) -> Rows:
        """The occupied slots of which nothing is under way."""
        return (self.occupied & (self.launched == self.depth)).nonzero()[0]

    def further(self, rows: Rows, steps: Steps, held_for: Steps | None) -> None:
        """Count what `rows` have taken in one launch before their last step, about which is to be decided."""
        self.depth[rows] += steps
        self.launched[rows] += steps
        if held_for is not None:
            self.held_for[rows] = held_for

    def advance(
        self, rows: Rows, scores: Floats, now: float, decision: Decision
    ) -> tuple[Flags, Flags, Flags]:
        """Count a step for `rows` and decide: (halted, out of budget, past the deadline), each (R,).

        scores (R, S) are this step's; the decision is theirs.
        """
        depth = self.depth[rows] + 1
        halted, spent, held_for = decision.after(scores, depth, self.held_for[rows])
        self.depth[rows], self.held_for[rows] = depth, held_for
        return halted, spent, now >= self.deadline[rows]
