"""A row: one problem's tensors, checked against the manifest once, with its lengths and its bucket."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.codecs import Tensors
from model.errors import RequestError
from model.manifest import Manifest, TensorSpec

Arrays = list[NDArray[Any]]
Floats = NDArray[np.floating]
Bucket = tuple[int, ...]  # the padded size of every axis, in the manifest's order
SMALLEST = 8


@dataclass(frozen=True, eq=False)
class Row:
    """What one problem is to a model: nothing about it needs working out again."""

    tensors: Tensors  # by input name, without the batch axis
    lengths: Bucket  # the real length of every axis, in the manifest's order
    bucket: Bucket  # the padded ones: rows of one bucket can share a batch


@lru_cache(4096)
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
        self._axes = {axis: place for place, axis in enumerate(manifest.axes)}
        self._names = {spec.name for spec in manifest.inputs}
        self._inputs = [(spec.name, spec.numpy_dtype, spec.shape[1:]) for spec in manifest.inputs]

    def row(self, tensors: Tensors, field: str | None = None) -> Row:
        """Check one problem's tensors against the manifest. Raises RequestError that names the tensor."""
        if tensors.keys() != self._names:
            names = ", ".join(name for name, _, _ in self._inputs)
            raise RequestError(f"the tensors are {', '.join(tensors)}, but must be {names}", field)
        axes = self.manifest.axes
        found: dict[str, int] = {}
        for name, dtype, shape in self._inputs:
            tensor = tensors[name]
            if tensor.dtype != dtype:
                raise RequestError(f"tensor {name} is {tensor.dtype}, but must be {dtype}", field)
            if len(tensor.shape) != len(shape):
                raise RequestError(f"tensor {name} has shape {tensor.shape}, not {shape}", field)
            for size, axis in zip(tensor.shape, shape, strict=True):
                expected = found.setdefault(axis, size) if isinstance(axis, str) else axis
                if size != expected:
                    raise RequestError(
                        f"tensor {name} has {size} along {axis}, but must have {expected}", field
                    )
                if isinstance(axis, str) and not 1 <= size <= axes[axis].max:
                    raise RequestError(
                        f"tensor {name} has {size} along {axis}, not 1 to {axes[axis].max}", field
                    )
        lengths = tuple(found.get(axis, 1) for axis in axes)
        bucket = tuple(
            min(padded(length), axis.max) if axis.padded else length
            for length, axis in zip(lengths, axes.values(), strict=True)
        )
        return Row(tensors, lengths, bucket)

    def shape(self, spec: TensorSpec, sizes: Bucket) -> tuple[int, ...]:
        """A tensor's shape without the batch axis, for real lengths or for a bucket."""
        return tuple(sizes[self._axes[axis]] if isinstance(axis, str) else axis for axis in spec.shape[1:])

    def cut(self, spec: TensorSpec, values: NDArray[Any], lengths: Bucket) -> NDArray[Any]:
        """One row's tensor without its padding: a view, not a copy."""
        return values[tuple(slice(size) for size in self.shape(spec, lengths))]

    def bytes_of(self, specs: Sequence[TensorSpec], sizes: Bucket) -> int:
        """What one row of these tensors takes, in bytes."""
        return sum(math.prod(self.shape(spec, sizes)) * spec.numpy_dtype.itemsize for spec in specs)

    def stack(self, rows: Sequence[Row]) -> Arrays:
        """Input tensors of several rows of one bucket -> one zero-padded array (B, ...) per input."""
        stacked: Arrays = []
        for spec in self.manifest.inputs:
            whole = np.zeros((len(rows), *self.shape(spec, rows[0].bucket)), spec.numpy_dtype)
            for place, row in enumerate(rows):
                tensor = row.tensors[spec.name]
                real = tuple(slice(size) for size in tensor.shape)
                whole[place : place + 1, *real] = tensor
            stacked.append(whole)
        return stacked
