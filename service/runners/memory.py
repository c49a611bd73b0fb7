"""Where the slots' tensors live between steps, for runners that compute from host memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.codecs import Tensors
from model.manifest import Manifest
from service.runners.layout import Arrays, Bucket, Layout


@dataclass(frozen=True)
class Seat:
    """Where a slot's row lies: its bucket's table and the row in it, with the row's real lengths."""

    table: Table
    row: int
    lengths: dict[str, int]


class Table:
    """All rows of one bucket: an array (capacity, ...) per context, state and memory tensor."""

    def __init__(self, manifest: Manifest, layout: Layout, bucket: Bucket) -> None:
        self.depth = np.zeros(0, np.int64)
        self.arrays = [
            np.zeros((0, *layout.shape(spec, bucket)), spec.numpy_dtype)
            for spec in (*manifest.context, *manifest.state, *manifest.memory)
        ]
        self.free: list[int] = []

    def take(self) -> int:
        """The lowest free row: neighbours in time become neighbours in memory."""
        if not self.free:
            size = len(self.depth)
            grown = max(4, 2 * size)
            self.arrays = [np.resize(array, (grown, *array.shape[1:])) for array in self.arrays]
            self.depth = np.resize(self.depth, grown)
            self.free = list(range(grown - 1, size - 1, -1))
        return self.free.pop()

    def give_back(self, row: int) -> None:
        self.free.append(row)
        self.free.sort(reverse=True)


class SlotMemory:
    """Slots by number, rows by bucket. Threads may gather and scatter disjoint slots at once."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.layout = Layout(manifest)
        self.tables: dict[Bucket, Table] = {}
        self.seats: dict[int, Seat] = {}
        self._context = len(manifest.context)

    def place(self, slots: Sequence[int], rows: Sequence[Tensors], bucket: Bucket, embedded: Arrays) -> None:
        """Seat freshly embedded rows, arrays (B, ...) in the order of the embedding's outputs."""
        table = self.tables.get(bucket)
        if table is None:
            table = self.tables[bucket] = Table(self.manifest, self.layout, bucket)
        for place, (slot, tensors) in enumerate(zip(slots, rows, strict=True)):
            assert slot not in self.seats, f"slot {slot} is taken"
            row = table.take()
            for array, values in zip(table.arrays, embedded, strict=True):
                array[row] = values[place]
            table.depth[row] = 0
            self.seats[slot] = Seat(table, row, self.layout.lengths(tensors))

    def gather(self, slots: Sequence[int]) -> tuple[Table, slice | list[int], Arrays]:
        """The step's inputs for slots of one bucket; views where the rows are neighbours."""
        table = self.seats[slots[0]].table
        rows = [self.seats[slot].row for slot in slots]
        where: slice | list[int] = rows
        if rows[-1] - rows[0] == len(rows) - 1 and rows == list(range(rows[0], rows[-1] + 1)):
            where = slice(rows[0], rows[-1] + 1)
        inputs = [array[where] for array in table.arrays]
        if self.manifest.takes_depth:
            inputs.append(table.depth[where])
        return table, where, inputs

    def scatter(self, table: Table, where: slice | list[int], following: Arrays) -> None:
        """Keep the next state and memory, arrays (B, ...) in the order of the step's outputs."""
        for array, values in zip(table.arrays[self._context :], following, strict=True):
            array[where] = values
        table.depth[where] += 1

    def state(self, slot: int) -> Tensors:
        """A copy of a slot's state by name, without batch axis and padding."""
        seat = self.seats[slot]
        found: Tensors = {}
        for place, spec in enumerate(self.manifest.state, start=self._context):
            real = tuple(slice(size) for size in self.layout.shape(spec, seat.lengths))
            found[spec.name] = seat.table.arrays[place][seat.row][real].copy()
        return found

    def release(self, slot: int) -> None:
        """Free a slot's row; a slot that never was seated (its embedding failed) is fine."""
        seat = self.seats.pop(slot, None)
        if seat is not None:
            seat.table.give_back(seat.row)
