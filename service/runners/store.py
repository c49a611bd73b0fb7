"""Where the slots' tensors live between steps, for runners that compute from host memory."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from model.codecs import Tensors
from model.manifest import Manifest
from model.row import Arrays, Bucket, Layout
from service.runners.runner import Carry

KEPT_BYTES = 2**20  # an empty table of more than that is given back
MOST_TABLES = 64  # beyond that any empty one is: axes that are not padded have as many buckets as lengths


class Table:
    """The rows of one bucket: an array (capacity, ...) per context, state and memory tensor.

    It never grows, because a step may be writing to it. Pages that no row has touched cost nothing.
    """

    def __init__(self, manifest: Manifest, layout: Layout, bucket: Bucket, capacity: int) -> None:
        specs = (*manifest.context, *manifest.state, *manifest.memory)
        self.bucket = bucket
        self.depth = np.zeros(capacity, np.int64)
        self.arrays = [np.zeros((capacity, *layout.shape(spec, bucket)), spec.numpy_dtype) for spec in specs]
        self.row_bytes = layout.bytes_of(specs, bucket)
        self.readout = layout.shape(manifest.logits, bucket)  # the logits' shape, without the batch axis
        self.touched = 0  # rows ever used
        self.taken = 0
        self._free = list(range(capacity))  # a heap

    def take(self) -> int:
        """The lowest free row: neighbours in time become neighbours in memory."""
        place = heapq.heappop(self._free)
        self.taken += 1
        self.touched = max(self.touched, place + 1)
        return place

    def give_back(self, place: int) -> None:
        heapq.heappush(self._free, place)
        self.taken -= 1


@dataclass(eq=False)
class Seat:
    """Where a slot's row lies."""

    table: Table
    place: int
    carry: Carry
    fresh: bool  # not embedded yet
    flying: bool = field(default=False)  # a step is under way
    left: bool = field(default=False)  # released in mid-flight: the row is free once it has landed


class SlotStore:
    """Slots by number, rows by bucket. Threads may read and write disjoint seats at once."""

    def __init__(self, manifest: Manifest, slots: int) -> None:
        self.manifest = manifest
        self.layout = Layout(manifest)
        self.seats: dict[int, Seat] = {}
        self.tables: dict[Bucket, Table] = {}
        self._capacity = 2 * slots  # those who left in mid-flight keep their rows for as long as it lasts
        self._context = len(manifest.context)
        self._remembered = self._context + len(manifest.state)  # where the memory begins

    def put(self, slot: int, carry: Carry) -> None:
        """Seat a row, embedded or not."""
        assert slot not in self.seats, f"slot {slot} is taken"
        bucket = carry.row.bucket
        table = self.tables.get(bucket)
        if table is None:
            table = self.tables[bucket] = Table(self.manifest, self.layout, bucket, self._capacity)
        place = table.take()
        if carry.arrays is not None:
            for array, values in zip(table.arrays, carry.arrays, strict=True):
                array[place] = values
        table.depth[place] = carry.depth
        self.seats[slot] = Seat(table, place, carry, fresh=carry.arrays is None)

    def take(self, slot: int) -> Carry:
        """Lift a row out of its slot."""
        seat = self.seats[slot]
        assert not seat.flying, f"slot {slot} cannot be taken: a step of it is under way"
        carry = seat.carry
        if not seat.fresh:
            arrays = [array[seat.place].copy() for array in seat.table.arrays]
            carry = Carry(carry.row, int(seat.table.depth[seat.place]), arrays)
        self.release(slot)
        return carry

    def release(self, slot: int) -> None:
        """Empty a slot; its row is free at once, or when the step that is under way has landed."""
        seat = self.seats.pop(slot, None)
        if seat is None:
            return
        seat.left = True
        if not seat.flying:
            self._give_back(seat)

    def landed(self, seats: Sequence[Seat]) -> None:
        """Nothing of these seats is under way any more."""
        for seat in seats:
            seat.flying = False
            if seat.left:
                self._give_back(seat)

    def embed(self, seats: Sequence[Seat], embedded: Arrays) -> None:
        """Keep what embedding gave for fresh seats of one bucket, arrays (B, ...) in order of its outputs."""
        for place, seat in enumerate(seats):
            for array, values in zip(seat.table.arrays, embedded, strict=True):
                array[seat.place] = values[place]
            seat.fresh = False

    def gather(self, seats: Sequence[Seat], lean: bool = False) -> tuple[slice | list[int], Arrays]:
        """The step's inputs for seats of one bucket; views where the rows are neighbours.

        lean: without the memory.
        """
        table = seats[0].table
        places = [seat.place for seat in seats]
        where: slice | list[int] = places
        if places == list(range(places[0], places[0] + len(places))):
            where = slice(places[0], places[0] + len(places))
        arrays = table.arrays[: self._remembered] if lean else table.arrays
        inputs = [array[where] for array in arrays]
        if self.manifest.takes_depth:
            inputs.append(table.depth[where])
        return where, inputs

    def scatter(self, table: Table, where: slice | list[int], following: Arrays, steps: int = 1) -> None:
        """Keep what state, and memory where there is one, are after so many steps.

        following: arrays (B, ...) in the order of the outputs.
        """
        for array, values in zip(table.arrays[self._context :], following, strict=False):
            array[where] = values
        table.depth[where] += steps

    def state(self, slot: int) -> Tensors:
        """A slot's state by name, without batch axis and padding: views, not copies."""
        seat = self.seats[slot]
        found: Tensors = {}
        for place, spec in enumerate(self.manifest.state, start=self._context):
            values = seat.table.arrays[place][seat.place]
            found[spec.name] = self.layout.cut(spec, values, seat.carry.row.lengths)
        return found

    def _give_back(self, seat: Seat) -> None:
        table = seat.table
        table.give_back(seat.place)
        large = table.touched * table.row_bytes > KEPT_BYTES
        if not table.taken and (large or len(self.tables) > MOST_TABLES):
            del self.tables[table.bucket]
