"""A runner whose rows never leave the device: dense tables, stepped in place, one launch ahead.

What comes back of a step is what a decision needs: logits and scores, in one copy. On a GPU the host
asks for the next step while the last one is computed, and decides about it when it lands; a row that
has halted by then is answered from the step at which it did. All work goes through one lane in the
order in which it is asked for, so a slot may be given away while a step of its last tenant is under way.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from model.bundle import Bundle
from model.row import Bucket, Layout, Row
from service.runners.computing import IEEE, Computing, Numerics
from service.runners.costs import Costs
from service.runners.device.allotment import Allotment
from service.runners.device.embedder import powers_to
from service.runners.device.lane import Lane
from service.runners.device.launched import Launched
from service.runners.device.parity import parity
from service.runners.device.program import SCRIPTED, Program
from service.runners.device.tables import Table
from service.runners.runner import (
    COURSE_SECONDS,
    Batch,
    Carry,
    Course,
    Device,
    Flight,
    Landing,
    embed_apart,
    failed,
)


@dataclass
class Seat:
    """Where a slot's row lies."""

    table: Table
    place: int
    carry: Carry
    fresh: bool  # not embedded yet


class DeviceRunner:
    """A program on a torch device. On "cpu" it computes the same, one step after another, for tests."""

    workers = 1

    def __init__(
        self,
        bundle: Bundle,
        device: Device,
        slots: int,
        ahead: bool = False,
        numerics: Numerics = IEEE,
        example: Row | None = None,
        program: Program = SCRIPTED,
    ) -> None:
        """ahead: whether a row is launched again before its last launch is decided; may be changed.

        Deterministic means one size of batch for each bucket. On the example, a precision is held against
        IEEE float32, and a program against the bundle's own. Raises StartupError where the tables and graphs
        do not fit on the device, or the model cannot take a step.
        """
        self.device: str = device
        self.backend, self.bursts = program.backend, program.bursts
        self.ahead = ahead
        self._manifest = manifest = bundle.manifest
        self._layout = Layout(manifest)
        compared = None
        if example is not None and (program.exact or numerics.precision != "ieee"):
            compared = parity(bundle, device, numerics.precision, example, program)
        self._lane = lane = Lane(device, numerics.precision, program.captures)
        self.computing = Computing(lane.name, numerics, compared)
        self._sizes = [slots] if numerics.deterministic else powers_to(slots)
        module = program.load(bundle, lane)
        lane.settle()
        self.lean = manifest.lean is not None and hasattr(module, "lean")
        made = partial(program.table, lane, module, manifest, sizes=self._sizes)
        self._tables = Allotment(lane, made, manifest, slots, self.lean)
        self._costs = Costs()
        self._seats: dict[int, Seat] = {}
        self._flights: deque[Launched] = deque()
        self._next = 0
        self._landed = 0.0  # when the last launch did

    @property
    def room(self) -> int:
        """For each bucket that has rows a launch, and one more where it looks ahead."""
        return max(1, self._tables.taken) * (1 + self.ahead)

    def rows_per_batch(self, bucket: Bucket) -> int:  # noqa: ARG002  a device wants all there is
        return self._sizes[-1]

    def cost(self, bucket: Bucket) -> float:
        return self._costs.of(bucket)

    def put(self, slot: int, carry: Carry) -> None:
        assert slot not in self._seats, f"slot {slot} is taken"
        with self._lane.work():
            table = self._tables.table(carry.row.bucket)
            seat = Seat(table, table.take(), carry, fresh=carry.arrays is None)
            self._seats[slot] = seat
            if carry.arrays is not None:
                table.write(seat.place, carry.arrays, carry.depth)

    def embed(self, slot: int) -> None:
        seat = self._seats[slot]
        if seat.fresh:
            with self._lane.work():
                self._embed([seat])

    def take(self, slot: int) -> Carry:
        seat = self._seats[slot]
        carry = seat.carry
        if not seat.fresh:
            with self._lane.work():
                arrays, depth = seat.table.read(seat.place)
            carry = Carry(carry.row, depth, arrays)
        self.release(slot)
        return carry

    def release(self, slot: int) -> None:
        seat = self._seats.pop(slot, None)
        if seat is not None:
            seat.table.give_back(seat.place)

    def launch(
        self, batch: Batch, shown: Sequence[int], lean: bool = False, course: Course | None = None
    ) -> Flight:
        self._next += 1
        began = time.perf_counter()
        seats = [self._seats[slot] for slot in batch]
        table, places = seats[0].table, [seat.place for seat in seats]
        states = {slot: (row, self._seats[slot].carry.row.lengths) for row, slot in enumerate(shown)}
        if course is not None:  # what is under way hears nobody: it ends in time by what it was told
            in_time = int(COURSE_SECONDS / (self._costs.of(table.bucket) * len(seats)))
            course = replace(course, steps=max(1, min(course.steps, in_time)))
        try:
            with self._lane.work():
                broken = self._embed_fresh(seats)
                embedded = 0.0 if self._lane.on_gpu else time.perf_counter() - began
                said = table.step(places, lean, course)
                copies = table.states([self._seats[slot].place for slot in shown]) if shown else []
                mark = self._lane.mark()
        except Exception as error:  # noqa: BLE001  a backend may raise anything; this batch fails alone
            self._unless_lost(error)
            launched = Launched(self._next, table, [], None, None, {}, [], [], None, began, 0.0, error)
        else:
            launched = Launched(
                self._next, table, places, course, said, states, copies, broken, mark, began, embedded
            )
        self._flights.append(launched)
        return self._next

    def land(self) -> list[Landing]:
        """The oldest launch, and those after it that are done and of other buckets.

        Raises what a lost device has to say: there is nothing left to go on with.
        """
        landings: list[Landing] = []
        tables: list[Table] = []
        while self._flights and self._flights[0].table not in tables:
            if landings and not self._lane.passed(self._flights[0].mark):
                break
            launched = self._flights.popleft()
            tables.append(launched.table)
            landings.append(self._landing(launched))
        return landings

    def wake(self) -> None:
        """A landing is never longer away than a step or a course: nobody needs to be woken."""

    def close(self) -> None:
        self._flights.clear()
        self._seats.clear()
        self._tables.close()

    def _landing(self, launched: Launched) -> Landing:
        if launched.buffers is None:
            return failed(launched.flight, launched.error or RuntimeError("nothing was launched"))
        try:
            self._lane.wait(launched.mark)
        except Exception as error:  # noqa: BLE001  what the device has to say about it
            self._unless_lost(error)
            return failed(launched.flight, error)
        ended = time.perf_counter()
        seconds = ended - max(launched.began + launched.embedded, self._landed)
        self._landed = ended
        landing = launched.landing(self._layout, seconds)
        steps = len(launched.places) if landing.taken is None else int(landing.taken.sum())
        self._costs.measured(launched.table.bucket, steps, seconds)
        launched.table.recycle(launched.buffers)
        return landing

    def _embed_fresh(self, seats: Sequence[Seat]) -> list[int]:
        """Embed those who are new. Returns the places of those who cannot be."""
        fresh = [seat for seat in seats if seat.fresh]
        broken = embed_apart(fresh, len(seats) == 1, self._embed) if fresh else []
        return [seats.index(seat) for seat in broken]

    def _embed(self, seats: Sequence[Seat]) -> None:
        seats[0].table.embed([seat.carry.row for seat in seats], [seat.place for seat in seats])
        for seat in seats:
            seat.fresh = False

    def _unless_lost(self, error: Exception) -> None:
        """Raises an error after which the device answers nobody any more."""
        if self._lane.is_lost():
            raise error
