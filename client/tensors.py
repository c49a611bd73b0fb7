"""Arrays in JSON: out of problems, into answers."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
DTYPES = frozenset(["float16", "float32", "float64", "int32", "int64", "bool"])
PACKED = {"shape", "dtype", "encoding", "data"}


def sendable(problem: Any) -> Any:
    """A problem whose `tensors` may be arrays: those of float32 are packed, all else goes as lists."""
    if isinstance(problem, list | tuple):
        return [sendable(one) for one in problem]
    if isinstance(problem, Mapping) and isinstance(problem.get("tensors"), Mapping):
        tensors = {name: _packed(value) for name, value in problem["tensors"].items()}
        return {**problem, "tensors": tensors}
    return problem


def as_json(value: Any) -> Any:
    """For json.dumps: what arrays, NumPy's numbers and mappings of any kind are in JSON."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is nothing that JSON has")


def unpacked(content: dict[str, Any]) -> Any:
    """For json.loads, as its object_hook: a tensor becomes an array, everything else stays.

    Raises ValueError where the data are not those of the shape.
    """
    if content.keys() != PACKED:
        return content
    shape, dtype = _checked(content)
    if content["encoding"] == "json":  # null is what JSON has for what is not a number
        return np.array(content["data"], dtype).reshape(shape)
    raw = bytearray(base64.b64decode(content["data"], validate=True))  # an array that can be written to
    return np.frombuffer(raw, dtype).reshape(shape)


def empty(content: Mapping[str, Any]) -> Array:
    """The array for a tensor whose bytes are still to come. Raises ValueError where they do not fit it."""
    shape, dtype = _checked(content)
    if content["byte_size"] != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{content['byte_size']} bytes are not {dtype} {list(shape)}")
    return np.empty(shape, dtype)


def _checked(content: Mapping[str, Any]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and little-endian dtype of what says that it is a tensor."""
    shape, dtype = content["shape"], content["dtype"]
    if dtype not in DTYPES or not all(isinstance(size, int) and size >= 0 for size in shape):
        raise ValueError(f"{dtype} {shape} is no tensor")
    return tuple(shape), np.dtype(dtype).newbyteorder("<")


def _packed(value: Any) -> Any:
    """Other types than float32 go as lists, which the server brings into the type it wants."""
    if not isinstance(value, np.ndarray) or value.dtype != np.float32 or not np.isfinite(value).all():
        return value  # what is not finite is told with its place when the list is written
    raw = np.asarray(value, "<f4", order="C").tobytes()
    return {"shape": list(value.shape), "dtype": "float32", "data": base64.b64encode(raw).decode()}
