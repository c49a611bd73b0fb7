"""How rows of different lengths share a batch: padded sizes, worked out from the manifest alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.codecs import Tensors
from model.manifest import Manifest, TensorSpec

Arrays = list[NDArray[Any]]
Floats = NDArray[np.floating]
Bucket = tuple[int, ...]  # the padded size of every axis, in the manifest's order
SMALLEST = 8


def padded(length: int) -> int:
    """The size a length is padded to: 8, 16, 24, 32, 48, 64, 96, 128, ...

    Two sizes per octave: at most a third of a long row is padding, and few sizes means that rows
    often find company. It depends on the row alone, so a row computes the same whoever is beside it.
    """
    size = SMALLEST
    while size < length:
        octave = 1 << (size.bit_length() - 1)
        size += max(SMALLEST, octave // 2)
    return size


class Layout:
    """The shapes of one bundle's tensors."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.axes = tuple(manifest.axes)

    def lengths(self, tensors: Tensors) -> dict[str, int]:
        """The real length of every axis of one row, read off its input tensors."""
        found: dict[str, int] = {}
        for spec in self.manifest.inputs:
            shape = tensors[spec.name].shape
            assert len(shape) == len(spec.shape) - 1, f"{spec.name} has shape {shape}, not {spec.shape[1:]}"
            for size, axis in zip(shape, spec.shape[1:], strict=True):
                if isinstance(axis, str):
                    assert found.setdefault(axis, size) == size, f"{spec.name} disagrees about axis {axis}"
        return found

    def bucket(self, lengths: Mapping[str, int]) -> Bucket:
        """The padded sizes of a row: rows of one bucket can share a batch."""
        axes = self.manifest.axes
        return tuple(padded(lengths[axis]) if axes[axis].padded else lengths[axis] for axis in self.axes)

    def shape(self, spec: TensorSpec, sizes: Mapping[str, int] | Bucket) -> tuple[int, ...]:
        """A tensor's shape without the batch axis, for lengths by axis or for a bucket."""
        if not isinstance(sizes, Mapping):
            sizes = dict(zip(self.axes, sizes, strict=True))
        return tuple(sizes[axis] if isinstance(axis, str) else axis for axis in spec.shape[1:])

    def stack(self, rows: Sequence[Tensors], bucket: Bucket) -> Arrays:
        """Input tensors of several rows -> one zero-padded array (B, ...) per input."""
        stacked: Arrays = []
        for spec in self.manifest.inputs:
            whole = np.zeros((len(rows), *self.shape(spec, bucket)), spec.numpy_dtype)
            for place, row in enumerate(rows):
                tensor = row[spec.name]
                whole[place][tuple(slice(size) for size in tensor.shape)] = tensor
            stacked.append(whole)
        return stacked
