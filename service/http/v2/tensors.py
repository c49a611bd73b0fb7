"""Tensors as the protocol writes them: lists in JSON, flat or nested, or raw bytes after it."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import RequestError
from model.manifest import TensorSpec

Values = NDArray[Any]
DATATYPES = {"bool": "BOOL", "int32": "INT32", "int64": "INT64", "float16": "FP16", "float32": "FP32"}
BYTES = "BYTES"
KINDS: dict[str, tuple[set[type], str, str]] = {  # by NumPy's letter
    # what values are in Python, to a caller, and as wide as they come
    "b": ({bool}, "true or false", "bool"),
    "i": ({int}, "integers", "int64"),
    "f": ({int, float}, "numbers", "float64"),
}


def datatype_of(dtype: np.dtype[Any]) -> str:
    """The protocol's name of a type."""
    return BYTES if dtype.kind == "O" else DATATYPES[dtype.name]


def from_lists(data: object, spec: TensorSpec, shape: Sequence[int], field: str) -> Values:
    """JSON lists -> the tensor. Raises RequestError where they do not fit the shape and the type."""
    level: list[Any] = [data]
    sizes: list[int] = []
    while level and len(sizes) < len(shape) and set(map(type, level)) == {list}:
        lengths = set(map(len, level))
        if len(lengths) > 1:
            raise RequestError("is ragged: its lists must all be of one length", field)
        sizes += lengths
        level = list(chain.from_iterable(level))
    if sizes not in (list(shape), [math.prod(shape)]):
        raise RequestError(
            f"must be a list of {math.prod(shape)} values, or lists nested as the shape {list(shape)}", field
        )
    types, meaning, widest = KINDS[spec.numpy_dtype.kind]
    if not set(map(type, level)) <= types:
        raise RequestError(f"must hold {meaning} only", field)
    try:
        wide = np.array(level, widest)
    except OverflowError:
        raise RequestError(f"has a number that {spec.dtype} cannot hold", field) from None
    return _sound(wide, spec, shape, field)


def from_bytes(data: bytes, spec: TensorSpec, shape: Sequence[int], field: str) -> Values:
    """Raw bytes -> the tensor. Raises RequestError where they do not fit the shape and the type."""
    little = spec.numpy_dtype.newbyteorder("<")
    size = math.prod(shape) * little.itemsize
    if len(data) != size:
        raise RequestError(f"has {len(data)} bytes, and the shape {list(shape)} {size}", field)
    if little.kind == "b" and data.strip(b"\x00\x01"):
        raise RequestError("has bytes other than 0 and 1, which are no BOOL", field)
    return _sound(np.frombuffer(data, little), spec, shape, field)


def _sound(values: Values, spec: TensorSpec, shape: Sequence[int], field: str) -> Values:
    """A copy in the tensor's type and shape, each value a number that it can hold."""
    with np.errstate(over="ignore"):
        narrow = values.astype(spec.numpy_dtype)
    held = np.isfinite(narrow) if narrow.dtype.kind == "f" else narrow == values
    if not held.all():
        raise RequestError(f"has a number that {spec.dtype} cannot hold, or none at all", field)
    return narrow.reshape(tuple(shape))


def to_bytes(values: Values) -> bytes:
    """Little-endian and row by row; each text with its length in bytes (u32) before it."""
    if values.dtype.kind == "O":
        texts = [text.encode() for text in values.ravel().tolist()]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    return np.asarray(values, values.dtype.newbyteorder("<"), order="C").tobytes()
