"""What a caller holds while its submission is thought about, and how much may be held for all callers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from model.halting import HaltReason
from service.engine.messages import Event, Finished, Stepped, Submission


@dataclass
class Budget:
    """Bytes of steps that may be held for callers: for each of them, and for all together."""

    each: int
    total: int
    used: int = 0


AtOnce = Callable[[Sequence[Event]], bool]


class Ticket:
    """The events of one submission, in order; used on the event loop only.

    Steps that are not read in time are dropped once the budget is used up, oldest first and never the
    last of a problem: a slow reader holds no slot and bounded memory. Whoever must not miss a step has
    had its bytes taken from the budget beforehand (`reserved`).
    """

    def __init__(
        self,
        submission: Submission,
        cancel: Callable[[Submission], None],
        budget: Budget,
        reserved: int = 0,
        weight: float = 0.0,
        stop: Callable[[Submission], None] = lambda _: None,
    ) -> None:
        self.submission = submission
        self.weight = weight  # seconds of compute, about
        self.dropped_steps = 0
        self.stopped = False  # by its caller, who wants what there is
        self._cancel = cancel
        self._stop = stop
        self._budget = budget
        self._reserved = reserved
        budget.used += reserved
        self._unread = 0  # bytes
        self._first: list[Event] = []  # older than what is in the line; none of them may be dropped
        self._line: deque[Event] = deque()
        self._came = asyncio.Event()
        self._awaited = False  # whether the reader has read all there was, and waits
        self._at_once: AtOnce | None = None
        self._fault: Exception | None = None  # of who takes events at once
        self._unfinished = set(range(len(submission.trajectories)))
        self._cancelled = self._closed = False
        self._watchers: list[tuple[Callable[[Finished], None], Callable[[], None]]] = []

    @property
    def unfinished(self) -> int:
        """Problems that have not ended."""
        return len(self._unfinished)

    async def __aiter__(self) -> AsyncIterator[list[Event]]:
        """All that has come since the last time, until every problem has had its Finished."""
        left = len(self.submission.trajectories)
        while left:
            self._awaited = True
            await self._came.wait()
            self._awaited = False
            self._came.clear()
            if self._fault is not None:
                raise self._fault
            events = [*self._first, *self._line]
            self._forget()
            left -= sum(isinstance(event, Finished) for event in events)
            yield events

    def watch(self, ended: Callable[[Finished], None], closed: Callable[[], None] = lambda: None) -> None:
        """Have `ended` called with the end of every problem, read or not, and `closed` once nobody reads."""
        self._watchers.append((ended, closed))

    def offer(self, take: AtOnce) -> None:
        """Have `take` called with events as they come, while their reader waits and has none unread.

        Those that it takes, which it says, the reader does not get: nobody has to be woken for them, and
        nothing is held. What it raises, the reader does.
        """
        self._at_once = take

    def cancel(self) -> None:
        """Free the slots at the next step. Harmless when repeated or when all is finished."""
        if self._unfinished and not self._cancelled:
            self._cancelled = True
            self._cancel(self.submission)

    def stop(self) -> int:
        """End what has not ended, with its best answers so far; returns how many problems that are."""
        if self._unfinished and not self.stopped:
            self.stopped = True
            self._stop(self.submission)
        return self.unfinished

    def close(self) -> None:
        """Nobody reads any more."""
        self.cancel()
        if not self._closed:
            for _, closed in self._watchers:
                closed()
        self._closed = True
        self._forget()
        self._budget.used -= self._reserved
        self._reserved = 0

    def put(self, *events: Event) -> bool:
        """Hand over what has come at the same time; True with the last event."""
        for event in events:
            if isinstance(event, Finished):
                self._unfinished.discard(event.index)
                for ended, _ in self._watchers:
                    ended(event)
        if not (self._closed or self._taken(events)):
            for event in events:
                self._keep(event)
            self._came.set()
        return not self._unfinished

    def fail(self, message: str) -> None:
        """Finish what has not finished, with an error."""
        for index in sorted(self._unfinished):
            self.put(Finished(index, 0, HaltReason.ERROR, error=message))

    def _taken(self, events: Sequence[Event]) -> bool:
        """Whether nobody has to be woken for these."""
        if self._at_once is None or not self._awaited or self._line or self._first:
            return False
        try:
            return self._at_once(events)
        except Exception as fault:  # noqa: BLE001  whoever reads has to hear of it
            self._fault = fault
            self._came.set()
            return True

    def _keep(self, event: Event) -> None:
        if isinstance(event, Stepped) and not self._reserved:
            self._hold(event.nbytes)
        self._line.append(event)
        while self._line and self._is_over():
            oldest = self._line.popleft()
            if isinstance(oldest, Finished) or oldest.last:
                self._first.append(oldest)
            else:
                self._hold(-oldest.nbytes)
                self.dropped_steps += 1

    def _is_over(self) -> bool:
        return not self._reserved and (
            self._unread > self._budget.each or self._budget.used > self._budget.total
        )

    def _hold(self, size: int) -> None:
        self._unread += size
        self._budget.used += size

    def _forget(self) -> None:
        self._hold(-self._unread)
        self._first, self._line = [], deque()
