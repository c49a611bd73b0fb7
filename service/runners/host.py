"""A runner whose slots live in host memory and whose steps run in a few threads."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from queue import Empty, SimpleQueue

import numpy as np

from model.codecs import Tensors
from model.manifest import Manifest
from model.row import Arrays, Bucket, Floats
from model.trial import Graphs
from service.runners.computing import Computing
from service.runners.costs import Costs
from service.runners.runner import Batch, Carry, Device, Flight, Landing, View, embed_apart, failed
from service.runners.store import Seat, SlotStore
from service.runners.threads import StepThreads, step_threads

CPU_STATE_BYTES = 64 * 1024  # of state per batch: its activations then stay in L2 (benchmarks/runner.py)
CUDA_ROWS = 256  # a GPU wants all there is
AT_ONCE_SECONDS = 2e-3  # a step shorter than that is not worth a thread of its own


class HostRunner(ABC):
    """A backend adds the two computations.

    On a CPU a few rows that stay in cache beat one large batch, and cores are used by computing
    several such batches side by side rather than by threads inside one, which all models of the process
    share. The thread that calls takes part: what is short it computes itself while it waits.
    """

    backend: str
    device: str
    lean = False  # a backend says where a bundle has a lean step
    ahead = False
    computing = Computing()

    def __init__(self, manifest: Manifest, device: Device, slots: int, cpu_threads: int) -> None:
        self.device = device
        self._threads = step_threads(cpu_threads) if device == "cpu" else StepThreads(1)
        self.workers = self.room = self._threads.count
        self._manifest = manifest
        self.store = SlotStore(manifest, slots)
        self.costs = Costs()
        self._scores = (len(manifest.scores),)  # the shape of a row's
        self._carried = len(manifest.state) + len(manifest.memory)
        self._lean_columns = [manifest.score_names.index(name) for name in manifest.lean or ()]
        self._flights: dict[Flight, tuple[list[Seat], bool]] = {}  # and whether it is lean
        self._launched: list[Flight] = []  # and not begun
        self._done: SimpleQueue[Landing | None] = SimpleQueue()  # None: somebody wants the one who waits
        self._next = 0

    @abstractmethod
    def _run_embed(self, inputs: Arrays) -> Arrays: ...

    @abstractmethod
    def _run_step(self, inputs: Arrays) -> Arrays: ...

    def _run_lean(self, inputs: Arrays) -> Arrays:
        raise NotImplementedError(f"{self.backend} has no lean step")

    @property
    def graphs(self) -> Graphs:
        """The two computations, for whoever checks them."""
        return Graphs(self._run_embed, self._run_step)

    def rows_per_batch(self, bucket: Bucket) -> int:
        if self.device == "cuda":
            return CUDA_ROWS
        return max(1, CPU_STATE_BYTES // self.store.layout.bytes_of(self._manifest.state, bucket))

    def cost(self, bucket: Bucket) -> float:
        return self.costs.of(bucket)

    def put(self, slot: int, carry: Carry) -> None:
        self.store.put(slot, carry)

    def embed(self, slot: int) -> None:
        seat = self.store.seats[slot]
        if seat.fresh:
            self.store.embed([seat], self._run_embed(self.store.layout.stack([seat.carry.row])))

    def take(self, slot: int) -> Carry:
        return self.store.take(slot)

    def release(self, slot: int) -> None:
        self.store.release(slot)

    def launch(self, batch: Batch, shown: Sequence[int], lean: bool = False) -> Flight:  # noqa: ARG002  states stay
        self._next += 1
        seats = [self.store.seats[slot] for slot in batch]
        for seat in seats:
            seat.flying = True
        self._flights[self._next] = seats, lean
        self._launched.append(self._next)
        return self._next

    def land(self) -> list[Landing]:
        landings: list[Landing] = []
        launched, self._launched = self._launched, []
        here = bool(launched) and self._is_short(launched[-1]) and self._threads.begin_here()
        own = launched.pop() if here else None
        for flight in launched:
            self._threads.submit(partial(self._compute, flight), self._done.put)
        if own is not None:
            landings.append(self._compute(own))
            self._threads.end()
        elif self._flights:
            landings += self._arrived(self._done.get())
        while True:
            try:
                landings += self._arrived(self._done.get_nowait())
            except Empty:
                break
        for landing in landings:
            seats, _ = self._flights.pop(landing.flight)
            self.store.landed(seats)
            if landing.error is None:
                self.costs.measured(seats[0].table.bucket, len(seats), landing.seconds)
        return landings

    def wake(self) -> None:
        self._done.put(None)

    def close(self) -> None:  # noqa: B027  the threads stay, for they are everybody's
        pass

    @staticmethod
    def _arrived(landing: Landing | None) -> list[Landing]:
        return [] if landing is None else [landing]

    def _is_short(self, flight: Flight) -> bool:
        seats, _ = self._flights[flight]
        return len(seats) * self.costs.of(seats[0].table.bucket) < AT_ONCE_SECONDS

    def _compute(self, flight: Flight) -> Landing:
        """One step of a launched batch; who is new is embedded first."""
        entered = began = time.perf_counter()
        seats, lean = self._flights[flight]
        try:
            broken: list[int] = []
            if fresh := [seat for seat in seats if seat.fresh]:
                unread = embed_apart(fresh, len(seats) == 1, self._embed_seats)
                broken = [seats.index(seat) for seat in unread]
                began = time.perf_counter()
            where, inputs = self.store.gather(seats, lean)
            outputs = (self._run_lean if lean else self._run_step)(inputs)
            carried = len(self._manifest.state) if lean else self._carried
            self.store.scatter(seats[0].table, where, outputs[:carried])
            logits, scores = self._shown(seats, outputs[carried:], lean)
            if broken:
                logits = np.array(logits, np.result_type(logits, np.float16))
                logits[broken] = np.nan
        except Exception as error:  # noqa: BLE001  a backend may raise anything; this batch fails alone
            return failed(flight, error)
        ended = time.perf_counter()
        return Landing(flight, logits, scores, self._state, ended - began, None, began - entered, broken)

    def _embed_seats(self, fresh: Sequence[Seat]) -> None:
        rows = [seat.carry.row for seat in fresh]
        self.store.embed(fresh, self._run_embed(self.store.layout.stack(rows)))

    def _shown(self, seats: Sequence[Seat], outputs: Arrays, lean: bool) -> tuple[Floats, Floats]:
        """A step's logits and scores, as the manifest has them. Raises ValueError for any other.

        Scores that a lean step does not compute are not numbers.
        """
        logits, scores = (*outputs, np.zeros((len(seats), 0), np.float32))[:2]
        if lean:
            scored, scores = scores, np.full((len(seats), *self._scores), np.nan, np.float32)
            scores[:, self._lean_columns] = scored
        readout = seats[0].table.readout
        for name, array, shape in (("logits", logits, readout), ("scores", scores, self._scores)):
            if array.shape != (len(seats), *shape):
                raise ValueError(f"{name} of shape {array.shape}, not {(len(seats), *shape)}")
        return logits, scores

    def _state(self, slot: int, view: View) -> Tensors:
        return view.of(self.store.state(slot))
