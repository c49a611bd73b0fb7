"""How problems end: out of their slot or out of the queue, each with one event that says so."""

from __future__ import annotations

import numpy as np

from model.halting import HaltReason
from model.row import Layout
from service.engine.boarding import Boarding
from service.engine.ledger import Ledger
from service.engine.messages import Event, Finished, Submission
from service.engine.observer import Observer
from service.engine.queue import Progress, WaitingQueue
from service.engine.slots import Slots
from service.engine.thoughts import NOTHING, Shown, end_before, shown_before, thought_of
from service.runners.runner import Carry, Runner

Events = list[tuple[Submission, Event]]


class Departures:
    """Empties slots and closes accounts. `events` has what has happened since somebody took it."""

    def __init__(
        self,
        slots: Slots,
        ledger: Ledger,
        waiting: WaitingQueue,
        boarding: Boarding,
        runner: Runner,
        observer: Observer,
        layout: Layout,
    ) -> None:
        self.events: Events = []
        self._slots = slots
        self._ledger = ledger
        self._waiting = waiting
        self._boarding = boarding
        self._runner = runner
        self._observer = observer
        self._layout = layout

    def end_before(self, progress: Progress, now: float) -> None:
        """One of which nothing is left to think about, unless it has gone already."""
        if not progress.gone:
            reason, error = end_before(progress)
            shown = shown_before(progress, self._layout)
            self.give_up(self._waiting.take(progress), reason, now, error, shown)

    def stop(self, submission: Submission, now: float) -> None:
        """End what has not begun as it stands; what has begun takes at most the step that is due."""
        for progress in self._waiting.of(submission):
            progress.stopped = True
            if progress.carry.depth > progress.begun_at:
                self._waiting.hurry(progress)
            else:
                shown = shown_before(progress, self._layout)
                self.give_up(self._waiting.take(progress), HaltReason.CANCELLED, now, shown=shown)
        for slot in self._slots.holding(submission):
            progress = self._slots.holder(slot)
            progress.stopped = True
            if self._slots.launched[slot] > progress.begun_at:
                self._slots.deadline[slot] = -np.inf
                self._boarding.changed()
            else:
                self.leave(slot, HaltReason.CANCELLED, now, shown_before(progress, self._layout))

    def cancel(self, submission: Submission, now: float) -> None:
        """Drop all of it, as it is."""
        for progress in self._waiting.cancel(submission):
            self.give_up(progress, HaltReason.CANCELLED, now)
        for slot in self._slots.holding(submission):
            self.leave(slot, HaltReason.CANCELLED, now)

    def leave(
        self,
        slot: int,
        reason: HaltReason,
        now: float,
        shown: Shown = NOTHING,
        error: str | None = None,
    ) -> None:
        """Empty a slot and say how its problem ended."""
        progress = self._slots.holder(slot)
        steps = int(self._slots.depth[slot])
        landed = shown[0] is not None and steps > progress.begun_at  # just now, so that nothing is under way
        carry = self._runner.take(slot) if progress.trajectory.keeps and landed else None
        progress.held_for = int(self._slots.held_for[slot])
        self._runner.release(slot)
        self._slots.release(slot)
        self._boarding.changed()
        self._ledger.leaves(progress.submission, seated=True)
        self._end(progress, reason, now, steps, carry, shown, error)

    def give_up(
        self,
        progress: Progress,
        reason: HaltReason,
        now: float,
        error: str | None = None,
        shown: Shown = NOTHING,
    ) -> None:
        """Say how a problem without a slot ended."""
        progress.queued += now - progress.since
        self._ledger.leaves(progress.submission, seated=False)
        self._end(progress, reason, now, progress.carry.depth, None, shown, error)

    def _end(
        self,
        progress: Progress,
        reason: HaltReason,
        now: float,
        steps: int,
        carry: Carry | None,
        shown: Shown,
        error: str | None,
    ) -> None:
        """carry: where it stands, for those who are to go on and have taken a step."""
        computed, taken = now - progress.submission.arrived - progress.queued, steps - progress.begun_at
        thought = thought_of(progress, carry, reason, shown, error, taken)
        self._observer.finished(reason, steps)
        queued = progress.queued
        finished = Finished(
            progress.index,
            steps,
            reason,
            *shown,
            error,
            queued,
            computed,
            progress.tally,
            thought,
            taken,
            progress.embedding,
        )
        self.events.append((progress.submission, finished))
