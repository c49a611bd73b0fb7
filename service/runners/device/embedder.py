"""What embeds new rows on a device, and writes them to their places in a table's tensors: one launch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.manifest import Manifest, TensorSpec
from model.row import Bucket, Layout, Row
from service.runners.device.lane import Lane

MOST_ROWS = 64  # at a time
MOST_BYTES = 2**26  # that so many rows may take once they are embedded: captured work keeps its memory


class Embedder:
    """For the rows of one bucket. Inputs are copied to where a captured graph reads them."""

    def __init__(
        self,
        lane: Lane,
        module: Any,
        manifest: Manifest,
        bucket: Bucket,
        tensors: Sequence[Tensor],
        most: int,
    ) -> None:
        """tensors: (slots + 1, ...) per context, state and memory, and the depth; the last row is nobody's.
        most: how many rows are embedded at a time.
        """
        self._lane, self._module, self._tensors = lane, module, tensors
        self._layout = layout = Layout(manifest)
        self._nobody = len(tensors[0]) - 1
        self._sizes = powers_to(most)
        self._inputs = [
            torch.zeros((most, *layout.shape(spec, bucket)), dtype=dtype_of(spec), device=lane.device)
            for spec in manifest.inputs
        ]
        self._places = torch.zeros(most, dtype=torch.int64, device=lane.device)
        self._programs: dict[int, Callable[[], None]] = {}  # by number of rows

    def prepare(self) -> None:
        """Capture all sizes, the largest first."""
        for size in reversed(self._sizes):
            self._program(size)

    def embed(self, rows: Sequence[Row], places: Sequence[int]) -> None:
        """Embed rows into their places; a batch is filled up with copies of its first, which go nowhere."""
        for start in range(0, len(rows), self._sizes[-1]):
            some = list(rows[start : start + self._sizes[-1]])
            size = next(size for size in self._sizes if size >= len(some))
            program, spare = self._program(size), size - len(some)
            where = [*places[start : start + len(some)], *[self._nobody] * spare]
            arrays = self._layout.stack([*some, *some[:1] * spare])
            for there, array in zip((*self._inputs, self._places), (*arrays, np.array(where)), strict=True):
                self._lane.fill(there[:size], array)
            program()

    def _program(self, size: int) -> Callable[[], None]:
        if size not in self._programs:
            self._places.fill_(self._nobody)  # what runs to warm up changes nobody
            run = partial(self._run, size)
            try:
                self._programs[size] = self._lane.captured(run)
            except torch.OutOfMemoryError:
                raise
            except Exception:  # what embeds problems may refuse zeros, and anything may come of that
                if self._lane.is_lost():
                    raise
                self._programs[size] = run
        return self._programs[size]

    def _run(self, size: int) -> None:
        where = self._places[:size]
        embedded = self._module.embed(*(tensor[:size] for tensor in self._inputs))
        for tensor, values in zip(self._tensors[:-1], embedded, strict=True):
            tensor.index_copy_(0, where, values.to(tensor.dtype))
        self._tensors[-1].index_fill_(0, where, 0)


def most_embedded(manifest: Manifest, bucket: Bucket) -> int:
    """How many rows of this bucket are embedded at a time."""
    carried = (*manifest.context, *manifest.state, *manifest.memory)
    return max(1, min(MOST_ROWS, MOST_BYTES // Layout(manifest).bytes_of(carried, bucket)))


def powers_to(most: int) -> list[int]:
    """1, 2, 4, ... and the largest, whatever it is."""
    powers = (1 << power for power in range(most.bit_length()))
    return [*(power for power in powers if power < most), most]


def dtype_of(spec: TensorSpec) -> torch.dtype:
    """A tensor's type, as torch calls it."""
    return torch.from_numpy(np.zeros(0, spec.numpy_dtype)).dtype
