"""Latents on the wire: in which precision, in which encoding."""

from __future__ import annotations

import base64
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]
LARGEST_HALF = float(np.finfo(np.float16).max)


def on_the_wire(values: Values, dtype: str | None = None) -> Values:
    """Floats as little-endian `dtype`, others and all without one in their own.

    What float16 cannot hold becomes its largest value, no infinity.
    """
    sent = _sent_as(values.dtype, dtype)
    if sent.itemsize == 2 and sent.kind == "f":
        values = np.clip(values, -LARGEST_HALF, LARGEST_HALF)
    return np.asarray(values, sent, order="C")


@cache
def _sent_as(held: np.dtype[Any], asked: str | None) -> np.dtype[Any]:
    """In which dtype values go out; worked out once, for numpy takes longer over it than over the values."""
    floats = asked is not None and np.issubdtype(held, np.floating)
    return np.dtype(asked if floats else held).newbyteorder("<")


@cache
def _name_of(dtype: np.dtype[Any]) -> str:
    return dtype.name


class Packer(Protocol):
    """What becomes of a selection in the JSON of an event."""

    few_bytes: int  # of values, that are packed within about a millisecond

    def __call__(self, values: Values) -> dict[str, Any]: ...


class JsonPacker:
    """The values inside the JSON, as base64 or as nested lists (null for what is not a number)."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self.few_bytes = 2**18 if encoding == "base64" else 2**14

    def __call__(self, values: Values) -> dict[str, Any]:
        data = base64.b64encode(values.tobytes()).decode() if self._encoding == "base64" else values.tolist()
        return {**_header(values), "encoding": self._encoding, "data": data}


class FramePacker:
    """The values beside the JSON: it tells their size, the bytes wait in `raw` for the frame's end."""

    few_bytes = 2**20

    def __init__(self) -> None:
        self.raw: list[bytes] = []

    def __call__(self, values: Values) -> dict[str, Any]:
        self.raw.append(values.tobytes())
        return {**_header(values), "byte_size": values.nbytes}

    def take(self) -> bytes:
        """All bytes packed since the last call, in order."""
        taken = b"".join(self.raw)
        self.raw.clear()
        return taken


def _header(values: Values) -> dict[str, Any]:
    return {"shape": list(values.shape), "dtype": _name_of(values.dtype)}
