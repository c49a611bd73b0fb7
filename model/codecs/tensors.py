"""Tensors as they are: {"tensors": {"name": ...}}, for models whose problems this house knows nothing of.

A tensor is nested lists, or {"shape": [2, 3], "dtype": "float32", "data": "<base64>"} of little-endian
values in C order; both without the batch axis. What is too large is refused before it is converted.
The tensor that marks real tokens may be left out: nobody pads a problem of their own.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from itertools import chain
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from model.codecs import LONGEST_NAME, Schema, Tensors, problem_schema, shown
from model.errors import BundleError, RequestError
from model.manifest import Manifest, TensorSpec

PACKED = ("shape", "dtype", "data")
KINDS: dict[str, tuple[set[type], str, str, str]] = {  # by NumPy's letter
    # what its values are in Python, to a caller, in a schema, and as wide as they come
    "b": ({bool}, "true or false", "boolean", "bool"),
    "i": ({int}, "an integer", "integer", "int64"),
    "f": ({int, float}, "a number", "number", "float64"),
}


def packed(values: NDArray[Any]) -> dict[str, Any]:
    """A tensor as an object of shape, dtype and base64."""
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    data = base64.b64encode(little.tobytes()).decode()
    return {"shape": list(values.shape), "dtype": values.dtype.name, "data": data}


class TensorsCodec:
    """Problem -> the tensors it names, of the types and within the axes that the manifest gives."""

    def __init__(self, manifest: Manifest) -> None:
        """Raises BundleError where the manifest's example is none."""
        self._manifest = manifest
        self._inputs = {spec.name: spec for spec in manifest.inputs}
        self._mask = self._optional_mask()
        self.example = manifest.example
        if self.example is None:
            raise BundleError(f"bundle {manifest.name}: the codec tensors needs an example in its manifest")
        from model.row import Layout  # which needs this package

        try:
            Layout(manifest).row(self.encode(self.example, "example"), "example")
        except RequestError as error:
            raise BundleError(f"bundle {manifest.name}: {error.field}: {error.message}") from None

    @property
    def schema(self) -> Schema:
        """JSON schema of a problem: every tensor in both of its forms."""
        named = {name: self._schema_of(spec) for name, spec in self._inputs.items()}
        required = [name for name in named if name != self._mask]
        tensors = {"type": "object", "required": required, "additionalProperties": False}
        return problem_schema(
            "TensorsProblem",
            "The input tensors of a model by name, without the batch axis.",
            {"tensors": {**tensors, "properties": named}},
        )

    def encode(self, problem: object, field: str) -> Tensors:
        """Raises RequestError naming the field and the tensor where a problem does not fit the manifest."""
        names = ", ".join(self._inputs)
        if not isinstance(problem, dict) or not isinstance(problem.get("tensors"), dict):
            raise RequestError(f'a problem is an object {{"tensors": {{...}}}} with {names}', field)
        for key in problem:
            if key != "tensors":
                raise RequestError(
                    "unknown field; a problem has tensors only", f"{field}.{key[:LONGEST_NAME]}"
                )
        given = problem["tensors"]
        for name in given:
            if name not in self._inputs:
                where = f"{field}.tensors.{name[:LONGEST_NAME]}"
                raise RequestError(f"unknown tensor {shown(name)}; this model takes {names}", where)
        tensors: Tensors = {}
        for name, spec in self._inputs.items():
            where = f"{field}.tensors.{name}"
            if name not in given and name == self._mask:
                continue
            if name not in given:
                raise RequestError(f"tensor {name} is missing; this model takes {names}", where)
            read = _Reader(spec, self._longest(spec), where)
            tensors[name] = (
                read.packed(given[name]) if isinstance(given[name], dict) else read.lists(given[name])
            )
        if self._mask is not None and self._mask not in tensors:
            tensors[self._mask] = self._whole_mask(tensors)
        return {name: tensors[name] for name in self._inputs}

    def measure(self, tensors: Tensors) -> dict[str, int]:
        """The lengths of the axes, by name."""
        return {
            axis: size
            for spec in self._manifest.inputs
            if spec.name in tensors
            for axis, size in zip(spec.shape[1:], tensors[spec.name].shape, strict=True)
            if isinstance(axis, str)
        }

    def readout_tokens(self, tensors: Tensors) -> list[int]:
        """All of them: nothing says which ones the readout reads."""
        axis = self._manifest.state[0].shape[1]
        for spec in self._manifest.inputs:
            if axis in spec.shape[1:]:
                return list(range(tensors[spec.name].shape[spec.shape[1:].index(axis)]))
        assert isinstance(axis, int), "the manifest lets no axis be that is in no input"
        return list(range(axis))

    def _optional_mask(self) -> str | None:
        """The mask, where other inputs tell how long its axes are."""
        mask = self._manifest.mask
        told = {axis for name, spec in self._inputs.items() if name != mask for axis in spec.shape}
        return mask if mask is not None and set(self._inputs[mask].shape) <= told else None

    def _whole_mask(self, tensors: Tensors) -> NDArray[Any]:
        """All tokens are real."""
        assert self._mask is not None, "there is one that may be left out"
        spec, lengths = self._inputs[self._mask], self.measure(tensors)
        return np.ones([lengths[str(axis)] for axis in spec.shape[1:]], spec.numpy_dtype)

    def _longest(self, spec: TensorSpec) -> list[int]:
        axes = self._manifest.axes
        return [axes[axis].max if isinstance(axis, str) else axis for axis in spec.shape[1:]]

    def _schema_of(self, spec: TensorSpec) -> Schema:
        lists: Schema = {"type": KINDS[spec.numpy_dtype.kind][2]}
        for axis, most in reversed(list(zip(spec.shape[1:], self._longest(spec), strict=True))):
            least = 1 if isinstance(axis, str) else axis
            lists = {"type": "array", "minItems": least, "maxItems": most, "items": lists}
        sizes = {"type": "array", "items": {"type": "integer"}}
        rank = len(spec.shape) - 1
        packed = {
            "type": "object",
            "required": list(PACKED),
            "additionalProperties": False,
            "properties": {
                "shape": {**sizes, "minItems": rank, "maxItems": rank},
                "dtype": {"const": spec.dtype},
                "data": {"type": "string", "contentEncoding": "base64"},
            },
        }
        return {"anyOf": [lists, packed], "description": f"{spec.dtype} {list(spec.shape[1:])}"}


class _Reader:
    """Reads one tensor; `longest` holds the most that each of its axes may have."""

    def __init__(self, spec: TensorSpec, longest: Sequence[int], field: str) -> None:
        self._spec = spec
        self._axes = list(zip(spec.shape[1:], longest, strict=True))
        self._field = field

    def lists(self, value: object) -> NDArray[Any]:
        """Nested lists -> the tensor, level by level: what is ragged or too long is not gone into."""
        level: list[Any] = [value]
        shape: tuple[int, ...] = ()
        for place, (axis, most) in enumerate(self._axes):
            self._check_types(level, {list}, f"a list along {axis}", shape)
            sizes = list(map(len, level))
            self._check_size(sizes[0], place)
            if sizes.count(sizes[0]) != len(sizes):
                odd = next(index for index, size in enumerate(sizes) if size != sizes[0])
                self._refuse(
                    f"is ragged: {sizes[odd]} along {axis} where others have {sizes[0]}", (odd, shape)
                )
            assert sizes[0] <= most, "just checked"
            level = list(chain.from_iterable(level))
            shape = (*shape, sizes[0])
        dtype = self._spec.numpy_dtype
        types, meaning, _, widest = KINDS[dtype.kind]
        self._check_types(level, types, meaning, shape)
        try:
            wide = np.array(level, widest)
        except OverflowError:
            self._refuse(f"has a number that {dtype} cannot hold")
        return self._sound(wide, shape)

    def packed(self, value: dict[str, Any]) -> NDArray[Any]:
        """An object with shape, dtype and data -> the tensor."""
        if set(value) != set(PACKED):
            self._refuse(f"must be nested lists, or an object with {', '.join(PACKED)} and nothing else")
        shape, dtype, data = (value[part] for part in PACKED)
        if dtype != self._spec.dtype:
            self._refuse(f"must have the dtype {self._spec.dtype}")
        if not isinstance(shape, list) or len(shape) != len(self._axes) or not all(map(_is_size, shape)):
            self._refuse(f"has a shape of {len(self._axes)} sizes, for {self._spec.shape[1:]}")
        for place, size in enumerate(shape):
            self._check_size(size, place)
        little = self._spec.numpy_dtype.newbyteorder("<")
        size = math.prod(shape) * little.itemsize
        if not isinstance(data, str) or len(data) != 4 * -(-size // 3):
            self._refuse(f"has the shape {shape}: data must be the base64 of {size} bytes")
        try:
            content = base64.b64decode(data, validate=True)
        except ValueError:
            content = b""
        if len(content) != size:
            self._refuse(f"has the shape {shape}: data must be the base64 of {size} bytes")
        if little.kind == "b" and content.strip(b"\x00\x01"):
            self._refuse("has bytes other than 0 and 1, which are no bool")
        return self._sound(np.frombuffer(content, little), tuple(shape))

    def _sound(self, values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """Flat values in the type and shape of the tensor, each of them a number that it can hold."""
        dtype = self._spec.numpy_dtype
        with np.errstate(over="ignore"):
            narrow = values.astype(dtype)
        held = np.isfinite(narrow) if dtype.kind == "f" else narrow == values
        if not held.all():
            place = [int(part) for part in np.unravel_index(int(held.argmin()), shape)]
            self._refuse(f"has at {place} a number that {dtype} cannot hold, or none at all")
        return narrow.reshape(shape)

    def _check_size(self, size: int, place: int) -> None:
        axis, most = self._axes[place]
        if isinstance(axis, int) and size != axis:
            self._refuse(f"has {size} along axis {place}, but must have {axis}")
        if not 1 <= size <= most:
            self._refuse(f"has {size} along {axis}, and may have 1 to {most}")

    def _check_types(self, level: list[Any], types: set[type], meaning: str, shape: tuple[int, ...]) -> None:
        if set(map(type, level)) <= types:
            return
        odd = next(index for index, value in enumerate(level) if type(value) not in types)
        self._refuse(f"must have {meaning} here", (odd, shape))

    def _refuse(self, reason: str, at: tuple[int, tuple[int, ...]] = (0, ())) -> NoReturn:
        """at: a place in a flat list, and the shape of that list."""
        index, shape = at
        place = [str(part) for part in np.unravel_index(index, shape)] if shape else []
        raise RequestError(f"tensor {self._spec.name} {reason}", ".".join((self._field, *place)))


def _is_size(value: object) -> bool:
    """Whether it could be the size of an axis: a message can show it."""
    return type(value) is int and 0 <= value < 2**63
