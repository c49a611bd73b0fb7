"""One engine, its thread, and the door between that thread and the event loop."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from model.bundle import Bundle
from model.codecs import Codec
from model.halting import HaltReason
from service.engine.engine import Engine, EngineLimits, Events, Observer
from service.engine.work import Event, Finished, Submission
from service.errors import Overloaded, Unavailable
from service.runners.layout import Layout
from service.runners.runner import Runner

log = logging.getLogger("fathom")
LONGEST_RETRY = 60  # seconds; a busier server than that should be retried elsewhere
JOIN_SECONDS = 5  # a step that is still running then hangs; the process ends without it


class Ticket:
    """What a caller holds while its submission is thought about; used on the event loop only."""

    def __init__(self, worker: Worker, submission: Submission) -> None:
        self.submission = submission
        self._worker = worker
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._unfinished = set(range(len(submission.problems)))
        self._cancelled = False

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Events in order, until every problem has had its Finished."""
        left = len(self.submission.problems)
        while left:
            event = await self._events.get()
            left -= isinstance(event, Finished)
            yield event

    def cancel(self) -> None:
        """Free the slots at the next step. Harmless when repeated or when all is finished."""
        if self._unfinished and not self._cancelled:
            self._cancelled = True
            self._worker._cancel(self.submission)

    def _put(self, event: Event) -> bool:
        """Hand over an event; True with the last one."""
        if isinstance(event, Finished):
            self._unfinished.discard(event.index)
        self._events.put_nowait(event)
        return not self._unfinished

    def _fail(self, message: str) -> None:
        """Finish what has not finished, with an error."""
        for index in sorted(self._unfinished):
            self._put(Finished(index, 0, HaltReason.ERROR, error=message))


@dataclass
class _Inbox:
    """Commands on their way to the engine's thread; guarded by the worker's condition."""

    submissions: list[Submission] = field(default_factory=list)
    cancellations: list[Submission] = field(default_factory=list)
    closing: bool = False


class Worker:
    """Owns an engine's thread. Everything public is called on the event loop."""

    def __init__(
        self, bundle: Bundle, codec: Codec, runner: Runner, limits: EngineLimits, observer: Observer
    ) -> None:
        self.bundle = bundle
        self.codec = codec
        self.runner = runner
        self.limits = limits
        self._layout = Layout(bundle.manifest)
        self._engine = Engine(bundle.manifest, runner, limits.slots, observer)
        self._inbox = _Inbox()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"engine-{bundle.manifest.name}", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tickets: dict[Submission, Ticket] = {}
        self._all_finished = asyncio.Event()
        self._all_finished.set()
        self._admitting = True
        self._not_ready: str | None = "starting: no step has run yet"
        self._last_step = time.monotonic()
        self._steps_per_second = 0.0

    def start(self) -> None:
        """Start the thread; it takes a real step before the worker is ready."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def submit(self, submission: Submission) -> Ticket:
        """Queue a submission, or refuse it at once: Overloaded, or Unavailable while not ready."""
        for problem in submission.problems:
            self._layout.lengths(problem.tensors)  # malformed tensors fail here, not in the engine's thread
        if (reason := self.health()) is not None:
            raise Unavailable(f"the model is not available, try again later ({reason})")
        with self._changed:
            queued = self.waiting_steps
            # An empty queue takes anything, or a request larger than the queue could never succeed.
            if queued and queued + submission.steps > self.limits.queue_steps:
                raise Overloaded(
                    f"{queued} steps are waiting and {self.limits.queue_steps} may; try again later",
                    retry_after=self._retry_after(queued),
                )
            if not self._tickets:
                self._last_step = time.monotonic()  # idle time is not a stall
            ticket = self._tickets[submission] = Ticket(self, submission)
            self._all_finished.clear()
            self._inbox.submissions.append(submission)
            self._changed.notify()
        return ticket

    def health(self) -> str | None:
        """None when ready for work; otherwise why not."""
        if self._not_ready is not None:
            return self._not_ready
        stuck_for = time.monotonic() - self._last_step
        if self._tickets and stuck_for > self.limits.stall_seconds:
            return f"stalled: there is work, but no step has finished for {stuck_for:.0f} s"
        return None if self._admitting else "draining"

    @property
    def running(self) -> int:
        """Problems in slots."""
        return self._engine.running

    @property
    def waiting(self) -> int:
        """Problems without a slot."""
        return len(self._engine.waiting) + sum(len(entry.problems) for entry in self._inbox.submissions)

    @property
    def waiting_steps(self) -> int:
        """The most steps that the waiting problems may take."""
        return self._engine.waiting.steps + sum(entry.steps for entry in self._inbox.submissions)

    def stop_admitting(self) -> None:
        """Refuse every submission from now on."""
        self._admitting = False

    async def drain(self, seconds: float) -> bool:
        """Stop admitting and let what runs finish; False if something still ran after `seconds`."""
        self.stop_admitting()
        try:
            await asyncio.wait_for(self._all_finished.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """Cancel what is left and join the thread. Harmless when repeated."""
        self.stop_admitting()
        with self._changed:
            self._inbox.cancellations += list(self._tickets)
            self._inbox.closing = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(JOIN_SECONDS)
        if self._thread.is_alive():  # a step that never returns keeps its runner, but not its callers
            self._not_ready = "failed: a step never returned"
            self._fail_everything()
        else:
            self.runner.close()

    @property
    def hangs(self) -> bool:
        """Whether the engine's thread has outlasted `close`: a step of the backend never returned."""
        return self._inbox.closing and self._thread.is_alive()

    def _cancel(self, submission: Submission) -> None:
        with self._changed:
            self._inbox.cancellations.append(submission)
            self._changed.notify()

    def _retry_after(self, queued: int) -> float:
        """Seconds until the queue has gone at the present speed."""
        return min(LONGEST_RETRY, max(1, math.ceil(queued / max(self._steps_per_second, 1))))

    # --- the engine's thread ---

    def _run(self) -> None:
        try:
            self._probe()
            self._not_ready = None
            while self._take_commands():
                began, rows = time.monotonic(), self._engine.running
                if events := self._engine.step():
                    self._call_on_loop(self._dispatch, events)
                self._last_step = time.monotonic()
                pace = max(rows, self._engine.running) / max(self._last_step - began, 1e-6)
                self._steps_per_second += 0.1 * (pace - self._steps_per_second)
        except Exception as error:
            log.exception("the engine of %s has failed", self.bundle.manifest.name)
            self._not_ready = f"failed: {error!r}; see the log and restart the service"
            self._call_on_loop(self._fail_everything)

    def _probe(self) -> None:
        """Take one real step, so that readiness means that the model answers."""
        tensors = self.codec.encode(self.codec.example, "input")
        self.runner.admit([0], [tensors], self._layout.bucket(self._layout.lengths(tensors)))
        outcome = self.runner.step([[0]])[0]
        self.runner.release(0)
        if isinstance(outcome, Exception):
            raise outcome

    def _take_commands(self) -> bool:
        """Wait for work and hand it to the engine; False when it is time to stop."""
        with self._changed:
            while self._engine.idle and not (self._inbox.submissions or self._inbox.cancellations):
                if self._inbox.closing:
                    return False
                self._changed.wait()
            inbox, self._inbox = self._inbox, _Inbox(closing=self._inbox.closing)
            for submission in inbox.submissions:
                self._engine.submit(submission)
            for submission in inbox.cancellations:
                self._engine.cancel(submission)
        return True

    def _call_on_loop(self, callback: Callable[..., None], *arguments: object) -> None:
        assert self._loop is not None, "the engine ran before start"
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:  # the loop has closed: nobody is left to hear it
            log.debug("the engine of %s spoke after the event loop had closed", self.bundle.manifest.name)

    # --- back on the event loop ---

    def _dispatch(self, events: Events) -> None:
        for submission, event in events:
            ticket = self._tickets.get(submission)
            if ticket is not None and ticket._put(event):
                del self._tickets[submission]
        if not self._tickets:
            self._all_finished.set()

    def _fail_everything(self) -> None:
        for ticket in self._tickets.values():
            ticket._fail(f"the engine has {self._not_ready}")
        self._tickets.clear()
        self._all_finished.set()
