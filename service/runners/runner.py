"""The seam between scheduling and computing: a runner holds tensors and computes, and decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import numpy as np

from model.codecs import Tensors
from model.errors import first_line
from model.row import Arrays, Bucket, Floats, Row
from service.runners.computing import Computing

Device = Literal["cpu", "cuda"]
Batch = Sequence[int]  # slots of one bucket that take a step together
Flight = int  # a launch that is under way
R = TypeVar("R")


@dataclass(frozen=True)
class View:
    """What a caller wants to see of a state, so that nothing else is ever copied."""

    select: Literal["readout", "pooled", "full"]
    tokens: tuple[int, ...] = ()  # for `readout`: the rows of the state (N, D) that the readout reads

    def of(self, state: Tensors) -> Tensors:
        """A copy of what is wanted: readout (tokens, D), pooled (D,), full the whole of every tensor."""
        if self.select == "readout":
            return {name: values[list(self.tokens)] for name, values in state.items()}
        if self.select == "pooled":
            return {name: values.mean(axis=0) for name, values in state.items()}
        return {name: np.array(values) for name, values in state.items()}


@dataclass(frozen=True)
class Carry:
    """All that a row needs to go on thinking in another slot, another time or another runner of its kind.

    A row that has not been embedded yet is a carry without arrays: there is one way into a slot.
    """

    row: Row
    depth: int = 0
    arrays: Arrays | None = None  # context, state and memory, each without the batch axis, padded


class NotEmbedded(RuntimeError):
    """The model's embedding has refused a row that was launched alone."""


@dataclass(frozen=True)
class Landing:
    """What a launch showed: logits (B, ...) and scores (B, S), rows in the batch's order."""

    flight: Flight
    logits: Floats
    scores: Floats
    state: Callable[[int, View], Tensors]  # of a slot after this step; ask before the slot's next launch
    seconds: float = 0.0  # what it took
    error: Exception | None = None  # the launch failed; there is nothing to read
    embed_seconds: float = 0.0  # what it took before that to embed those who were new
    unembedded: Sequence[int] = ()  # places in the batch of rows that cannot be embedded: they show nothing


class Runner(Protocol):
    """Holds tensors by slot and steps batches of slots. Called by one thread, but for `wake`.

    Everything takes effect in the order in which it is asked for, whenever it happens: a slot may be
    released and put to use again while a step with it is under way.
    """

    backend: str  # "onnx" or "torchscript"
    device: str  # "cpu" or "cuda"
    workers: int  # launches that are computed at the same time
    lean: bool  # whether a step can be taken lean, with the manifest's lean scores alone
    ahead: bool  # whether a row is launched again before its last launch is decided
    computing: Computing  # what is told of it with its model

    @property
    def room(self) -> int:
        """How many launches may be under way."""
        ...

    def rows_per_batch(self, bucket: Bucket) -> int:
        """How many rows of this bucket make a batch that suits the device."""
        ...

    def cost(self, bucket: Bucket) -> float:
        """Seconds that a row of this bucket takes for a step: measured, or the best guess until then."""
        ...

    def put(self, slot: int, carry: Carry) -> None:
        """Seat a row in a free slot, new or in mid-thought."""
        ...

    def embed(self, slot: int) -> None:
        """Embed a row that is new now, for whoever wants to change its state before the first step."""
        ...

    def take(self, slot: int) -> Carry:
        """Lift a row out of its slot, exactly as it is; no launch of it may be under way."""
        ...

    def release(self, slot: int) -> None:
        """Empty a slot. Harmless where it is empty."""
        ...

    def launch(self, batch: Batch, shown: Sequence[int], lean: bool = False) -> Flight:
        """Begin a step of a batch; the states of the slots `shown` will be asked for when it lands.

        lean: of the scores only those of a lean step will be looked at, and what scores remember of a
        step is of no use to anybody; a row is launched lean always or never.
        """
        ...

    def land(self) -> list[Landing]:
        """Wait for a launch; all that are done, oldest first, never two of one row. None after `wake`."""
        ...

    def wake(self) -> None:
        """Let a `land` that waits return with nothing. Called by any thread."""
        ...

    def close(self) -> None:
        """Let go of threads and device memory. Harmless when repeated."""
        ...


def embed_apart(rows: Sequence[R], alone: bool, embed: Callable[[Sequence[R]], None]) -> list[R]:
    """Embed new rows together, or one by one where that fails: their neighbours do not suffer for one.

    alone: whether nobody else is in the batch. Returns those that cannot be embedded. Raises NotEmbedded
    where that is the only one.
    """
    try:
        embed(rows)
    except Exception as error:
        if alone:
            raise NotEmbedded(first_line(error)) from error
    else:
        return []
    broken = []
    for row in rows:
        try:
            embed([row])
        except Exception:  # noqa: BLE001  whatever a backend makes of a row that is no problem
            broken.append(row)
    return broken


NOTHING: Floats = np.zeros((0, 0), np.float32)


def failed(flight: Flight, error: Exception) -> Landing:
    """The landing of a launch that failed."""
    unembedded = (0,) if isinstance(error, NotEmbedded) else ()
    return Landing(flight, NOTHING, NOTHING, lambda *_: {}, error=error, unembedded=unembedded)
