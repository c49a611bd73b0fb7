"""The queue in front of the slots: first come, first served, and whoever is out of time before that."""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from itertools import count

from service.engine.work import Problem, Submission


@dataclass(eq=False)
class Waiting:
    """One problem on its way into a slot."""

    submission: Submission
    index: int
    gone: bool = field(default=False)  # taken or cancelled; the queues drop it when they meet it

    @property
    def problem(self) -> Problem:
        return self.submission.problems[self.index]


class WaitingQueue:
    """Problems that wait for a slot, weighed in the steps they may take.

    A problem whose deadline has passed while it waited goes first: it takes the one step that is
    owed to it and leaves, which is the best that can still be done for it and costs others one step.
    """

    def __init__(self) -> None:
        self.steps = 0
        self._line: deque[Waiting] = deque()
        self._deadlines: list[tuple[float, int, Waiting]] = []
        self._by_submission: dict[Submission, list[Waiting]] = {}
        self._order = count()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def push(self, submission: Submission) -> None:
        """Queue every problem of a submission."""
        entries = [Waiting(submission, index) for index in range(len(submission.problems))]
        self._by_submission[submission] = entries
        for entry in entries:
            self._line.append(entry)
            if entry.problem.deadline is not None:
                heapq.heappush(self._deadlines, (entry.problem.deadline, next(self._order), entry))
        self.steps += submission.steps
        self._length += len(entries)

    def pop(self, now: float) -> Waiting:
        """The next problem for a slot. The queue must not be empty."""
        while self._deadlines and (self._deadlines[0][2].gone or self._deadlines[0][0] <= now):
            entry = heapq.heappop(self._deadlines)[2]
            if not entry.gone:
                return self._leave(entry)
        while self._line[0].gone:
            self._line.popleft()
        return self._leave(self._line.popleft())

    def cancel(self, submission: Submission) -> list[int]:
        """Take a submission's waiting problems out; returns their places in the submission."""
        entries = [entry for entry in self._by_submission.get(submission, []) if not entry.gone]
        return [self._leave(entry).index for entry in entries]

    def _leave(self, entry: Waiting) -> Waiting:
        entry.gone = True
        self.steps -= entry.problem.max_steps
        self._length -= 1
        siblings = self._by_submission[entry.submission]
        if all(sibling.gone for sibling in siblings):
            del self._by_submission[entry.submission]
        if not self._length:  # what is left in the two queues has gone; do not keep it alive
            self._line.clear()
            self._deadlines.clear()
        return entry
