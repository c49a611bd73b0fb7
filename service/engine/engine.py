"""The engine: continuous depth batching for one model.

Rows at different depths share a step; a row that halts leaves at once and a waiting one takes its
slot at the next step (arXiv 2608.09444 calls this continuous depth batching). The engine is
synchronous and belongs to one thread: submissions and cancellations in, events out. It schedules
with NumPy alone; all tensors stay with the runner.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from model.halting import HaltReason
from model.manifest import Manifest
from model.row import Bucket, Floats, Layout
from service.engine.ledger import Ledger
from service.engine.messages import NOT_FINITE, Event, Finished, Stepped, Submission
from service.engine.queue import Waiting, WaitingQueue
from service.engine.slots import Rows, Slots
from service.engine.thoughts import NOTHING, Shown, end_before, shown_before, thought_of
from service.runners.runner import Carry, Flight, Landing, Runner

MOST_PLANS = 64
Events = list[tuple[Submission, Event]]


class Observer(Protocol):
    """Who wants to know what the engine does (metrics). Called from the engine's thread."""

    def stepped(self, rows: int, seconds: float) -> None:
        """A batch of so many rows took a step."""

    def queued(self, seconds: float) -> None:
        """A problem found its first slot after so long."""

    def yielded(self) -> None:
        """A problem gave its slot to one that waited."""

    def finished(self, reason: HaltReason, steps: int) -> None:
        """A problem is done."""

    def load(self, running: int, waiting: int, slots: int) -> None:
        """How full the engine is, after every change."""

    def restarted(self) -> None:
        """The engine is built anew after a failure."""

    def dropped(self, steps: int) -> None:
        """So many steps went because a caller read too slowly. Called on the event loop."""


@dataclass(frozen=True)
class EngineLimits:
    """How much one engine takes on."""

    slots: int = 64  # problems that think at the same time
    queue_seconds: float = 10.0  # that a request may have to wait for; past that, it is refused
    quantum_seconds: float = 0.02  # of compute that a row may be ahead by before it yields its slot
    stall_seconds: float = 30.0  # a step that takes longer means that the engine hangs


@dataclass(frozen=True)
class Boarded:
    """Who takes a step together: slots of one bucket, and who sits there."""

    bucket: Bucket
    batch: list[int]
    rows: Rows  # the same, as an array
    tenants: Rows
    shown: list[int]  # whose states are asked for


class Engine:
    """One model's running batch and the queue in front of it."""

    def __init__(
        self,
        manifest: Manifest,
        runner: Runner,
        limits: EngineLimits,
        observer: Observer,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.slots = Slots(limits.slots, manifest.criteria)
        self.ledger = Ledger(limits.slots, limits.quantum_seconds)
        self.waiting = WaitingQueue(self.ledger)
        self.steps = 0  # of rows, that came through
        self.failures = 0  # batches that failed since one came through
        self._manifest = manifest
        self._layout = Layout(manifest)
        self._runner = runner
        self._observer = observer
        self._clock = clock
        self._cancelled: list[Submission] = []
        self._stopped: list[Submission] = []
        self._over: list[Waiting] = []  # before they began: nothing is left to think about
        self._flights: dict[Flight, Boarded] = {}
        self._plans: dict[bytes, list[Boarded]] = {}  # by who is ready; until somebody comes or goes
        self._events: Events = []

    @property
    def running(self) -> int:
        """Problems in slots."""
        return len(self.slots.occupied) - self.slots.free

    @property
    def flying(self) -> bool:
        """Whether a step is under way."""
        return bool(self._flights)

    @property
    def idle(self) -> bool:
        return not (self.running or self.waiting or self._cancelled or self._stopped or self._flights)

    def submit(self, submission: Submission) -> None:
        """Queue a submission's problems; they take slots from the next step on."""
        self.ledger.enter(submission)
        self.waiting.push(submission, submission.arrived)
        if any(problem.before is not None for problem in submission.problems):
            self._over += [work for work in self.waiting.of(submission) if work.problem.is_over]

    def stop(self, submission: Submission) -> None:
        """End a submission with its best answers: who has begun takes at most the step that is due."""
        self._stopped.append(submission)

    def cancel(self, submission: Submission) -> None:
        """Drop a submission at the next step; what has already finished is not disturbed."""
        self._cancelled.append(submission)

    def step(self) -> Events:
        """Aborts, seats, launches; lands what has come back, decides about it, emits and releases."""
        self._events = []
        if self._over or self._stopped:
            self._apply_stops()
        self._apply_cancellations()
        self._seat()
        self._launch()
        for landing in self._runner.land() if self._flights else []:
            self._decide(landing, self._flights.pop(landing.flight))
        self._observer.load(self.running, len(self.waiting), len(self.slots.occupied))
        return self._events

    def _apply_stops(self) -> None:
        now = self._clock()
        for work in self._over:
            if not work.gone:
                reason, error = end_before(work)
                self._give_up(self.waiting.take(work), reason, now, error, shown_before(work, self._layout))
        for submission in self._stopped:
            for work in self.waiting.of(submission):
                work.stopped = True
                if work.carry.depth > work.begun_at:
                    self.waiting.hurry(work)
                else:
                    shown = shown_before(work, self._layout)
                    self._give_up(self.waiting.take(work), HaltReason.CANCELLED, now, shown=shown)
            for slot in self.slots.holding(submission):
                work = self.slots.holder(slot)
                work.stopped = True
                if self.slots.launched[slot] > work.begun_at:
                    self.slots.deadline[slot] = -np.inf
                else:
                    self._leave(slot, HaltReason.CANCELLED, now, shown_before(work, self._layout))
        self._over, self._stopped = [], []

    def _apply_cancellations(self) -> None:
        now = self._clock()
        for submission in self._cancelled:
            for work in self.waiting.cancel(submission):
                self._give_up(work, HaltReason.CANCELLED, now)
            for slot in self.slots.holding(submission):
                self._leave(slot, HaltReason.CANCELLED, now)
        self._cancelled = []

    def _seat(self) -> None:
        """Fill the slots from the queue; where none is free, whoever has had too much makes room."""
        if not self.waiting:
            return
        now = self._clock()
        settled = self.slots.settled()  # whoever sits down now stays for a step at least
        moves = float(self._room())  # as many as could be launched at once: a seat alone helps nobody
        while self.waiting:
            work = self.waiting.first(now)
            if not self.slots.free:
                moves -= 1 / self._runner.rows_per_batch(work.carry.row.bucket)
                slot = self._make_room(work, settled, now) if moves >= 0 else None
                if slot is None:
                    break
                settled = settled[settled != slot]
            self.waiting.take(work)
            try:
                slot = self.slots.seat(work, self.ledger.number(work.submission))
            except Exception as error:  # noqa: BLE001  terms that no column holds fail this row alone
                self._give_up(work, HaltReason.ERROR, now, f"the problem cannot be seated: {error}")
                continue
            self._plans.clear()
            self.ledger.sits(work.submission)
            if work.carry.depth == work.begun_at:
                self._observer.queued(now - work.submission.arrived)
            work.queued += now - work.since
            try:
                self._runner.put(slot, work.carry)
            except Exception as error:  # noqa: BLE001  whatever a backend raises fails this row alone
                self._leave(slot, HaltReason.ERROR, now, error=f"the problem cannot be embedded: {error}")

    def _make_room(self, newcomer: Waiting, settled: Rows, now: float) -> int | None:
        """Send back the row that has had most of those that should yield to a newcomer; returns its slot."""
        settled = settled[self.slots.deadline[settled] > now]
        accounts = self.slots.account[settled]
        owe = self.ledger.owe(accounts, newcomer.submission)
        if newcomer.deadline is not None and newcomer.deadline <= now:
            owe |= accounts != self.ledger.number(newcomer.submission)
        if not owe.any():
            return None
        slot = int(settled[owe][self.ledger.order(accounts[owe])[-1]])
        work = self.slots.holder(slot)
        work.carry, work.since = self._runner.take(slot), now
        work.held_for = int(self.slots.held_for[slot])
        self.slots.release(slot)
        self._plans.clear()
        self.ledger.sits(work.submission, -1)
        self.waiting.push_back(work)
        self._observer.yielded()
        return slot

    def _launch(self) -> None:
        """Begin steps while the runner has room, for those first who have had least."""
        room = self._room()
        ready = self.slots.boarding(self._runner.ahead)
        if room <= 0 or not len(ready):
            return
        if self.slots.steered and self._steer(self.slots.to_steer(ready)):
            ready = self.slots.boarding(self._runner.ahead)
        plan = self._plans.get(ready.tobytes())
        if plan is None and len(batches := self._cut(ready.tolist())) <= room:
            if len(self._plans) > MOST_PLANS:
                self._plans.clear()
            plan = self._plans[ready.tobytes()] = [self._board(batch) for batch in batches]
        if plan is None or len(plan) > room:
            # Not all of them at once: who is out of time goes first, then who has had least.
            turns = self.ledger.order(self.slots.account[ready])
            late = self.slots.deadline[ready[turns]] <= self._clock()
            turns = turns[np.argsort(~late, kind="stable")]
            plan = [self._board(sorted(batch)) for batch in self._cut(ready[turns].tolist())[:room]]
        for boarded in plan:
            flight = self._runner.launch(boarded.batch, boarded.shown)
            self._flights[flight] = boarded
            self.slots.launched[boarded.rows] += 1
            self.ledger.charge(self.slots.account[boarded.rows], self._runner.cost(boarded.bucket))

    def _steer(self, due: list[int]) -> bool:
        """Change states before the steps that are due; whether somebody had to leave over it."""
        left = False
        for slot in due:
            work, step = self.slots.holder(slot), int(self.slots.launched[slot]) + 1
            steering = work.problem.steering
            assert steering is not None, f"nobody steers slot {slot}"
            try:
                if step == 1:
                    self._runner.embed(slot)
                carry = self._runner.take(slot)
                self._runner.put(slot, steering.applied(carry, step, self._layout))
            except Exception as error:  # noqa: BLE001  whatever a backend raises fails this row alone
                self._leave(
                    slot, HaltReason.ERROR, self._clock(), error=f"the state cannot be changed: {error}"
                )
                left = True
            else:
                work.steered = step
                self.slots.steer_at[slot] = steering.next(step + 1)
        return left

    def _room(self) -> int:
        """How many launches more the runner has work for."""
        return self._runner.workers * (1 + self._runner.ahead) - len(self._flights)

    def _cut(self, ready: list[int]) -> list[list[int]]:
        """Slots -> batches of one bucket that suit the device, in the order of their first slots."""
        batches: list[list[int]] = []
        filling: dict[Bucket, tuple[int, list[int]]] = {}
        for slot in ready:
            bucket = self.slots.bucket[slot]
            size, batch = filling.get(bucket) or (self._runner.rows_per_batch(bucket), None)
            if batch is None or len(batch) == size:
                batch = []
                batches.append(batch)
                filling[bucket] = size, batch
            batch.append(slot)
        return batches

    def _board(self, batch: list[int]) -> Boarded:
        rows = np.array(batch, np.intp)
        shown = rows[self.slots.views[rows]].tolist()
        return Boarded(self.slots.bucket[batch[0]], batch, rows, self.slots.tenant[rows], shown)

    def _decide(self, landing: Landing, boarded: Boarded) -> None:
        """What a landing means for those who are still there, in a few array comparisons."""
        now = self._clock()
        rows, logits, scores = boarded.rows, landing.logits, landing.scores
        there = self.slots.tenant[rows] == boarded.tenants
        if landing.error is not None:
            self.failures += 1
            for slot in rows[there].tolist():
                self._leave(slot, HaltReason.ERROR, now, error=f"the step failed: {landing.error}")
            return
        self.failures = 0
        self._observer.stepped(len(rows), landing.seconds)
        sound = there & np.isfinite(logits).reshape(len(rows), -1).all(axis=1)
        if not sound.all():
            for place in np.flatnonzero(there & ~sound).tolist():  # what padding shows is nobody's answer
                sound[place] = np.isfinite(self._real(int(rows[place]), logits[place])).all()
            for slot in rows[there & ~sound].tolist():
                self._leave(slot, HaltReason.ERROR, now, error=NOT_FINITE)
            rows, logits, scores = rows[sound], logits[sound], scores[sound]
        self.steps += len(rows)
        if landing.embed_seconds:
            for slot in rows[self.slots.depth[rows] == 0].tolist():
                self.slots.holder(slot).embedding = landing.embed_seconds
        halted, spent, late = self.slots.advance(rows, scores, now)
        over = halted | spent | late
        told = self.slots.followed[rows]
        for place in np.flatnonzero(over | told).tolist():
            slot = int(rows[place])
            work = self.slots.holder(slot)
            every_step = work.problem.every_step
            view = work.problem.view if every_step or over[place] else None
            # Copies, for an event must not keep the whole batch alive.
            shown = (
                np.array(self._real(slot, logits[place])),
                scores[place].copy(),
                None if view is None else landing.state(slot, view),
            )
            if work.tally is not None and shown[0] is not None:
                work.tally.add(shown[0])
            if every_step:
                step = Stepped(work.index, int(self.slots.depth[slot]), *shown, last=bool(over[place]))
                self._events.append((work.submission, step))
            if over[place]:
                late_for = HaltReason.CANCELLED if work.stopped else HaltReason.DEADLINE
                reason = HaltReason.BUDGET if spent[place] else late_for
                self._leave(slot, HaltReason.HALTED if halted[place] else reason, now, shown)

    def _real(self, slot: int, logits: Floats) -> Floats:
        """A row's logits without padding."""
        return self._layout.cut(self._manifest.logits, logits, self.slots.holder(slot).carry.row.lengths)

    def _leave(
        self,
        slot: int,
        reason: HaltReason,
        now: float,
        shown: Shown = NOTHING,
        error: str | None = None,
    ) -> None:
        """Empty a slot and say how its problem ended."""
        work = self.slots.holder(slot)
        steps = int(self.slots.depth[slot])
        carry = None
        if work.problem.keeps and shown[0] is not None and steps > work.begun_at:  # it has just landed
            carry = self._runner.take(slot)
        work.held_for = int(self.slots.held_for[slot])
        self._runner.release(slot)
        self.slots.release(slot)
        self._plans.clear()
        self.ledger.leaves(work.submission, seated=True)
        self._end(work, reason, now, steps, carry, shown, error)

    def _give_up(
        self,
        work: Waiting,
        reason: HaltReason,
        now: float,
        error: str | None = None,
        shown: Shown = NOTHING,
    ) -> None:
        """Say how a problem without a slot ended."""
        work.queued += now - work.since
        self.ledger.leaves(work.submission, seated=False)
        self._end(work, reason, now, work.carry.depth, None, shown, error)

    def _end(
        self,
        work: Waiting,
        reason: HaltReason,
        now: float,
        steps: int,
        carry: Carry | None,
        shown: Shown,
        error: str | None,
    ) -> None:
        """carry: where it stands, for those who are to go on and have taken a step."""
        computed, taken = now - work.submission.arrived - work.queued, steps - work.begun_at
        thought = thought_of(work, carry, reason, shown, error, taken)
        self._observer.finished(reason, steps)
        queued = work.queued
        finished = Finished(
            work.index,
            steps,
            reason,
            *shown,
            error,
            queued,
            computed,
            work.tally,
            thought,
            taken,
            work.embedding,
        )
        self._events.append((work.submission, finished))
