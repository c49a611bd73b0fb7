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

import numpy as np

from model.halting import Decision, HaltReason
from model.manifest import Manifest
from model.row import Floats, Layout
from service.engine.boarding import Boarded, Boarding
from service.engine.departures import Departures, Events
from service.engine.ledger import Flags, Ledger
from service.engine.messages import NOT_EMBEDDED, NOT_FINITE, Stepped, Submission
from service.engine.observer import Observer
from service.engine.queue import Progress, WaitingQueue
from service.engine.slots import Rows, Slots
from service.runners.runner import Flight, Landing, Runner


@dataclass(frozen=True)
class EngineLimits:
    """How much one engine takes on."""

    slots: int = 64  # problems that think at the same time
    queue_seconds: float = 10.0  # that a request may have to wait for; past that, it is refused
    quantum_seconds: float = 0.02  # of compute that a row may be ahead by before it yields its slot
    stall_seconds: float = 30.0  # a step that takes longer means that the engine hangs


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
        lean = ("none", *manifest.lean) if runner.lean and manifest.lean is not None else ()
        self.slots = Slots(limits.slots, manifest.criteria, lean)
        self.ledger = Ledger(limits.slots, limits.quantum_seconds)
        self.waiting = WaitingQueue(self.ledger)
        self.steps = 0  # of rows, that came through
        self.failures = 0  # batches that failed since one came through
        self._manifest = manifest
        self._layout = Layout(manifest)
        self._cuts = any(
            isinstance(axis, str) for axis in manifest.logits.shape[1:]
        )  # where they have padding
        self._runner = runner
        self._observer = observer
        self._clock = clock
        self._cancelled: list[Submission] = []
        self._stopped: list[Submission] = []
        self._over: list[Progress] = []  # before they began: nothing is left to think about
        self._flights: dict[Flight, Boarded] = {}
        self._boarding = Boarding(self.slots, self.ledger, runner)
        self._departures = Departures(
            self.slots, self.ledger, self.waiting, self._boarding, runner, observer, self._layout
        )

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
        if any(trajectory.before is not None for trajectory in submission.trajectories):
            self._over += [
                progress for progress in self.waiting.of(submission) if progress.trajectory.is_over
            ]

    def stop(self, submission: Submission) -> None:
        """End a submission with its best answers: who has begun takes at most the step that is due."""
        self._stopped.append(submission)

    def cancel(self, submission: Submission) -> None:
        """Drop a submission at the next step; what has already finished is not disturbed."""
        self._cancelled.append(submission)

    def step(self) -> Events:
        """Aborts, seats, launches; lands what has come back, decides about it, emits and releases."""
        if self._over or self._stopped or self._cancelled:
            self._apply_aborts()
        self._seat()
        self._launch()
        if self._runner.ahead:
            self._launch()  # the step after it, so that one is always under way while another is decided
        for landing in self._runner.land() if self._flights else []:
            self._decide(landing, self._flights.pop(landing.flight))
        self._observer.load(self.running, len(self.waiting), len(self.slots.occupied))
        events, self._departures.events = self._departures.events, []
        return events

    def _apply_aborts(self) -> None:
        now = self._clock()
        for progress in self._over:
            self._departures.end_before(progress, now)
        for submission in self._stopped:
            self._departures.stop(submission, now)
        for submission in self._cancelled:
            self._departures.cancel(submission, now)
        self._over, self._stopped, self._cancelled = [], [], []

    def _seat(self) -> None:
        """Fill the slots from the queue; where none is free, whoever has had too much makes room."""
        if not self.waiting:
            return
        now = self._clock()
        if not self.slots.free and self.ledger.settled and not self.waiting.overdue(now):
            return
        settled = self.slots.settled()  # whoever sits down now stays for a step at least
        moves = float(self._room())  # as many as could be launched at once: a seat alone helps nobody
        everybody = self.waiting.everybody() if len(self.waiting) <= self.slots.free else []
        while self.waiting:
            progress = everybody.pop(0) if everybody else self.waiting.first(now)
            if not self.slots.free:
                moves -= 1 / self._runner.rows_per_batch(progress.carry.row.bucket)
                slot = self._make_room(progress, settled, now) if moves >= 0 else None
                if slot is None:
                    if not self._owe(self.slots.occupied.nonzero()[0], progress, now).any():
                        self.ledger.settle()
                    break
                settled = settled[settled != slot]
            self.waiting.take(progress)
            try:
                slot = self.slots.seat(progress, self.ledger.number(progress.submission))
            except Exception as error:  # noqa: BLE001  terms that no column holds fail this row alone
                self._departures.give_up(
                    progress, HaltReason.ERROR, now, f"the problem cannot be seated: {error}"
                )
                continue
            self._boarding.changed()
            self.ledger.sits(progress.submission)
            if progress.carry.depth == progress.begun_at:
                self._observer.queued(now - progress.submission.arrived)
            progress.queued += now - progress.since
            try:
                self._runner.put(slot, progress.carry)
            except Exception as error:  # noqa: BLE001  whatever a backend raises fails this row alone
                self._departures.leave(
                    slot, HaltReason.ERROR, now, error=f"the problem cannot be embedded: {error}"
                )

    def _make_room(self, newcomer: Progress, settled: Rows, now: float) -> int | None:
        """Send back the row that has had most of those that should yield to a newcomer; returns its slot."""
        settled = settled[self.slots.deadline[settled] > now]
        settled = settled[self._owe(settled, newcomer, now)]
        if not len(settled):
            return None
        slot = int(settled[self.ledger.order(self.slots.account[settled])[-1]])
        progress = self.slots.holder(slot)
        progress.carry, progress.since = self._runner.take(slot), now
        progress.held_for = int(self.slots.held_for[slot])
        self.slots.release(slot)
        self._boarding.changed()
        self.ledger.sits(progress.submission, -1)
        self.waiting.push_back(progress)
        self._observer.yielded()
        return slot

    def _launch(self) -> None:
        """Begin steps while the runner has room, for those first who have had least."""
        room = self._room()
        if room <= 0 or not len(ready := self._ready()):
            return
        if self.slots.steered and self._steer(self.slots.to_steer(ready)):
            ready = self._ready()
        now = self._clock()
        for boarded in self._boarding.first(ready, room, now):
            course = self._boarding.course(boarded, now)
            flight = self._runner.launch(boarded.batch, boarded.shown, boarded.lean, course)
            self._flights[flight] = boarded
            self.slots.launched[boarded.rows] += 1
            self.ledger.charge(boarded.accounts, self._runner.cost(boarded.bucket))

    def _ready(self) -> Rows:
        """Who may be launched; not ahead of its decision who should yield its slot to one that waits."""
        ready = self.slots.boarding(self._runner.ahead)
        if self._runner.ahead and self.waiting and not self.slots.free:
            now = self._clock()
            undecided = self.slots.launched[ready] > self.slots.depth[ready]
            ready = ready[~(undecided & self._owe(ready, self.waiting.first(now), now))]
        return ready

    def _owe(self, slots: Rows, newcomer: Progress, now: float) -> Flags:
        """Which of these slots should be a newcomer's instead."""
        accounts = self.slots.account[slots]
        owe = self.ledger.owe(accounts, newcomer.submission)
        if newcomer.deadline is not None and newcomer.deadline <= now:
            owe |= accounts != self.ledger.number(newcomer.submission)
        return owe

    def _steer(self, due: list[int]) -> bool:
        """Change states before the steps that are due; whether somebody had to leave over it."""
        left = False
        for slot in due:
            progress, step = self.slots.holder(slot), int(self.slots.launched[slot]) + 1
            steering = progress.trajectory.steering
            assert steering is not None, f"nobody steers slot {slot}"
            try:
                if step == 1:
                    self._runner.embed(slot)
                carry = self._runner.take(slot)
                self._runner.put(slot, steering.applied(carry, step, self._layout))
            except Exception as error:  # noqa: BLE001  whatever a backend raises fails this row alone
                self._departures.leave(
                    slot, HaltReason.ERROR, self._clock(), error=f"the state cannot be changed: {error}"
                )
                left = True
            else:
                progress.steered = step
                self.slots.steer_at[slot] = steering.next(step + 1)
        return left

    def _room(self) -> int:
        """How many launches more the runner has work for."""
        return self._runner.room - len(self._flights)

    def _decide(self, landing: Landing, boarded: Boarded) -> None:
        """What a landing means for those who are still there, in a few array comparisons."""
        now = self._clock()
        rows, logits, scores = boarded.rows, landing.logits, landing.scores
        there = self.slots.tenant[rows] == boarded.tenants
        for place in landing.unembedded:
            if there[place]:
                why = NOT_EMBEDDED if landing.error is None else f"{NOT_EMBEDDED}: {landing.error}"
                self._departures.leave(int(rows[place]), HaltReason.ERROR, now, error=why)
                there[place] = False
        if landing.embed_seconds:
            for slot in rows[there & (self.slots.depth[rows] == 0)].tolist():
                self.slots.holder(slot).embedding = landing.embed_seconds
        if landing.taken is not None:
            self._come_through(landing, boarded, there)
        if landing.error is not None:
            self.failures += 1
            for slot in rows[there].tolist():
                self._departures.leave(slot, HaltReason.ERROR, now, error=f"the step failed: {landing.error}")
            return
        self.failures = 0
        steps = 1 if landing.taken is None else int(landing.taken.max())
        row_steps = len(rows) if landing.taken is None else int(landing.taken.sum())
        self._observer.stepped(row_steps, landing.seconds / steps, steps)
        decision = boarded.decision
        if not (there.all() and np.isfinite(logits).all()):
            sound = there & np.isfinite(logits).reshape(len(rows), -1).all(axis=1)
            for place in np.flatnonzero(there & ~sound).tolist():  # what padding shows is nobody's answer
                sound[place] = np.isfinite(self._real(int(rows[place]), logits[place])).all()
            for slot in rows[there & ~sound].tolist():
                self._departures.leave(slot, HaltReason.ERROR, now, error=NOT_FINITE)
            rows, logits, scores = rows[sound], logits[sound], scores[sound]
            decision = Decision(boarded.terms[sound])
        self.steps += len(rows)
        halted, spent, late = self.slots.advance(rows, scores, now, decision)
        over = halted | spent | late
        told = over | self.slots.followed[rows] if boarded.followed else over
        for place in np.flatnonzero(told).tolist():
            slot = int(rows[place])
            progress = self.slots.holder(slot)
            every_step = progress.trajectory.every_step
            view = progress.trajectory.view if every_step or over[place] else None
            # Copies, for an event must not keep the whole batch alive.
            shown = (
                np.array(self._real(slot, logits[place])),
                scores[place].copy(),
                None if view is None else landing.state(slot, view),
            )
            if progress.tally is not None and shown[0] is not None:
                progress.tally.add(shown[0])
            if every_step:
                step = Stepped(progress.index, int(self.slots.depth[slot]), *shown, last=bool(over[place]))
                self._departures.events.append((progress.submission, step))
            if over[place]:
                late_for = HaltReason.CANCELLED if progress.stopped else HaltReason.DEADLINE
                reason = HaltReason.BUDGET if spent[place] else late_for
                self._departures.leave(slot, HaltReason.HALTED if halted[place] else reason, now, shown)

    def _come_through(self, landing: Landing, boarded: Boarded, there: Flags) -> None:
        """Count the steps of a course that came before the last one, or before the one that failed."""
        assert landing.taken is not None, "one step each"
        last = 0 if landing.error is not None else 1
        rows, steps = boarded.rows[there], landing.taken[there] - last
        self.slots.further(rows, steps, None if landing.held_for is None else landing.held_for[there])
        self.steps += int(steps.sum())
        if len(further := np.repeat(boarded.accounts[there], steps)):
            self.ledger.charge(further, self._runner.cost(boarded.bucket))

    def _real(self, slot: int, logits: Floats) -> Floats:
        """A row's logits without padding."""
        if not self._cuts:
            return logits
        return self._layout.cut(self._manifest.logits, logits, self.slots.holder(slot).carry.row.lengths)
