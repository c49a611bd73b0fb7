"""The seam between scheduling and computing: a runner holds tensors and computes, and decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from model.codecs import Tensors
from model.errors import first_line
from model.halting import Decision, Steps
from model.row import Arrays, Bucket, Floats, Row
from service.runners.computing import Computing

Device = Literal["cpu", "cuda"]
Batch = Sequence[int]  # slots of one bucket that take a step together
Flight = int  # a launch that is under way
R = TypeVar("R")
# A launch begins no further step once it has taken so long. Longer launches save little more
# (docs/performance.md), and whoever has a deadline within that time takes no course.
COURSE_SECONDS = 2e-3


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


@dataclass(frozen=True, eq=False)
class Course:
    """On what terms the rows of a batch may take several steps in one launch; arrays are (B,), in its order.

    Every row takes a step, and goes on until it is over, by `decide` or because its budget is used up; never
    a step further, so that its answer and depth are those of single steps. A runner may take fewer steps
    than that, and may end a launch as a whole with the first row that is over, as `Headway` says.
    """

    steps: int  # that a row takes, at most
    depth: Steps  # before the first of them
    held_for: Steps  # before the first of them: for how many steps running the criterion has held
    terms: NDArray[np.void]  # TERMS
    decision: Decision  # on these terms


class Headway:
    """How far a batch has come on its course, for a runner whose rows all take the same number of steps."""

    def __init__(self, course: Course, wanted: Callable[[], bool]) -> None:
        """wanted: whether the launch should end with the step that has just been taken, whatever it shows."""
        self.taken = 0  # steps, by each row
        self.held_for = course.held_for  # before the last of them
        self._course = course
        self._wanted = wanted
        self._most = min(course.steps, int(np.minimum.reduce(course.terms["max_steps"] - course.depth)))

    @property
    def left(self) -> int:
        """The most steps that all may yet take."""
        return self._most - self.taken

    def goes_on(self, logits: Floats, scores: Floats) -> bool:
        """Count a step that showed this; whether all take another. Ends with a number that is none."""
        self.taken += 1
        if not self.left or self._wanted():
            return False
        if not np.logical_and.reduce(np.isfinite(logits), axis=None):  # of padding, too
            return False
        course = self._course
        if course.decision.watches:
            halted, _, held_for = course.decision.after(scores, course.depth + self.taken, self.held_for)
            if np.logical_or.reduce(halted):
                return False
            self.held_for = held_for
        return True


class NotEmbedded(RuntimeError):
    """The model's embedding has refused a row that was launched alone."""


@dataclass(frozen=True)
class Landing:
    """What a launch showed: logits (B, ...) and scores (B, S), rows in the batch's order.

    Of a launch on a course, both are those of the last step that each row took.
    """

    flight: Flight
    logits: Floats
    scores: Floats
    state: Callable[[int, View], Tensors]  # of a slot after this step; ask before the slot's next launch
    seconds: float = 0.0  # what it took, all of its steps
    error: Exception | None = None  # the launch failed; there is nothing to read
    embed_seconds: float = 0.0  # what it took before that to embed those who were new
    unembedded: Sequence[int] = ()  # places in the batch of rows that cannot be embedded: they show nothing
    # On a course: the steps that each row took, (B,), the one that shows NaN among them; where the launch
    # failed, those that came through before. None: one each, or none where it failed.
    taken: Steps | None = None
    held_for: Steps | None = (
        None  # (B,) on a course, before each row's last step: nobody has decided about it
    )


class Runner(Protocol):
    """Holds tensors by slot and steps batches of slots. Called by one thread, but for `wake`.

    Everything takes effect in the order in which it is asked for, whenever it happens: a slot may be
    released and put to use again while a step with it is under way.
    """

    backend: str  # "onnx" or "torchscript"
    device: str  # "cpu" or "cuda"
    workers: int  # launches that are computed at the same time
    lean: bool  # whether a step can be taken lean, with the manifest's lean scores alone
    ahead: bool  # whether a row is launched again before its last launch is decided; then on no course
    bursts: bool  # whether it takes several steps in a launch on a course
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

    def launch(
        self, batch: Batch, shown: Sequence[int], lean: bool = False, course: Course | None = None
    ) -> Flight:
        """Begin a step of a batch; the states of the slots `shown` will be asked for when it lands.

        lean: of the scores only those of a lean step will be looked at, and what scores remember of a
        step is of no use to anybody; a row is launched lean always or never.

        course: how many steps more it may be, for a runner that bursts. It begins none of them after
        COURSE_SECONDS, nor once somebody has called `wake` or waits for what it computes with.
        """
        ...

    def land(self) -> list[Landing]:
        """Wait for a launch; all that are done, oldest first, never two of one row. None after `wake`."""
        ...

    def wake(self) -> None:
        """Let a `land` that waits return with nothing, and courses end. Called by any thread."""
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


def failed(flight: Flight, error: Exception, taken: Steps | None = None) -> Landing:
    """The landing of a launch that failed, after so many steps of each row, (B,)."""
    unembedded = (0,) if isinstance(error, NotEmbedded) else ()
    return Landing(flight, NOTHING, NOTHING, lambda *_: {}, error=error, unembedded=unembedded, taken=taken)
