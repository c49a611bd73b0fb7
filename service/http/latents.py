"""Latents on the wire: which part of a state (N, D), in which precision, in which encoding."""

from __future__ import annotations

import base64
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.http.schemas import Latents

Values = NDArray[np.floating]
LARGEST_HALF = float(np.finfo(np.float16).max)


def selected(state: Values, tokens: list[int], latents: Latents) -> Values:
    """readout: (tokens, D); pooled: the mean over tokens, (D,); full: (N, D); in little-endian `dtype`.

    What float16 cannot hold becomes its largest value rather than an infinity.
    """
    if latents.select == "readout":
        state = state[tokens]
    elif latents.select == "pooled":
        state = state.mean(axis=0)
    if latents.dtype == "float16":
        return np.ascontiguousarray(np.clip(state, -LARGEST_HALF, LARGEST_HALF), "<f2")
    return np.ascontiguousarray(state, "<f4")


class Packer(Protocol):
    """What becomes of a selection in the JSON of an event."""

    def __call__(self, values: Values) -> dict[str, Any]: ...


class JsonPacker:
    """The values inside the JSON, as base64 or as nested lists (null for what is not a number)."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding

    def __call__(self, values: Values) -> dict[str, Any]:
        data = base64.b64encode(values.data).decode() if self._encoding == "base64" else _lists(values)
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


def _lists(values: Values) -> Any:
    finite = np.isfinite(values)
    return values.tolist() if finite.all() else np.where(finite, values, None).tolist()  # type: ignore[call-overload]
