"""The client processes: started when needed, given their shares of a cell, their samples put together."""

import math
import multiprocessing
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Self

from loadtest.drive.arrivals import parse_arrivals
from loadtest.drive.budgets import Mix
from loadtest.drive.cells import Cell
from loadtest.drive.client import Shot
from loadtest.drive.messages import Finished, Health, Job, Progress, Setup, Stop
from loadtest.drive.process import main
from loadtest.drive.recording import Recording
from loadtest.drive.samples import Sample
from loadtest.errors import LoadTestFailed
from loadtest.plan import LoadPlan

BUSY_SHARE = 0.5  # a client process is sized to be busy half its time: beyond that it delays its own requests
HEAD_START_S = 0.2  # from handing out a cell to its first request, so that every process has it in time


@dataclass(frozen=True)
class CellResult:
    """A cell and what came of it. `interrupted` when it was ended before its time."""

    number: int
    cell: Cell
    start_s: float  # on the run's clock
    samples: list[Sample]  # by due time, warm-up included
    health: tuple[Health, ...]
    interrupted: bool

    @property
    def cost_s(self) -> float:
        """Client CPU seconds per request."""
        return sum(h.cpu_s for h in self.health) / max(1, sum(h.requests for h in self.health))


class Pool:
    """Runs cells over one or more client processes. A context manager: leaving it ends the processes.

    `recording` is what cells of the load are played from, when the plan replays. The run's clock starts
    with the pool, at `epoch` of `time.monotonic`.
    """

    def __init__(self, setup: Setup, plan: LoadPlan, recording: Recording | None = None) -> None:
        self._setup = setup
        self._plan = plan
        self._recording = recording
        self.epoch = time.monotonic()
        self._cells = 0
        self._interrupted = False
        self._members: list[tuple[BaseProcess, Pipe]] = []

    def __enter__(self) -> Self:
        self._grow(self._plan.processes or 1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, pipe in self._members:
            pipe.close()
        for process, _ in self._members:
            process.join(timeout=3)
            if process.is_alive():
                process.kill()
                process.join()
            process.close()

    def interrupt(self) -> None:
        """End the running cell and run no more of any. Safe to call from a signal handler."""
        self._interrupted = True

    @property
    def interrupted(self) -> bool:
        return self._interrupted

    def size_for(self, rate: float, cost_s: float) -> int:
        """How many processes send `rate` requests a second at `cost_s` CPU seconds each without being in
        the way.

        A size fixed by the caller stands; otherwise it is bounded by the machine's processors.
        """
        if self._plan.processes:
            return self._plan.processes
        return max(1, min(os.cpu_count() or 1, math.ceil(rate * cost_s / BUSY_SHARE)))

    def run(self, cell: Cell, processes: int, watch: Callable[[Cell, Progress], None]) -> CellResult:
        """Carries out one cell. Raises LoadTestFailed when a client process dies."""
        self._grow(processes)
        number, self._cells = self._cells, self._cells + 1
        most = min(processes, self._plan.max_in_flight)
        members = self._members[: max(1, min(most, int(cell.level)) if cell.loop == "closed" else most)]
        start = time.monotonic() + HEAD_START_S
        for (_, pipe), job in zip(members, self._jobs(cell, number, start, len(members)), strict=True):
            pipe.send(job)
        finished = self._gather([pipe for _, pipe in members], cell, watch)
        samples = sorted((s for part in finished for s in part.samples), key=lambda s: s.due_s)
        health = tuple(part.health for part in finished)
        return CellResult(number, cell, start - self.epoch, samples, health, self._interrupted)

    def _gather(
        self, pipes: list[Pipe], cell: Cell, watch: Callable[[Cell, Progress], None]
    ) -> list[Finished]:
        waiting = list(pipes)
        finished: list[Finished] = []
        told = False
        while waiting:
            if self._interrupted and not told:
                told = True
                for pipe in waiting:
                    pipe.send(Stop())
            ready = wait(waiting, timeout=0.1)
            for pipe in [pipe for pipe in waiting if pipe in ready]:
                message = self._receive(pipe)
                if isinstance(message, Finished):
                    finished.append(message)
                    waiting.remove(pipe)
                elif isinstance(message, Progress):
                    watch(cell, message)
        return finished

    def _jobs(self, cell: Cell, number: int, start: float, parts: int) -> list[Job]:
        plan = self._plan
        seed = f"{plan.seed}:{number}"
        depth: int | Mix | None = plan.drawn if cell.depth is None else cell.depth
        assert depth is not None, "a cell without a depth of its own needs a mix"
        shots = self._shots(cell, depth, seed, start)
        users = int(cell.level) if cell.loop == "closed" else 0

        def share(of: int, part: int) -> int:
            return of // parts + (part < of % parts)

        return [
            Job(
                start=start,
                warmup_s=cell.warmup_s,
                length_s=cell.length_s,
                users=share(users, part),
                depth=depth,
                shots=tuple(shots[part::parts]),
                seed=f"{seed}:{part}",
                first_number=len(shots) + part,
                number_step=parts,
                limit=share(plan.max_in_flight, part),
                cancel=plan.cancel if cell.phase == "load" else 0.0,
                cancel_after_s=plan.cancel_after_s,
            )
            for part in range(parts)
        ]

    def _shots(self, cell: Cell, depth: int | Mix, seed: str, start: float) -> list[Shot]:
        """The schedule of an open loop's requests, and of the probes, on the clock of all processes."""
        plan, cases = self._plan, self._setup.cases
        draw = random.Random(seed)
        planned: list[tuple[float, int, int, bool]] = []  # due, problem, depth, probe
        if self._recording is not None and cell.phase == "load":
            planned = [
                (due, problem, asked, False)
                for due, problem, asked in self._recording.played(plan.speed, plan.depths[-1])
            ]
        elif cell.loop == "open" and cell.level:
            kind = parse_arrivals(plan.arrivals if cell.phase in ("load", "sweep") else "poisson")
            for due in kind.times(cell.level, cell.length_s, draw.getrandbits(32)):
                problem = draw.randrange(len(cases))
                budget = depth.draw(draw, cases[problem].max_steps) if isinstance(depth, Mix) else depth
                planned.append((due, problem, budget, False))
        if cell.probe_rate:
            # The same without deep requests and with them, so that nothing but those makes a difference.
            same = random.Random(f"{plan.seed}:probe")
            times = parse_arrivals("poisson").times(cell.probe_rate, cell.length_s, same.getrandbits(32))
            planned += [(due, same.randrange(len(cases)), 1, True) for due in times]
            planned.sort()
        early = plan.cancel if cell.phase == "load" else 0.0
        return [
            Shot(
                number=place,
                problem=problem,
                depth=asked,
                due=start + due,
                measured=due >= cell.warmup_s,
                probe=probe,
                cancel_s=draw.random() * plan.cancel_after_s if draw.random() < early else None,
            )
            for place, (due, problem, asked, probe) in enumerate(planned)
        ]

    def _grow(self, size: int) -> None:
        # spawn: a forked copy of a process with a live display and signal handlers is not a clean client
        context = multiprocessing.get_context("spawn")
        added = []
        while len(self._members) < size:
            ours, theirs = context.Pipe()
            process = context.Process(target=main, args=(theirs, self._setup), daemon=True)
            process.start()
            theirs.close()
            self._members.append((process, ours))
            added.append(ours)
        for pipe in added:
            if not pipe.poll(60):
                raise LoadTestFailed(
                    "a client process did not start within 60 s: is this machine overloaded?"
                )
            self._receive(pipe)

    @staticmethod
    def _receive(pipe: Pipe) -> object:
        try:
            message: object = pipe.recv()
        except (EOFError, ConnectionResetError) as error:
            raise LoadTestFailed("a client process died: out of memory, or killed from outside") from error
        return message
