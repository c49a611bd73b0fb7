"""Latents on the wire: in which precision, in which encoding."""

from __future__ import annotations

import base64
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.floating]
LARGEST_HALF = float(np.finfo(np.float16).max)


def on_the_wire(values: Values, dtype: str) -> Values:
    """Values as little-endian `dtype`; what float16 cannot hold becomes its largest value, no infinity."""
    if dtype == "float16":
        return np.ascontiguousarray(np.clip(values, -LARGEST_HALF, LARGEST_HALF), "<f2")
    return np.ascontiguousarray(values, "<f4")


class Packer(Protocol):
    """What becomes of a selection in the JSON of an event."""

    def __call__(self, values: Values) -> dict[str, Any]: ...


class JsonPacker:
    """The values inside the JSON, as base64 or as nested lists (null for what is not a number)."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding

    def __call__(self, values: Values) -> dict[str, Any]:
        data = base64.b64encode(values.data).decode() if self._encoding == "base64" else values.tolist()
        return {**_header(values), "encoding": self._encoding, "data": data}


class FramePacker:
    """The values beside the JSON: it tells their size, the bytes wait in `raw` for the frame's end."""

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
    return {"shape": list(values.shape), "dtype": values.dtype.name}
