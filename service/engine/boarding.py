"""Who takes a step together: which of those who are ready, in batches that suit the device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.row import Bucket
from service.engine.ledger import Ledger
from service.engine.slots import Rows, Slots
from service.runners.runner import Runner

MOST_PLANS = 64


@dataclass(frozen=True)
class Boarded:
    """Who takes a step together: slots of one bucket, and who sits there."""

    bucket: Bucket
    batch: list[int]
    rows: Rows  # the same, as an array
    tenants: Rows
    shown: list[int]  # whose states are asked for
    lean: bool  # nobody sees more than the scores of a lean step


class Boarding:
    """Cuts those who are ready into batches; remembers how, until somebody comes or goes."""

    def __init__(self, slots: Slots, ledger: Ledger, runner: Runner) -> None:
        self._slots = slots
        self._ledger = ledger
        self._runner = runner
        self._plans: dict[bytes, list[Boarded]] = {}  # by who is ready

    def changed(self) -> None:
        """Somebody has taken a slot, or left one."""
        self._plans.clear()

    def first(self, ready: Rows, room: int, now: float) -> list[Boarded]:
        """At most `room` batches of the slots that are ready, of those first who have had least."""
        plan = self._plans.get(ready.tobytes())
        if plan is None and len(batches := self._cut(ready.tolist())) <= room:
            if len(self._plans) > MOST_PLANS:
                self._plans.clear()
            plan = self._plans[ready.tobytes()] = [self._board(batch) for batch in batches]
        if plan is None or len(plan) > room:
            # Not all of them at once: who is out of time goes first, then who has had least.
            turns = self._ledger.order(self._slots.account[ready])
            late = self._slots.deadline[ready[turns]] <= now
            turns = turns[np.argsort(~late, kind="stable")]
            plan = [self._board(sorted(batch)) for batch in self._cut(ready[turns].tolist())[:room]]
        return plan

    def _cut(self, ready: list[int]) -> list[list[int]]:
        """Slots -> batches of one kind that suit the device, in the order of their first slots.

        Rows of a kind take the same step, lean or not, whoever is beside them.
        """
        batches: list[list[int]] = []
        filling: dict[tuple[Bucket, bool], tuple[int, list[int]]] = {}
        for slot in ready:
            bucket = self._slots.bucket[slot]
            kind = bucket, bool(self._slots.lean[slot])
            size, batch = filling.get(kind) or (self._runner.rows_per_batch(bucket), None)
            if batch is None or len(batch) == size:
                batch = []
                batches.append(batch)
                filling[kind] = size, batch
            batch.append(slot)
        return batches

    def _board(self, batch: list[int]) -> Boarded:
        rows = np.array(batch, np.intp)
        shown = rows[self._slots.views[rows]].tolist()
        lean = bool(self._slots.lean[batch[0]])
        return Boarded(self._slots.bucket[batch[0]], batch, rows, self._slots.tenant[rows], shown, lean)
