"""Latents on the wire: in which precision, in which encoding."""

from __future__ import annotations

import base64
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]
LARGEST_HALF = float(np.finfo(np.float16).max)


def on_the_wire(values: Values, dtype: str | None = None) -> Values:
    """Floats as little-endian `dtype`, others and all without one in their own.

    What float16 cannot hold becomes its largest value, no infinity.
    """
    if dtype is None or not np.issubdtype(values.dtype, np.floating):
        dtype = values.dtype.name
    if dtype == "float16":
        values = np.clip(values, -LARGEST_HALF, LARGEST_HALF)
    return np.asarray(values, np.dtype(dtype).newbyteorder("<"), order="C")


class Packer(Protocol):
    """What becomes of a selection in the JSON of an event."""

    def __call__(self, values: Values) -> dict[str, Any]: ...


class JsonPacker:
    """The values inside the JSON, as base64 or as nested lists (null for what is not a number)."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding

    def __call__(self, values: Values) -> dict[str, Any]:
        data = base64.b64encode(values.tobytes()).decode() if self._encoding == "base64" else values.tolist()
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
