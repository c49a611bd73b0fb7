"""Dense tables: the rows of a model on a device, stepped where they lie.

A bucket's rows lie side by side, so that a step reads and writes a prefix of every tensor and moves
nothing else. Whoever is in the prefix and takes no step keeps its state to the bit: results are written
where a mask says so. Free rows hold whatever they held last; nobody looks at them.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.halting import Steps
from model.manifest import Manifest, TensorSpec
from model.row import Arrays, Bucket, Layout, Row, padded
from service.runners.device.embedder import Embedder, dtype_of, most_embedded
from service.runners.device.lane import Lane
from service.runners.runner import Course

MOST_BUCKETS = 64  # of which tables are made at the start

Taken = tuple[Steps | None, Steps | None]  # what a landing says of a course: `taken` and `held_for`


@dataclass(frozen=True)
class Buffers:
    """A launch's side of the host's memory."""

    told: Tensor  # (rows, ...) what the device is told of each row
    shown: Tensor  # (rows, L + S) logits and scores


class Table:
    """One bucket: a tensor (slots + 1, ...) per context, state and memory. The last row is nobody's."""

    def __init__(
        self, lane: Lane, module: Any, manifest: Manifest, bucket: Bucket, sizes: Sequence[int]
    ) -> None:
        """sizes: how many rows a step may have, ascending; the last is the number of slots.

        Where there is only one, rows are embedded one at a time: then no row's kernels depend on others.
        """
        layout = Layout(manifest)
        self.bucket = bucket
        self.taken = 0
        self._lane, self._module, self._manifest, self._layout = lane, module, manifest, layout
        self._sizes, self._slots = sizes, sizes[-1]
        self._context = len(manifest.context)
        self._states = slice(self._context, self._context + len(manifest.state))
        self._logits = layout.shape(manifest.logits, bucket)
        rows = self._slots + 1
        self._tensors = [
            torch.zeros((rows, *layout.shape(spec, bucket)), dtype=dtype_of(spec), device=lane.device)
            for spec in carried(manifest)
        ]
        self._depth = torch.zeros(rows, dtype=torch.int64, device=lane.device)
        self._told = torch.zeros(rows, dtype=torch.bool, device=lane.device)  # who takes this step
        most = 1 if len(sizes) == 1 else most_embedded(manifest, bucket)
        embedded = (*self._tensors, self._depth)
        self._embedder = Embedder(lane, module, manifest, bucket, embedded, most)
        width = math.prod(self._logits) + len(manifest.scores)
        self._shown = torch.zeros((rows, width), device=lane.device)
        self._hosts: list[Buffers] = []  # that no launch is using
        self._lean = [manifest.score_names.index(name) for name in manifest.lean or ()]  # their columns
        self._steps: dict[tuple[int, bool], Callable[[], None]] = {}  # by number of rows; lean or not
        self._free = list(range(self._slots))  # a heap: the lowest first, so that prefixes are short

    def take(self) -> int:
        """A place for a row. Whatever is under way of its last tenant happens before anything new."""
        self.taken += 1
        return heapq.heappop(self._free)

    def give_back(self, place: int) -> None:
        self.taken -= 1
        heapq.heappush(self._free, place)

    def prepare(self, lean: bool) -> None:
        """Capture embeddings and steps of every size, and lean ones if there are: no request waits for it.

        All share the memory in which they compute: with the largest first, the others find it there.
        """
        self._embedder.prepare()
        for size in reversed(self._sizes):
            for is_lean in (False, True)[: 1 + lean]:
                self._program(size, is_lean)

    def embed(self, rows: Sequence[Row], places: Sequence[int]) -> None:
        """Embed rows into their places."""
        self._embedder.embed(rows, places)

    def write(self, place: int, arrays: Arrays, depth: int) -> None:
        """Seat a row in mid-thought."""
        for tensor, values in zip(self._tensors, arrays, strict=True):
            tensor[place].copy_(self._lane.send(values))
        self._depth[place] = depth

    def read(self, place: int) -> tuple[Arrays, int]:
        """A row's arrays and its depth, once all that was asked for has happened."""
        copies = [self._lane.fetch(tensor[place]) for tensor in (*self._tensors, self._depth)]
        self._lane.wait(self._lane.mark())
        *arrays, depth = [copy.numpy() for copy in copies]
        return arrays, int(depth)

    def step(self, places: Sequence[int], lean: bool = False, course: Course | None = None) -> Buffers:
        """A step of the rows in these places; returns where their logits and scores will be.

        course: on what terms it may be several, where this table takes them.
        """
        size = next(size for size in self._sizes if size > max(places))
        step = self._program(size, lean)
        buffers = self._hosts.pop() if self._hosts else self._buffers()
        buffers.told[:size] = 0
        buffers.told[list(places)] = self._orders(len(places), course)
        self._told[:size].copy_(buffers.told[:size], non_blocking=True)
        step()
        buffers.shown[:size].copy_(self._shown[:size], non_blocking=True)
        return buffers

    def headway(self, buffers: Buffers, places: list[int], course: Course | None) -> Taken:  # noqa: ARG002
        """How far the rows in these places have come, once the launch is done; None: a step each."""
        return None, None

    def recycle(self, buffers: Buffers) -> None:
        """What a launch has shown is read: its buffers may be used again."""
        self._hosts.append(buffers)

    def states(self, places: Sequence[int]) -> list[Tensor]:
        """Copies of some rows' state, (R, ...) per tensor, on their way to the host."""
        where = self._lane.send(np.array(places))
        return [self._lane.fetch(tensor.index_select(0, where)) for tensor in self._tensors[self._states]]

    def _orders(self, rows: int, course: Course | None) -> Tensor:  # noqa: ARG002  one step each
        """What the device is told of rows that move; of all others it is told zeros."""
        return torch.ones(rows, dtype=torch.bool)

    def _buffers(self) -> Buffers:
        return Buffers(*(self._lane.host(tuple(t.shape), t.dtype) for t in (self._told, self._shown)))

    def _program(self, size: int, lean: bool) -> Callable[[], None]:
        which = size, lean
        if which not in self._steps:
            self._told.zero_()  # what runs to warm up changes nobody
            self._steps[which] = self._lane.captured(lambda: self._step(size, lean))
        return self._steps[which]

    def _step(self, size: int, lean: bool) -> None:
        """One step of the first `size` rows, in place. A lean one leaves what scores remember as it is."""
        step = self._module.lean if lean else self._module.step
        inputs = [tensor[:size] for tensor in self._tensors[: self._states.stop if lean else None]]
        depth, moves = self._depth[:size], self._told[:size]
        outputs = step(*inputs, *([depth] if self._manifest.takes_depth else []))
        following = inputs[self._context :]
        logits, *scores = outputs[len(following) :]
        columns = self._lean if lean else range(len(self._manifest.scores))
        shapes = {"logits": (logits, self._logits)}
        if scores:
            shapes["scores"] = scores[0], (len(columns),)
        for name, (tensor, shape) in shapes.items():
            if tuple(tensor.shape) != (size, *shape):
                raise ValueError(f"{name} of shape {tuple(tensor.shape)}, not {(size, *shape)}")
        for tensor, values in zip(following, outputs[: len(following)], strict=True):
            here = moves.view(-1, *[1] * (tensor.dim() - 1))
            torch.where(here, values.to(tensor.dtype), tensor, out=tensor)
        depth += moves
        width = math.prod(self._logits)
        self._shown[:size, :width].copy_(logits.flatten(1))
        if lean:  # what is not computed is no number
            self._shown[:size, width:].fill_(math.nan)
        for place, column in enumerate(columns if scores else ()):
            self._shown[:size, width + column].copy_(scores[0][:, place])


def carried(manifest: Manifest) -> tuple[TensorSpec, ...]:
    """What a table holds of a row."""
    return (*manifest.context, *manifest.state, *manifest.memory)


def table_bytes(manifest: Manifest, bucket: Bucket, slots: int) -> int:
    """What a table of this bucket takes on the device, at most."""
    inputs = Layout(manifest).bytes_of(manifest.inputs, bucket)
    return (slots + 1) * row_bytes(manifest, bucket) + most_embedded(manifest, bucket) * inputs


def row_bytes(manifest: Manifest, bucket: Bucket) -> int:
    """What a row of this bucket takes on the device."""
    return Layout(manifest).bytes_of(carried(manifest), bucket)


def buckets_of(manifest: Manifest) -> list[Bucket]:
    """Every bucket there can be, largest first; none where they are too many to be foreseen."""
    if not all(axis.padded for axis in manifest.axes.values()):
        return []
    sizes = [list(_sizes(axis.max)) for axis in manifest.axes.values()]
    if math.prod(map(len, sizes)) > MOST_BUCKETS:
        return []
    return sorted(itertools.product(*sizes), key=math.prod, reverse=True)


def _sizes(most: int) -> Iterator[int]:
    size = padded(1)
    while True:
        yield size
        if size >= most:
            return
        size = padded(size + 1)
