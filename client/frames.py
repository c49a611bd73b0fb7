"""Frames: u32 little-endian JSON length | JSON | raw little-endian tensors, in the order the JSON names them.

In the JSON a tensor is {"shape", "dtype", "byte_size"}. This reads bytes as they come, in pieces of any size.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from client.errors import BrokenStream
from client.tensors import Array, empty

FRAMES = "application/vnd.fathom.frames"
SIZED = {"shape", "dtype", "byte_size"}
LONGEST_JSON = 2**28  # bytes; more is no frame, but something else taken for one


class Frames:
    """Collects bytes and gives whole frames, each the JSON with arrays in place of its tensors."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._frame: dict[str, Any] | None = None  # whose arrays are still being filled
        self._arrays: list[Array] = []

    def feed(self, piece: bytes) -> Iterator[dict[str, Any]]:
        """The frames that are whole with this piece. Raises BrokenStream where it is none."""
        self._held += piece
        while self._begun() and self._filled():
            assert self._frame is not None, "it has begun"
            frame, self._frame = self._frame, None
            yield frame

    def _begun(self) -> bool:
        """Read the JSON of the next frame, once it is here."""
        if self._frame is not None:
            return True
        length = int.from_bytes(self._held[:4], "little")
        if len(self._held) >= 4 and length > LONGEST_JSON:
            raise BrokenStream(f"this is no stream of frames: a frame of {length} bytes")
        if len(self._held) < 4 + length or not self._held:
            return False
        header = bytes(self._held[4 : 4 + length])
        del self._held[: 4 + length]
        try:
            frame = json.loads(header, object_hook=self._place)
        except (ValueError, TypeError) as error:
            raise BrokenStream(f"this is no stream of frames: {error}") from None
        if not isinstance(frame, dict):
            raise BrokenStream("this is no stream of frames: a frame without an event")
        self._frame = frame
        return True

    def _place(self, content: dict[str, Any]) -> Any:
        """An array for a tensor; the library comes by in the order of the text."""
        if content.keys() != SIZED:
            return content
        self._arrays.append(empty(content))
        return self._arrays[-1]

    def _filled(self) -> bool:
        """Fill the arrays of the frame, in order, as far as their bytes are here."""
        while self._arrays:
            array = self._arrays[0]
            if len(self._held) < array.nbytes:
                return False
            array.reshape(-1).view(np.uint8)[:] = np.frombuffer(self._held, np.uint8, array.nbytes)
            del self._held[: array.nbytes]
            self._arrays.pop(0)
        return True
