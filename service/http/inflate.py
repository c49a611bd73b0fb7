"""Compressed bodies: decompressed piece by piece, so that whoever counts the pieces can stop in time."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from service.errors import BadRequest, UnknownEncoding

PIECE = 2**16  # bytes that are decompressed at a time
GZIP = 16 + zlib.MAX_WBITS  # how zlib is told to read gzip


class Plain:
    """A body as it was sent."""

    works = False

    def pieces(self, sent: bytes) -> Iterator[bytes]:
        """What a part of the body holds."""
        yield sent

    def end(self) -> None:
        """The body is over."""


class Inflater:
    """A gzip body. Holds no more than a window, a piece, and what was sent last."""

    works = True

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(GZIP)

    def pieces(self, sent: bytes) -> Iterator[bytes]:
        """What a part of the body holds, in pieces. Raises BadRequest where it is not gzip."""
        while sent:
            if self._zlib.eof:
                raise BadRequest("there is more in the body after its gzip data; send it as one member")
            try:
                piece = self._zlib.decompress(sent, PIECE)
            except zlib.error:
                raise BadRequest("the body is not gzip, as its Content-Encoding says") from None
            yield piece
            sent = self._zlib.unconsumed_tail or self._zlib.unused_data

    def end(self) -> None:
        """Raises BadRequest where the data is not complete."""
        if not self._zlib.eof:
            raise BadRequest("the gzip data of the body breaks off")


def inflater_of(encoding: str) -> Plain | Inflater:
    """What reads a body of this Content-Encoding. Raises UnknownEncoding."""
    match encoding.strip().lower():
        case "" | "identity":
            return Plain()
        case "gzip" | "x-gzip":
            return Inflater()
    raise UnknownEncoding("bodies are read as they are or with Content-Encoding: gzip; send one of these")
