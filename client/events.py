"""From the frames of a stream to steps and the answer, or the error that it tells of."""

from __future__ import annotations

from collections.abc import Iterator

from client.answers import Answer, Step
from client.errors import BrokenStream, failure_in_stream
from client.frames import Frames


class Events:
    """Reads one stream: pieces of bytes in, steps out, then the answer."""

    def __init__(self) -> None:
        self._frames = Frames()
        self.answer: Answer | None = None

    def feed(self, piece: bytes) -> Iterator[Step]:
        """The steps that are whole with this piece. Raises ApiError for `event: error`, BrokenStream."""
        for frame in self._frames.feed(piece):
            match frame.pop("event", None):
                case "step":
                    yield Step.read(frame)
                case "done":
                    self.answer = Answer.read(frame)
                case "error":
                    raise failure_in_stream(frame)
                # A kind of event that a newer server has is not for this client.

    def end(self) -> Answer:
        """The answer, once nothing more comes. Raises BrokenStream where there is none."""
        if self.answer is None:
            raise BrokenStream("the stream broke off before its end")
        return self.answer
