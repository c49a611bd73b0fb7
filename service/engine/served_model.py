"""One engine, its thread, and the door between that thread and the event loop."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from enum import Enum

from model.bundle import Bundle
from model.codecs import Codec
from model.row import Layout
from service.engine.admission import Depths, refuse_if_full, weight_of
from service.engine.departures import Events
from service.engine.engine import Engine, EngineLimits
from service.engine.inbox import Inbox
from service.engine.messages import Event, Finished, Submission
from service.engine.observer import Observer
from service.engine.ticket import Budget, Ticket
from service.errors import Overloaded, StartupError, Unavailable
from service.runners.runner import Carry, Runner

log = logging.getLogger("fathom")
JOIN_SECONDS = 5  # a step that is still running then hangs; the process ends without it
RESTARTS = 5  # in a row; an engine that fails once more has failed for good
BACK_OFF_SECONDS = 0.2, 5.0  # before the first of them, doubling up to
STEADY_SECONDS = 60  # an engine that ran for so long starts counting anew
PROBE_STEPS = 3  # the first is slow, and would be taken for what steps cost
SUSPICIOUS = 8  # failed batches in a row after which the model must show that it still works


class State(Enum):
    """What an engine is doing."""

    STARTING = "starting: no step has run yet"
    READY = "ready"
    RESTARTING = "restarting after a failure"
    FAILED = "failed"
    CLOSED = "closed"


class ServedModel:
    """Owns an engine's thread. Everything public is called on the event loop.

    An engine that breaks down is built anew, with a runner from `opener`; whoever was in it is told.
    """

    def __init__(
        self,
        bundle: Bundle,
        codec: Codec,
        opener: Callable[[], Runner],
        limits: EngineLimits,
        observer: Observer,
        budget: Budget,
    ) -> None:
        """Opens the first runner. Raises StartupError where it cannot be had."""
        self.bundle = bundle
        self.codec = codec
        self.limits = limits
        self.layout = Layout(bundle.manifest)
        self.runner = opener()
        self._opener = opener
        self._observer = observer
        self._budget = budget
        self._engine = self._new_engine()
        self._inbox = Inbox(lambda: self.runner.wake())
        self._thread = threading.Thread(target=self._run, name=f"engine-{bundle.manifest.name}", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tickets: dict[Submission, Ticket] = {}
        self._news: deque[Events] = deque()  # from the engine's thread
        self._called = False  # whether the loop is about to look at them
        self._depths = Depths()
        self._all_finished = asyncio.Event()
        self._all_finished.set()
        self._first_step = asyncio.Event()  # taken, or failed
        self._admitting = True
        self._state, self._fault = State.STARTING, ""
        self._stepped_at = time.monotonic()  # when a step last came through

    def start(self) -> None:
        """Start the thread; it takes a real step before the model is ready."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def started(self) -> None:
        """Wait for the first step. Raises StartupError where the model cannot take it."""
        await self._first_step.wait()
        if self._state is State.FAILED:
            raise StartupError(f"{self.bundle.folder}: the model cannot take a step: {self._fault}")

    def submit(self, submission: Submission, reserved: int = 0, queue_seconds: float | None = None) -> Ticket:
        """Queue a submission, or refuse it at once: Overloaded, or Unavailable while not ready.

        reserved: bytes of steps that must all be kept until they are read. queue_seconds: how long it may
        have to wait, where that is not the limit of all.
        """
        if (reason := self.health()) is not None:
            raise Unavailable(f"the model is not available, try again later ({reason})")
        if reserved and self._budget.used + reserved > self._budget.total:
            raise Overloaded("the steps of other requests fill what is set aside for them", retry_after=1)
        weight = weight_of(submission, self.runner.cost, self._depths)
        most = queue_seconds or self.limits.queue_seconds
        refuse_if_full(
            submission, weight, self._tickets.values(), self.limits.slots, self.runner.workers, most
        )
        if not self._tickets:
            self._stepped_at = time.monotonic()  # idle time is not a stall
        inbox = self._inbox
        ticket = Ticket(submission, inbox.cancel, self._budget, reserved, weight, inbox.stop)
        self._tickets[submission] = ticket
        self._all_finished.clear()
        inbox.submit(submission)
        return ticket

    def steps_under_way(self, key: str) -> int:
        """Steps that a key's problems in slots have taken; about, for the engine's thread goes on."""
        slots = self._engine.slots
        return sum(
            int(slots.depth[slot])
            for slot, progress in enumerate(slots.progress)
            if progress is not None and progress.submission.key == key
        )

    def health(self) -> str | None:
        """None when ready for work; otherwise why not."""
        if self._state is not State.READY:
            return f"{self._state.value}: {self._fault}" if self._fault else self._state.value
        stuck_for = time.monotonic() - self._stepped_at
        if self._tickets and stuck_for > self.limits.stall_seconds:
            return f"stalled: there is work, but no step has finished for {stuck_for:.0f} s"
        return None if self._admitting else "draining"

    @property
    def observer(self) -> Observer:
        """Who is told of what its engine does."""
        return self._observer

    @property
    def state(self) -> State:
        """FAILED means for good."""
        return self._state

    @property
    def running(self) -> int:
        """Problems in slots."""
        return self._engine.running

    @property
    def waiting(self) -> int:
        """Problems without a slot."""
        return len(self._engine.waiting) + sum(len(entry.trajectories) for entry in self._inbox.submissions)

    @property
    def waiting_steps(self) -> int:
        """The most steps that the waiting problems may take."""
        return self._engine.waiting.steps + sum(entry.steps for entry in self._inbox.submissions)

    def stop_admitting(self) -> None:
        """Refuse every submission from now on."""
        self._admitting = False

    async def drain(self, seconds: float | None) -> bool:
        """Stop admitting and let what runs finish; False if something still ran after `seconds`, if given."""
        self.stop_admitting()
        try:
            await asyncio.wait_for(self._all_finished.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """Cancel what is left and let the thread end. Harmless when repeated."""
        self.stop_admitting()
        self._inbox.close(self._tickets)

    async def closed(self) -> None:
        """Wait for the thread's end after `close`; where a step never returns, its callers are told so."""
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, JOIN_SECONDS)
        if self._thread.is_alive():
            self._state, self._fault = State.FAILED, "a step never returned"
            self._fail_everything()

    @property
    def hangs(self) -> bool:
        """Whether the engine's thread has outlasted `closed`: a step of the backend never returned."""
        return self._inbox.closing and self._thread.is_alive()

    def stop(self, key: str, id_: str) -> int:
        """End a key's requests of this id with their best answers so far; returns how many problems."""
        found = [
            ticket
            for submission, ticket in self._tickets.items()
            if (submission.key, submission.id) == (key, id_)
        ]
        return sum(ticket.stop() for ticket in found)

    # --- the engine's thread ---

    def _new_engine(self) -> Engine:
        return Engine(self.bundle.manifest, self.runner, self.limits, self._observer)

    def _run(self) -> None:
        failures, began = 0, time.monotonic()
        while True:
            try:
                if failures:
                    self._observer.restarted()
                    self.runner = self._opener()
                    self._engine = self._new_engine()
                self._probe()
                self._state, self._fault, began = State.READY, "", time.monotonic()
                self._call_on_loop(self._first_step.set)
                self._serve()
                self.runner.close()
                self._state = State.CLOSED
                return
            except Exception as error:
                log.exception("the engine of %s has failed", self.bundle.manifest.name)
                steady = time.monotonic() - began > STEADY_SECONDS
                failures = 1 if steady else failures + 1
                for_good = self._state is State.STARTING or failures > RESTARTS
                self._fault = repr(error)
                self._state = State.FAILED if for_good else State.RESTARTING
                self._observer.load(0, 0, self.limits.slots)
                self._call_on_loop(self._fail_everything)
                with suppress(Exception):  # it may be what has failed
                    self.runner.close()
                first, longest = BACK_OFF_SECONDS
                if for_good or self._inbox.closes_within(min(first * 2 ** (failures - 1), longest)):
                    return

    def _serve(self) -> None:
        """Step until it is time to stop."""
        while self._take_commands():
            steps = self._engine.steps
            if events := self._engine.step():
                self._tell(events)
            if self._engine.steps != steps or self._engine.idle:
                self._stepped_at = time.monotonic()
            if self._engine.failures >= SUSPICIOUS and not self._engine.flying:
                self._probe()
                self._engine.failures = 0

    def _probe(self) -> None:
        """Take real steps in a slot beyond the engine's, so that ready means that the model answers."""
        slot = self.limits.slots
        row = self.layout.row(self.codec.encode(self.codec.example, "input"))
        self.runner.put(slot, Carry(row))
        for _ in range(PROBE_STEPS):
            self.runner.launch([slot], [])
            landings = self.runner.land()
            while not landings:  # somebody woke us
                landings = self.runner.land()
            if landings[0].error is not None:
                break
        self.runner.release(slot)
        if landings[0].error is not None:
            raise landings[0].error

    def _take_commands(self) -> bool:
        """Wait for work and hand it to the engine; False when it is time to stop."""
        commands = self._inbox.take(wait=self._engine.idle)
        if commands is None:
            return False
        for submission in commands.submissions:
            self._engine.submit(submission)
        for submission in commands.stops:
            self._engine.stop(submission)
        for submission in commands.cancellations:
            self._engine.cancel(submission)
        return True

    def _tell(self, events: Events) -> None:
        """Let the loop know; where it is behind, it hears of several steps in one call."""
        self._news.append(events)
        if not self._called:
            self._called = True
            self._call_on_loop(self._dispatch)

    def _call_on_loop(self, callback: Callable[..., None], *arguments: object) -> None:
        assert self._loop is not None, "the engine ran before start"
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:  # the loop has closed: nobody is left to hear it
            log.debug("the engine of %s spoke after the event loop had closed", self.bundle.manifest.name)

    # --- back on the event loop ---

    def _dispatch(self) -> None:
        """Hand over all that has come, to each ticket at once."""
        self._called = False  # before anything is taken: what comes from now on calls again
        news: dict[Submission, list[Event]] = {}
        while self._news:
            for submission, event in self._news.popleft():
                news.setdefault(submission, []).append(event)
        for submission, events in news.items():
            ticket = self._tickets.get(submission)
            if ticket is None:
                continue
            for event in events:
                if isinstance(event, Finished):
                    self._depths.saw(submission.trajectories[event.index], event)
            dropped = ticket.dropped_steps
            if ticket.put(*events):
                del self._tickets[submission]
            if ticket.dropped_steps > dropped:
                self._observer.dropped(ticket.dropped_steps - dropped)
        if not self._tickets:
            self._all_finished.set()

    def _fail_everything(self) -> None:
        """Tell everybody; what is on its way to an engine that is gone goes with it."""
        self._inbox.forget_submissions()
        for ticket in self._tickets.values():
            ticket.fail(f"the engine is {self.health()}")
        self._tickets.clear()
        self._all_finished.set()
        self._first_step.set()
