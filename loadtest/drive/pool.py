"""The client processes: started when needed, given their shares of a cell, their samples put together."""

import math
import multiprocessing
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Self

import numpy as np

from loadtest.drive.budgets import Mix
from loadtest.drive.client import Shot
from loadtest.drive.process import Finished, Health, Job, Progress, Setup, Stop, main
from loadtest.drive.samples import Sample
from loadtest.errors import LoadTestError
from loadtest.plan import Arrivals, Cell, arrivals

BUSY_SHARE = 0.5  # a client process is sized to be busy half its time: beyond that it delays its own requests
HEAD_START_S = 0.2  # from handing out a cell to its first request, so that every process has it in time


@dataclass(frozen=True)
class Measured:
    """A cell and what came of it. `interrupted` when it was ended before its time."""

    number: int
    cell: Cell
    samples: list[Sample]  # by due time, warm-up included
    health: tuple[Health, ...]
    interrupted: bool

    @property
    def cost_s(self) -> float:
        """Client CPU seconds per request."""
        return sum(h.cpu_s for h in self.health) / max(1, sum(h.requests for h in self.health))


class Pool:
    """Runs cells over one or more client processes. A context manager: leaving it ends the processes."""

    def __init__(
        self, setup: Setup, mix: Mix | None, arrival: Arrivals, processes: int | None, seed: int
    ) -> None:
        self._setup = setup
        self._mix = mix
        self._arrival: Arrivals = arrival
        self._fixed = processes
        self._seed = seed
        self._cells = 0
        self._interrupted = False
        self._members: list[tuple[BaseProcess, Connection]] = []

    def __enter__(self) -> Self:
        self._grow(self._fixed or 1)
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
        if self._fixed:
            return self._fixed
        return max(1, min(os.cpu_count() or 1, math.ceil(rate * cost_s / BUSY_SHARE)))

    def run(self, cell: Cell, processes: int, watch: Callable[[Cell, Progress], None]) -> Measured:
        """Carries out one cell. Raises LoadTestError when a client process dies."""
        self._grow(processes)
        number, self._cells = self._cells, self._cells + 1
        members = self._members[
            : max(1, min(processes, int(cell.level) if cell.loop == "closed" else processes))
        ]
        for (_, pipe), job in zip(members, self._jobs(cell, number, len(members)), strict=True):
            pipe.send(job)
        finished = self._gather([pipe for _, pipe in members], cell, watch)
        samples = sorted((s for part in finished for s in part.samples), key=lambda s: s.due_s)
        return Measured(number, cell, samples, tuple(part.health for part in finished), self._interrupted)

    def _gather(
        self, pipes: list[Connection], cell: Cell, watch: Callable[[Cell, Progress], None]
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

    def _jobs(self, cell: Cell, number: int, parts: int) -> list[Job]:
        seed = f"{self._seed}:{number}"
        start = time.monotonic() + HEAD_START_S
        depth: int | Mix | None = self._mix if cell.depth is None else cell.depth
        assert depth is not None, "a cell without a depth of its own needs a mix"
        shots = self._shots(cell, depth, random.Random(seed), start, number)
        users = int(cell.level) if cell.loop == "closed" else 0
        return [
            Job(
                start=start,
                warmup_s=cell.warmup_s,
                length_s=cell.length_s,
                users=users // parts + (part < users % parts),
                depth=depth,
                shots=tuple(shots[part::parts]),
                seed=f"{seed}:{part}",
                first_number=len(shots) + part,
                number_step=parts,
            )
            for part in range(parts)
        ]

    def _shots(
        self, cell: Cell, depth: int | Mix, draw: random.Random, start: float, number: int
    ) -> list[Shot]:
        """The schedule of an open loop's requests, and of the probes, on the clock of all processes."""
        entropy = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        planned: list[tuple[float, bool]] = []
        if cell.loop == "open":
            planned += [(due, False) for due in arrivals(self._arrival, cell.level, cell.length_s, entropy)]
        if cell.probe_rate:
            planned += [
                (due, True) for due in arrivals("poisson", cell.probe_rate, cell.length_s, entropy + 1)
            ]
        planned.sort()
        problems = self._setup.problems
        return [
            Shot(
                number=place,
                problem=(chosen := draw.randrange(len(problems))),
                depth=1
                if probe
                else depth.draw(draw, problems[chosen].max_steps)
                if isinstance(depth, Mix)
                else depth,
                due=start + due,
                measured=due >= cell.warmup_s,
                probe=probe,
            )
            for place, (due, probe) in enumerate(planned)
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
                raise LoadTestError("a client process did not start within 60 s: is this machine overloaded?")
            self._receive(pipe)

    @staticmethod
    def _receive(pipe: Connection) -> object:
        try:
            message: object = pipe.recv()
        except (EOFError, ConnectionResetError) as error:
            raise LoadTestError("a client process died: out of memory, or killed from outside") from error
        return message
