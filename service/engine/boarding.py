"""Who takes a step together: which of those who are ready, in batches that suit the device."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.halting import Decision
from model.row import Bucket
from service.engine.ledger import Ledger
from service.engine.slots import Kind, Rows, Slots
from service.runners.runner import COURSE_SECONDS, Course, Runner

MOST_PLANS = 64
FEWEST = 3  # steps that a course should have room for: with fewer it costs what it saves
Kinds = dict[Kind, list[int]]


@dataclass(frozen=True)
class Boarded:
    """Who takes a step together: slots of one bucket, and who sits there."""

    bucket: Bucket
    batch: list[int]
    rows: Rows  # the same, as an array
    tenants: Rows
    accounts: Rows
    shown: list[int]  # whose states are asked for
    lean: bool  # nobody sees more than the scores of a lean step
    terms: NDArray[np.void]  # TERMS, (B,)
    decision: Decision  # on these terms
    followed: bool  # whether somebody's every step is told or counted
    deadline: float  # the earliest of them


class Boarding:
    """Cuts those who are ready into batches; remembers how, until somebody comes or goes."""

    def __init__(self, slots: Slots, ledger: Ledger, runner: Runner) -> None:
        self._slots = slots
        self._ledger = ledger
        self._runner = runner
        # By who is ready in which order, and how many batches of them at most; None: these would be more.
        self._plans: dict[tuple[bytes, int], list[Boarded] | None] = {}

    def changed(self) -> None:
        """Somebody has taken a slot, or left one, or may stay no longer than for a step."""
        self._plans.clear()

    def first(self, ready: Rows, room: int, now: float) -> list[Boarded]:
        """At most `room` batches of the slots that are ready, of those first who have had least."""
        key = ready.tobytes(), room
        if key not in self._plans:
            slots = ready.tolist()
            kinds = self._by_kind(slots)
            self._remember(key, self._cut(slots, kinds, room) if self._number(kinds) <= room else None)
        plan = self._plans[key]
        if plan is None:  # who is out of time goes first, then who has had least
            turns = self._ledger.order(self._slots.account[ready])
            late = self._slots.deadline[ready[turns]] <= now
            if np.logical_or.reduce(late):
                turns = turns[np.argsort(~late, kind="stable")]
            ready = ready[turns]
            key = ready.tobytes(), -room
            plan = self._plans.get(key)
            if plan is None:
                slots = ready.tolist()
                plan = self._cut(slots, self._by_kind(slots), room)
                self._remember(key, plan)
        return plan

    def course(self, boarded: Boarded, now: float) -> Course | None:
        """On what terms a batch may take several steps at once.

        None where each of them matters to somebody, and where they are so long that it would save nothing.
        """
        rows, slots, runner = boarded.rows, self._slots, self._runner
        if not runner.bursts or runner.ahead or boarded.followed or boarded.deadline <= now + COURSE_SECONDS:
            return None
        if FEWEST * len(rows) * runner.cost(boarded.bucket) > COURSE_SECONDS:
            return None
        depth = slots.depth[rows]
        steps = int(np.maximum.reduce(boarded.terms["max_steps"] - depth))
        if slots.steered:
            steps = min(steps, int((slots.steer_at[rows] - depth).min()) - 1)
        if steps <= 1:
            return None
        return Course(steps, depth, slots.held_for[rows], boarded.terms, boarded.decision)

    def _remember(self, key: tuple[bytes, int], plan: list[Boarded] | None) -> None:
        if len(self._plans) > MOST_PLANS:
            self._plans.clear()
        self._plans[key] = plan

    def _by_kind(self, ready: list[int]) -> Kinds:
        """Slots by kind: those of one take the same step, lean or not, whoever is beside them."""
        kinds = [self._slots.kind[slot] for slot in ready]
        if kinds.count(kinds[0]) == len(kinds):  # as nearly always
            return {kinds[0]: ready}
        found: Kinds = {}
        for kind, slot in zip(kinds, ready, strict=True):
            found.setdefault(kind, []).append(slot)
        return found

    def _number(self, kinds: Kinds) -> int:
        """How many batches they make."""
        return sum(
            math.ceil(len(slots) / self._runner.rows_per_batch(bucket))
            for (bucket, _), slots in kinds.items()
        )

    def _cut(self, ready: list[int], kinds: Kinds, room: int) -> list[Boarded]:
        """At most `room` batches of one kind that suit the device, in the order of their first slots.

        Batches of half the size that suits are made where there would be no work for somebody otherwise.
        """
        idle = min(room, self._runner.workers) - self._number(kinds)
        batches: list[list[int]] = []
        for (bucket, _), slots in kinds.items():
            most = self._runner.rows_per_batch(bucket)
            number = math.ceil(len(slots) / most)
            if idle > 0 and (further := min(idle, 2 * len(slots) // most - number)) > 0:
                number, idle = number + further, idle - further
            size = most if idle < 0 else math.ceil(len(slots) / number)
            batches += [slots[at : at + size] for at in range(0, min(len(slots), room * size), size)]
        if len(kinds) > 1:
            places = {slot: place for place, slot in enumerate(ready)}
            batches.sort(key=lambda batch: places[batch[0]])
        return [self._board(sorted(batch)) for batch in batches[:room]]

    def _board(self, batch: list[int]) -> Boarded:
        slots = self._slots
        rows = np.array(batch, np.intp)
        bucket, lean = slots.kind[batch[0]]
        terms = slots.terms[rows]
        return Boarded(
            bucket,
            batch,
            rows,
            slots.tenant[rows],
            slots.account[rows],
            [slot for slot in batch if slots.views[slot]],
            lean,
            terms,
            Decision(terms),
            slots.following > 0 and bool(slots.followed[rows].any()),
            float(np.minimum.reduce(slots.deadline[rows])),
        )
