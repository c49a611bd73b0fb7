"""The engine: continuous depth batching for one model.

Rows at different depths share a step; a row that halts leaves at once and a waiting one takes its
slot at the next step (arXiv 2608.09444 calls this continuous depth batching). The engine is
synchronous and belongs to one thread: submissions and cancellations in, events out. It schedules
with NumPy alone; all tensors stay with the runner.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from model.halting import HaltReason
from model.manifest import Manifest
from service.engine.slots import Flags, Rows, Slots
from service.engine.waiting import WaitingQueue
from service.engine.work import Event, Finished, Stepped, Submission
from service.runners.layout import Bucket, Floats, Layout
from service.runners.runner import Batch, Computed, Runner

Events = list[tuple[Submission, Event]]


class Observer(Protocol):
    """Who wants to know what the engine does (metrics). Called from the engine's thread."""

    def stepped(self, rows: int, seconds: float) -> None:
        """One engine step moved so many rows."""

    def queued(self, seconds: float) -> None:
        """A problem found a slot after so long."""

    def finished(self, reason: HaltReason, steps: int) -> None:
        """A problem is done."""

    def load(self, running: int, waiting: int, slots: int) -> None:
        """How full the engine is, after every change."""


@dataclass(frozen=True)
class EngineLimits:
    """How much one engine takes on."""

    slots: int = 64  # problems that think at the same time
    queue_steps: int = 65_536  # steps that may wait; past that, requests are refused
    stall_seconds: float = 30.0  # a step that takes longer means that the engine hangs


class Engine:
    """One model's running batch and the queue in front of it."""

    def __init__(
        self,
        manifest: Manifest,
        runner: Runner,
        slots: int,
        observer: Observer,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.slots = Slots(slots, manifest.scores)
        self.waiting = WaitingQueue()
        self._layout = Layout(manifest)
        self._runner = runner
        self._observer = observer
        self._clock = clock
        self._cancelled: list[Submission] = []
        self._events: Events = []
        self._plan: list[Batch] | None = None  # who steps with whom; None when somebody came or went

    @property
    def running(self) -> int:
        """Problems in slots."""
        return len(self.slots.occupied) - self.slots.free

    @property
    def idle(self) -> bool:
        return not (self.running or self.waiting or self._cancelled)

    def submit(self, submission: Submission) -> None:
        """Queue a submission's problems; they take slots from the next step on."""
        self.waiting.push(submission)

    def cancel(self, submission: Submission) -> None:
        """Drop a submission at the next step; what has already finished is not disturbed."""
        self._cancelled.append(submission)

    def step(self) -> Events:
        """One step of every running row: aborts, admits, computes, decides, emits, releases."""
        self._events = []
        self._apply_cancellations()
        self._admit()
        began = self._clock()
        rows, logits, scores = self._compute(self._batches())
        now = self._clock()
        if len(rows):
            self._observer.stepped(len(rows), now - began)
            halted, spent, late = self.slots.advance(rows, scores, now)
            self._emit_steps(rows, logits, scores)
            self._finish(rows, logits, scores, halted, spent, late, now)
        self._observer.load(self.running, len(self.waiting), len(self.slots.occupied))
        return self._events

    def _apply_cancellations(self) -> None:
        now = self._clock()
        for submission in self._cancelled:
            for index in self.waiting.cancel(submission):
                self._end(submission, Finished(index, 0, HaltReason.CANCELLED))
            for slot in self.slots.holding(submission):
                self._leave(slot, HaltReason.CANCELLED, now)
        self._cancelled = []

    def _admit(self) -> None:
        """Fill the free slots from the queue, embedding together what shares a bucket."""
        now = self._clock()
        arrivals: dict[Bucket, list[int]] = defaultdict(list)
        for _ in range(min(self.slots.free, len(self.waiting))):
            work = self.waiting.pop(now)
            bucket = self._layout.bucket(self._layout.lengths(work.problem.tensors))
            arrivals[bucket].append(self.slots.take(work, bucket, now))
            self._plan = None
            self._observer.queued(now - work.submission.arrived)
        for bucket, slots in arrivals.items():
            problems = [self.slots.holder(slot).problem.tensors for slot in slots]
            try:
                self._runner.admit(slots, problems, bucket)
            except Exception as error:  # noqa: BLE001  whatever a backend raises fails these rows alone
                for slot in slots:
                    self._leave(slot, HaltReason.ERROR, now, error=f"the problem cannot be embedded: {error}")

    def _batches(self) -> list[Batch]:
        """Micro-batches of rows of one bucket, of a size that suits the device."""
        if self._plan is not None:
            return self._plan
        groups: dict[Bucket, list[int]] = defaultdict(list)
        for slot in self.slots.thinking().tolist():
            groups[self.slots.bucket[slot]].append(slot)
        self._plan = []
        for bucket, group in groups.items():
            size = self._runner.rows_per_batch(bucket)
            self._plan += [group[at : at + size] for at in range(0, len(group), size)]
        return self._plan

    def _compute(self, batches: list[Batch]) -> tuple[Rows, Floats, Floats]:
        """Step all batches: (slots, logits (R, C), scores (R, S)) of the rows that came through."""
        rows: list[int] = []
        sound: list[Computed] = []
        for batch, outcome in zip(batches, self._runner.step(batches) if batches else [], strict=True):
            if isinstance(outcome, Exception):
                for slot in batch:
                    self._leave(slot, HaltReason.ERROR, self._clock(), error=f"the step failed: {outcome}")
            else:
                rows += batch
                sound.append(outcome)
        if not rows:
            return np.zeros(0, np.intp), np.zeros((0, 0)), np.zeros((0, 0))
        logits = np.concatenate([outcome.logits for outcome in sound])
        scores = np.concatenate([outcome.scores for outcome in sound])
        if np.isfinite(logits).all():
            return np.array(rows, np.intp), logits, scores
        finite = np.isfinite(logits.reshape(len(rows), -1)).all(axis=1)
        for place in np.flatnonzero(~finite):
            self._leave(
                rows[place], HaltReason.ERROR, self._clock(), error="the model's readout is not finite"
            )
        return np.array(rows, np.intp)[finite], logits[finite], scores[finite]

    def _emit_steps(self, rows: Rows, logits: Floats, scores: Floats) -> None:
        for place in np.flatnonzero(self.slots.every_step[rows]):
            slot = int(rows[place])
            work = self.slots.holder(slot)
            state = self._runner.state(slot) if work.problem.with_state else None
            step = int(self.slots.depth[slot])
            self._events.append(
                (work.submission, Stepped(work.index, step, logits[place], scores[place], state))
            )

    def _finish(
        self, rows: Rows, logits: Floats, scores: Floats, halted: Flags, spent: Flags, late: Flags, now: float
    ) -> None:
        for place in np.flatnonzero(halted | spent | late):
            if halted[place]:
                reason = HaltReason.HALTED
            elif spent[place]:
                reason = HaltReason.BUDGET
            else:
                reason = HaltReason.DEADLINE
            self._leave(int(rows[place]), reason, now, logits[place], scores[place])

    def _leave(
        self,
        slot: int,
        reason: HaltReason,
        now: float,
        logits: Floats | None = None,
        scores: Floats | None = None,
        error: str | None = None,
    ) -> None:
        """Empty a slot and say how its problem ended."""
        work = self.slots.holder(slot)
        wants_state = work.problem.with_state and logits is not None
        started = float(self.slots.started[slot])
        finished = Finished(
            index=work.index,
            steps=int(self.slots.depth[slot]),
            reason=reason,
            logits=logits,
            scores=scores,
            state=self._runner.state(slot) if wants_state else None,
            error=error,
            queue_seconds=started - work.submission.arrived,
            compute_seconds=now - started,
        )
        self._runner.release(slot)
        self.slots.release(slot)
        self._plan = None
        self._end(work.submission, finished)

    def _end(self, submission: Submission, finished: Finished) -> None:
        self._observer.finished(finished.reason, finished.steps)
        self._events.append((submission, finished))
