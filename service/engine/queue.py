"""The queue in front of the slots: whoever is out of time first, then whoever has had least."""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import dataclass, field
from itertools import count

from service.engine.ledger import Ledger
from service.engine.messages import Submission, Thought, Trajectory
from service.engine.tally import Tally
from service.runners.runner import Carry


@dataclass(eq=False)
class Progress:
    """One problem, and what it takes along when it goes into a slot and comes out again."""

    submission: Submission
    index: int
    carry: Carry
    since: float  # when it began to wait, on the engine's clock
    queued: float = 0.0  # seconds it had waited before that
    held_for: int = 0  # steps running for which its criterion has held
    embedding: float = 0.0  # seconds that it took to be embedded, with others
    begun_at: int = 0  # the depth at which this request began
    steered: int = 0  # the last step before which its state was changed
    tally: Tally | None = None
    deadline: float | None = None  # on the engine's clock
    stopped: bool = False  # by its caller: it takes no step more than it must to answer
    gone: bool = field(default=False)  # taken or cancelled; the queues drop it when they meet it
    timed: bool = field(default=False)  # among the deadlines

    @property
    def trajectory(self) -> Trajectory:
        return self.submission.trajectories[self.index]


class WaitingQueue:
    """Problems that wait for a slot.

    A problem whose deadline has passed while it waited goes first: it takes one step and leaves, which
    is the best that can still be done for it and costs others one step.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lines: dict[Submission, deque[Progress]] = {}
        self._deadlines: list[tuple[float, int, Progress]] = []
        self._order = count()
        self._length = 0
        self.steps = 0  # the most that all of them may take

    def __len__(self) -> int:
        return self._length

    def push(self, submission: Submission, now: float) -> None:
        """Queue every problem of a submission, in which the ledger has entered it."""
        line = self._lines[submission] = deque()
        for index, trajectory in enumerate(submission.trajectories):
            progress = Progress(
                submission, index, Carry(trajectory.row), since=now, deadline=trajectory.deadline
            )
            if trajectory.before is not None:
                _go_on(progress, trajectory.before)
            if trajectory.tallies and progress.tally is None:
                progress.tally = Tally()
            line.append(progress)
            self._count(progress, 1)
            self._watch(progress)

    def push_back(self, progress: Progress) -> None:
        """Queue a problem that had a slot, before its siblings."""
        progress.gone = False
        self._lines.setdefault(progress.submission, deque()).appendleft(progress)
        self._count(progress, 1)
        self._watch(progress)

    def first(self, now: float) -> Progress:
        """Whose turn it is; it stays in the queue, which must not be empty."""
        while self._deadlines and self._deadlines[0][2].gone:
            heapq.heappop(self._deadlines)[2].timed = False
        if self.overdue(now):
            return self._deadlines[0][2]
        line = self._lines[self._ledger.next()]
        while line[0].gone:
            line.popleft()
        return line[0]

    def everybody(self) -> list[Progress]:
        """All who wait, in the order in which their submissions came."""
        return [progress for line in self._lines.values() for progress in line if not progress.gone]

    def overdue(self, now: float) -> bool:
        """Whether somebody may be out of time."""
        return bool(self._deadlines) and self._deadlines[0][0] <= now

    def of(self, submission: Submission) -> list[Progress]:
        """A submission's problems that wait."""
        return [progress for progress in self._lines.get(submission, ()) if not progress.gone]

    def hurry(self, progress: Progress) -> None:
        """A problem that waits is out of time from now on."""
        progress.deadline, progress.timed = -math.inf, False
        self._watch(progress)

    def take(self, progress: Progress) -> Progress:
        """Take a problem out of the queue."""
        progress.gone = True
        self._count(progress, -1)
        line = self._lines[progress.submission]
        while line and line[0].gone:
            line.popleft()
        if not line:
            del self._lines[progress.submission]
        return progress

    def cancel(self, submission: Submission) -> list[Progress]:
        """Take all of a submission's problems out."""
        return [self.take(progress) for progress in self.of(submission)]

    def _count(self, progress: Progress, one: int) -> None:
        self._length += one
        self.steps += one * (progress.trajectory.max_steps - progress.carry.depth)

    def _watch(self, progress: Progress) -> None:
        if progress.deadline is None or progress.timed:
            return
        if len(self._deadlines) > 2 * self._length + 64:  # of those who have gone; do not keep them alive
            self._deadlines = [entry for entry in self._deadlines if not entry[2].gone]
            heapq.heapify(self._deadlines)
        progress.timed = True
        heapq.heappush(self._deadlines, (progress.deadline, next(self._order), progress))


def _go_on(progress: Progress, before: Thought) -> None:
    """A problem that has been thought about before stands where it stood."""
    progress.carry, progress.begun_at = before.carry, before.carry.depth
    progress.held_for = before.held_for if progress.trajectory.goes_on_as_before else 0
    if progress.trajectory.tallies and before.tally is not None:
        progress.tally = before.tally.copy()
