"""A client process: takes one cell at a time through a pipe, carries it out, sends back its samples.

Two loops run here. The *closed* loop is a number of users, each sending its next request when the last is
answered. The *open* loop is a pacer on a thread of its own: the timers of event loops are rounded up to
whole milliseconds, a thread's wait is not, so requests leave within a fraction of a millisecond of when
they are due.
"""

import asyncio
import contextlib
import gc
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection as Pipe

from loadtest.drive.budgets import Mix
from loadtest.drive.client import Client, Shot
from loadtest.drive.messages import Finished, Health, Job, Progress, Setup, Stop
from loadtest.drive.samples import Sample

TICK_S = 0.02
PROGRESS_S = 0.25


def main(pipe: Pipe, setup: Setup) -> None:
    """The life of a client process: ready, then one Finished for every Job, until the pipe closes."""
    # A Ctrl-C reaches the whole group; the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.setswitchinterval(0.0005)  # the pacer gets its turn within half a millisecond
    gc.set_threshold(50_000, 50, 50)  # a collection in the middle of a request would be measured as latency
    _allow_many_connections()
    with (
        contextlib.suppress(BrokenPipeError, ConnectionResetError),  # the parent has gone: nobody to tell
        asyncio.Runner(loop_factory=_loop_factory()) as runner,
    ):
        runner.run(_serve(pipe, setup))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop where there is one, because it costs less. It comes with uvicorn, but not on Windows."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _allow_many_connections() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _serve(pipe: Pipe, setup: Setup) -> None:
    sender = _Sender(pipe, setup)
    running: set[asyncio.Task[None]] = set()
    pipe.send("ready")
    while True:
        try:
            message = await asyncio.to_thread(pipe.recv)
        except (EOFError, OSError):
            break
        if isinstance(message, Job):
            task = asyncio.create_task(sender.run(message))
            running.add(task)
            task.add_done_callback(running.discard)
        elif isinstance(message, Stop):
            sender.stop()
    sender.stop()
    for task in running:
        task.cancel()
    sender.client.close()


class _Sender:
    """Carries out jobs, one after the other."""

    def __init__(self, pipe: Pipe, setup: Setup) -> None:
        self.client = Client(setup.url, setup.headers, setup.dialect, setup.timeout_s)
        self._pipe = pipe
        self._cases = setup.cases
        self._stop = threading.Event()
        self._samples: list[Sample] = []
        self._lag_ms: list[float] = []
        self._sent = self._unfinished = self._users = 0
        self._quiet = asyncio.Event()  # nothing more will be sent, and nothing is in flight
        self._pacing = False

    def stop(self) -> None:
        """Ends the running cell: nothing more is started, and what is in flight is abandoned."""
        self._stop.set()
        self._unfinished += self.client.abandon()
        self._users = 0
        self._check_quiet()

    async def run(self, job: Job) -> None:
        """Carries out one job and sends its Finished."""
        gc.collect()
        self._samples, self._lag_ms, self._sent, self._unfinished = [], [], 0, 0
        self._stop.clear()
        self._quiet.clear()
        self.client.limit = job.limit
        self._users, self._pacing = job.users, bool(job.shots)
        # Made before the clock runs: what a request costs to make is not what it takes.
        requests = [self._prepared(shot.problem, shot.depth) for shot in job.shots]
        await asyncio.sleep(max(0.0, job.start - time.monotonic()))
        cpu, wall = time.process_time(), time.monotonic()
        ticker = asyncio.create_task(self._tick(job.start + job.warmup_s))
        for number in range(job.users):
            self._user(job, number)
        if job.shots:
            await asyncio.to_thread(self._pace, job, requests, asyncio.get_running_loop())
            self._pacing = False
            self._check_quiet()
        if job.users:
            await self._quiet.wait()
        cpu, wall = time.process_time() - cpu, time.monotonic() - wall
        self._check_quiet()
        await self._quiet.wait()
        ticker.cancel()
        health = Health(self._sent, self._unfinished, cpu, wall, tuple(self._lag_ms))
        self._pipe.send(Finished(self._samples, health))

    def _check_quiet(self) -> None:
        if not (self._users or self._pacing or self.client.open):
            self._quiet.set()

    def _prepared(self, problem: int, depth: int) -> bytes:
        return self.client.prepare(problem, self._cases[problem], depth)

    def _user(self, job: Job, number: int) -> None:
        """Closed loop: one request after the other until the cell's time is up."""
        draw = random.Random(f"{job.seed}:{number}")
        shot_number = job.first_number + number * job.number_step

        def ask() -> None:
            nonlocal shot_number
            problem = draw.randrange(len(self._cases))
            depth = job.depth
            if isinstance(depth, Mix):
                depth = depth.draw(draw, self._cases[problem].max_steps)
            cancel_s = draw.random() * job.cancel_after_s if draw.random() < job.cancel else None
            request = self._prepared(problem, depth)
            due = time.monotonic()
            if self._stop.is_set() or due >= job.start + job.length_s:
                self._users = max(0, self._users - 1)
                self._check_quiet()
                return
            shot = Shot(shot_number, problem, depth, due, due - job.start >= job.warmup_s, False, cancel_s)
            shot_number += job.users * job.number_step
            self._send(shot, request, job.start, ask)

        ask()

    def _pace(self, job: Job, requests: list[bytes], loop: asyncio.AbstractEventLoop) -> None:
        """Open loop: hands requests to the event loop when they are due. Runs on a thread."""
        place = 0
        while place < len(job.shots):
            if self._stop.wait(max(0.0, job.shots[place].due - time.monotonic())):
                return
            begin, now = place, time.monotonic()
            while place < len(job.shots) and job.shots[place].due <= now:
                place += 1
            place = max(place, begin + 1)
            loop.call_soon_threadsafe(self._send_some, job, requests, begin, place)

    def _send_some(self, job: Job, requests: list[bytes], begin: int, end: int) -> None:
        if not self._stop.is_set():
            for place in range(begin, end):
                self._send(job.shots[place], requests[place], job.start, self._check_quiet)

    def _send(self, shot: Shot, request: bytes, start: float, then: Callable[[], None]) -> None:
        def told(sample: Sample) -> None:
            self._samples.append(sample)
            then()

        self._sent += 1
        self.client.send(shot, request, start, self._cases[shot.problem].label, told)

    async def _tick(self, begin: float) -> None:
        """Measures how late timers fire, and tells the parent how things stand."""
        told, told_samples = time.monotonic(), 0
        while True:
            expected = time.monotonic() + TICK_S
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            if expected >= begin:
                self._lag_ms.append((now - expected) * 1e3)
            if now - told >= PROGRESS_S:
                recent = self._samples[told_samples:]
                told, told_samples = now, len(self._samples)
                self._pipe.send(
                    Progress(
                        self.client.open,
                        Counter(sample.outcome for sample in recent),
                        tuple(sample.latency_ms for sample in recent if sample.outcome == "ok"),
                        tuple(sample.late_ms for sample in recent),
                    )
                )
