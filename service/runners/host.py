"""A runner whose slots live in host memory and whose steps run in a few threads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from queue import Empty, SimpleQueue

from model.manifest import Manifest
from model.row import Bucket
from service.runners.computing import Computing
from service.runners.costs import Costs
from service.runners.runner import Batch, Carry, Course, Device, Flight, Landing
from service.runners.steps import HostSteps
from service.runners.store import Seat
from service.runners.threads import StepThreads, step_threads

# Per batch on a CPU, of state and of all that a row has: its activations, which grow with them, then stay in
# L2, and what they take stays small where rows are wide (benchmarks/runner.py).
CPU_STATE_BYTES, CPU_ROW_BYTES = 192 * 1024, 2 * 1024 * 1024
CUDA_ROWS = 256  # a GPU wants all there is
AT_ONCE_SECONDS = 2e-3  # a step shorter than that is not worth a thread of its own


@dataclass(frozen=True)
class Launched:
    """A launch that is under way."""

    seats: list[Seat]
    lean: bool
    course: Course | None
    called: object  # the last call of `wake` that whoever launched this has heard


class HostRunner(HostSteps):
    """A runner but for the computations, which a backend adds.

    On a CPU batches have as many rows as stay in cache, and cores are used by computing several of them
    side by side, in threads that all models of the process share, rather than by threads inside one. The
    thread that calls takes part: what is short it computes itself while it waits.
    """

    device: str
    lean = False  # a backend says where a bundle has a lean step
    ahead = False
    bursts = True
    computing = Computing()

    def __init__(self, manifest: Manifest, device: Device, slots: int, cpu_threads: int) -> None:
        super().__init__(manifest, slots)
        self.device = device
        self._threads = step_threads(cpu_threads) if device == "cpu" else StepThreads(1)
        self.workers = self.room = self._threads.count
        self.costs = Costs()
        self._rows_that_suit = lru_cache(256)(self._suiting)
        self._flights: dict[Flight, Launched] = {}
        self._launched: list[Flight] = []  # and not begun
        self._done: SimpleQueue[Landing | None] = SimpleQueue()  # None: somebody wants the one who waits
        self._called = self._heard = object()  # the newest call of `wake`, and the newest before a landing
        self._next = 0

    def rows_per_batch(self, bucket: Bucket) -> int:
        if self.device == "cuda":
            return CUDA_ROWS
        return self._rows_that_suit(bucket)

    def _suiting(self, bucket: Bucket) -> int:
        """Rows of a batch on a CPU."""
        manifest, layout = self._manifest, self.store.layout
        state = layout.bytes_of(manifest.state, bucket)
        whole = layout.bytes_of((*manifest.context, *manifest.state, *manifest.memory), bucket)
        return max(1, min(CPU_STATE_BYTES // state, CPU_ROW_BYTES // whole))

    def cost(self, bucket: Bucket) -> float:
        return self.costs.of(bucket)

    def put(self, slot: int, carry: Carry) -> None:
        self.store.put(slot, carry)

    def take(self, slot: int) -> Carry:
        return self.store.take(slot)

    def release(self, slot: int) -> None:
        self.store.release(slot)

    def launch(
        self,
        batch: Batch,
        shown: Sequence[int],  # noqa: ARG002  states stay
        lean: bool = False,
        course: Course | None = None,
    ) -> Flight:
        self._next += 1
        seats = [self.store.seats[slot] for slot in batch]
        for seat in seats:
            seat.flying = True
        self._flights[self._next] = Launched(seats, lean, course, self._heard)
        self._launched.append(self._next)
        return self._next

    def land(self) -> list[Landing]:
        landings: list[Landing] = []
        launched, self._launched = self._launched, []
        here = bool(launched) and self._is_short(launched[-1]) and self._threads.begin_here()
        own = launched.pop() if here else None
        for flight in launched:
            self._threads.submit(partial(self._compute, flight, False), self._done.put)
        if own is not None:
            landings.append(self._compute(own, True))
            self._threads.end()
        elif self._flights:
            landings += self._arrived(self._done.get())
        while True:
            try:
                landings += self._arrived(self._done.get_nowait())
            except Empty:
                break
        for landing in landings:
            launch = self._flights.pop(landing.flight)
            self.store.landed(launch.seats)
            if landing.error is None:
                steps = len(launch.seats) if landing.taken is None else int(landing.taken.sum())
                self.costs.measured(launch.seats[0].table.bucket, steps, landing.seconds)
        self._heard = self._called  # whoever is told of these landings looks next at what it was called for
        return landings

    def wake(self) -> None:
        self._called = object()
        self._done.put(None)

    def close(self) -> None:
        """The threads stay, for they are everybody's."""

    @staticmethod
    def _arrived(landing: Landing | None) -> list[Landing]:
        return [] if landing is None else [landing]

    def _is_short(self, flight: Flight) -> bool:
        seats = self._flights[flight].seats
        return len(seats) * self.costs.of(seats[0].table.bucket) < AT_ONCE_SECONDS

    def _compute(self, flight: Flight, here: bool) -> Landing:
        """What lands. A course ends when somebody calls, or another batch waits for a thread.

        here: in the thread that waits for landings, so that it ends with the next of them, too.
        """
        launched = self._flights[flight]

        def wanted() -> bool:
            called = not self._done.empty() if here else self._called is not launched.called
            return called or self._threads.crowded

        return self._take_steps(flight, launched.seats, launched.lean, launched.course, wanted)
