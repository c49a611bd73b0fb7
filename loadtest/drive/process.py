"""A client process: takes one cell at a time through a pipe, carries it out, sends back its samples.

Two loops run here. The *closed* loop is a number of users, each sending its next request when the last is
answered. The *open* loop is a pacer on a thread of its own: asyncio's timers are rounded up to whole
milliseconds, a thread's wait is not, so requests leave within a fraction of a millisecond of when they are
due.
"""

import asyncio
import contextlib
import gc
import itertools
import random
import signal
import sys
import threading
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from multiprocessing.connection import Connection

import httpx

from loadtest.drive.budgets import Mix
from loadtest.drive.client import Client, Shot
from loadtest.drive.problems import Problem
from loadtest.drive.protocol import Dialect
from loadtest.drive.samples import Sample

TICK_S = 0.02
PROGRESS_S = 0.25


@dataclass(frozen=True)
class Setup:
    """What a client process needs for all its cells."""

    url: str
    headers: dict[str, str]
    dialect: Dialect
    problems: tuple[Problem, ...]
    connections: int
    timeout_s: float


@dataclass(frozen=True)
class Job:
    """One process's share of a cell. `start` is on the clock of `time.monotonic`."""

    start: float
    warmup_s: float
    length_s: float
    users: int
    depth: int | Mix
    shots: tuple[Shot, ...]  # what the pacer sends, by due time
    seed: str
    first_number: int
    number_step: (
        int  # processes number their closed-loop requests first_number, first_number + number_step, …
    )


@dataclass(frozen=True)
class Progress:
    """How a running cell stands, for the live view only."""

    sent: int
    in_flight: int
    recent: tuple[Sample, ...]


@dataclass(frozen=True)
class Health:
    """How the client process itself fared while requests were being started."""

    requests: int
    unfinished: int  # abandoned when the run was interrupted
    cpu_s: float
    wall_s: float
    lag_ms: tuple[
        float, ...
    ]  # lateness of a timer that fires every TICK_S: how long the event loop was held up


@dataclass(frozen=True)
class Finished:
    """All that one process has to say about a cell."""

    samples: list[Sample]
    health: Health


class Stop:
    """Ask a process to end its cell now, abandoning what is in flight."""


def main(pipe: Connection, setup: Setup) -> None:
    """The life of a client process: ready, then one Finished for every Job, until the pipe closes."""
    # A Ctrl-C reaches the whole group; the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.setswitchinterval(0.0005)  # the pacer gets its turn within half a millisecond
    gc.set_threshold(50_000, 50, 50)  # a collection in the middle of a request would be measured as latency
    with contextlib.suppress(
        BrokenPipeError, ConnectionResetError
    ):  # the parent has gone: nobody to report to
        asyncio.run(_serve(pipe, setup))


async def _serve(pipe: Connection, setup: Setup) -> None:
    worker = _Worker(pipe, setup)
    running: set[asyncio.Task[None]] = set()
    pipe.send("ready")
    while True:
        try:
            message = await asyncio.to_thread(pipe.recv)
        except (EOFError, OSError):
            break
        if isinstance(message, Job):
            task = asyncio.create_task(worker.run(message))
            running.add(task)
            task.add_done_callback(running.discard)
        elif isinstance(message, Stop):
            worker.stop()
    worker.stop()
    for task in running:
        task.cancel()
    await worker.client.close()


class _Worker:
    def __init__(self, pipe: Connection, setup: Setup) -> None:
        self.client = Client(setup.url, setup.headers, setup.dialect, setup.connections, setup.timeout_s)
        self._pipe = pipe
        self._setup = setup
        self._stop = threading.Event()
        self._flying: set[asyncio.Task[None]] = set()
        self._samples: list[Sample] = []
        self._lag_ms: list[float] = []
        self._sent = 0
        self._unfinished = 0

    def stop(self) -> None:
        """Ends the running cell: nothing more is started, and what is in flight is abandoned."""
        self._stop.set()
        for task in self._flying:
            task.cancel()

    async def run(self, job: Job) -> None:
        """Carries out one job and sends its Finished."""
        gc.collect()
        self._samples, self._lag_ms, self._sent, self._unfinished = [], [], 0, 0
        self._stop.clear()
        await asyncio.sleep(max(0.0, job.start - time.monotonic()))
        cpu, wall = time.process_time(), time.monotonic()
        ticker = asyncio.create_task(self._tick(job.start + job.warmup_s))
        users = [self._fly(self._user(job, number)) for number in range(job.users)]
        if job.shots:
            await asyncio.to_thread(self._pace, job, asyncio.get_running_loop())
        if users:
            await asyncio.wait(users)
        cpu, wall = time.process_time() - cpu, time.monotonic() - wall
        while self._flying:
            await asyncio.wait(self._flying)
        ticker.cancel()
        health = Health(self._sent, self._unfinished, cpu, wall, tuple(self._lag_ms))
        self._pipe.send(Finished(self._samples, health))

    def _fly(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._flying.add(task)
        task.add_done_callback(self._flying.discard)
        return task

    async def _user(self, job: Job, number: int) -> None:
        """Closed loop: one request after the other until the cell's time is up."""
        draw = random.Random(f"{job.seed}:{number}")
        for shot_number in itertools.count(
            job.first_number + number * job.number_step, job.users * job.number_step
        ):
            if self._stop.is_set() or time.monotonic() >= job.start + job.length_s:
                return
            problem = draw.randrange(len(self._setup.problems))
            recorded = self._setup.problems[problem].max_steps
            depth = job.depth.draw(draw, recorded) if isinstance(job.depth, Mix) else job.depth
            request = self._request(problem, depth)
            due = time.monotonic()
            measured = due - job.start >= job.warmup_s
            await self._send(Shot(shot_number, problem, depth, due, measured), request, job.start)

    def _pace(self, job: Job, loop: asyncio.AbstractEventLoop) -> None:
        """Open loop: hands each request, made ahead of time, to the event loop when it is due. Runs on a
        thread.
        """
        for shot in job.shots:
            request = self._request(shot.problem, shot.depth)
            if self._stop.wait(max(0.0, shot.due - time.monotonic())):
                return
            loop.call_soon_threadsafe(self._fly, self._send(shot, request, job.start))

    def _request(self, problem: int, depth: int) -> httpx.Request:
        return self.client.request(self._setup.dialect.encode(self._setup.problems[problem], depth))

    async def _send(self, shot: Shot, request: httpx.Request, start: float) -> None:
        self._sent += 1
        try:
            self._samples.append(
                await self.client.send(shot, request, start, self._setup.problems[shot.problem].label)
            )
        except asyncio.CancelledError:
            self._unfinished += 1
            raise

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
                in_flight = self._sent - self._unfinished - len(self._samples)
                self._pipe.send(Progress(self._sent, in_flight, tuple(self._samples[told_samples:])))
                told, told_samples = now, len(self._samples)
