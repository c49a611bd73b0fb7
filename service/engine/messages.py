"""What goes into an engine and what comes out: trajectories in, events out.

A Trajectory is one row with its own budget, halting rule and deadline: a problem, or one of its samples.
A Submission is what one request asks for; its trajectories share a fate when the client goes away. The
engine answers with events, in order; a submission is over after one Finished event per trajectory.
"""

from __future__ import annotations

from dataclasses import dataclass

from model.codecs import Tensors
from model.halting import HaltingRule, HaltReason
from model.row import Floats, Row
from service.engine.steering import Steering
from service.engine.tally import Tally
from service.runners.runner import Carry, View

TO_THE_END = HaltingRule()  # no criterion: exactly max_steps
EVENT_BYTES = 1024  # what an event takes beside what follows: objects now, JSON later
READOUT_BYTES = 32  # for every number of a readout
# Why a row ended; the second goes on with what the model's embedding says.
NOT_FINITE = "the model's readout is not finite"
NOT_EMBEDDED = "the model cannot read this row"


@dataclass(frozen=True)
class Thought:
    """Where a row has stopped thinking, and with what it showed: all that it needs to go on later."""

    carry: Carry
    reason: HaltReason
    rule: HaltingRule = TO_THE_END
    min_steps: int = 1
    held_for: int = 0  # steps running for which the rule has held
    logits: Floats | None = None
    scores: Floats | None = None
    tally: Tally | None = None
    error: str | None = None
    steered: bool = False  # whether a caller has changed its state


@dataclass(frozen=True)
class Trajectory:
    """One row of work and the caller's terms."""

    row: Row
    max_steps: int
    min_steps: int = 1
    rule: HaltingRule = TO_THE_END
    deadline: float | None = None  # on the engine's clock (time.monotonic), seconds
    every_step: bool = False  # emit a Stepped event per step
    view: View | None = None  # what events show of the state
    steering: Steering | None = None  # what is done to the state before steps
    tallies: bool = False  # count what every step answers
    keeps: bool = False  # hand over at the end what it takes to go on
    before: Thought | None = None  # where it goes on, instead of beginning
    scored: bool = True  # whether anybody sees its scores, but for the one it halts on

    def __post_init__(self) -> None:
        if not 1 <= self.min_steps <= self.max_steps:
            raise ValueError(f"need 1 <= min_steps {self.min_steps} <= max_steps {self.max_steps}")

    @property
    def steps_left(self) -> int:
        """The most steps this can take."""
        return self.max_steps - (0 if self.before is None else self.before.carry.depth)

    @property
    def goes_on_as_before(self) -> bool:
        """Whether the terms under which it halts are those under which it stopped."""
        before = self.before
        return before is not None and (before.rule, before.min_steps) == (self.rule, self.min_steps)

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to think about: it had halted or failed, or has no step left."""
        before = self.before
        return before is not None and (
            before.error is not None
            or not self.steps_left
            or (before.reason is HaltReason.HALTED and self.goes_on_as_before)
        )


@dataclass(frozen=True)
class Stepped:
    """A problem has taken a step and thinks on, or has just taken its last."""

    index: int  # the problem's place in its submission
    step: int  # 1 is the first
    logits: Floats  # (C,) or what the readout is, without batch axis and padding
    scores: Floats  # (S,), in the manifest's order
    state: Tensors | None = None  # by state name, without batch axis and padding, cut to the problem's view
    last: bool = False  # a Finished event follows at once

    @property
    def nbytes(self) -> int:
        """About what it takes to keep."""
        states = sum(values.nbytes for values in (self.state or {}).values())
        return EVENT_BYTES + READOUT_BYTES * self.logits.size + states


@dataclass(frozen=True)
class Finished:
    """A problem is done. Without logits only when it was cancelled or failed before its first step."""

    index: int
    steps: int
    reason: HaltReason
    logits: Floats | None = None
    scores: Floats | None = None
    state: Tensors | None = None
    error: str | None = None  # what went wrong, for reason "error"
    queue_seconds: float = 0.0  # without a slot
    compute_seconds: float = 0.0  # in one
    tally: Tally | None = None  # where it was asked for
    thought: Thought | None = None  # where it is to be kept
    taken: int = 0  # steps of this request; `steps` counts from the beginning
    embed_seconds: float = 0.0  # of compute_seconds, before its first step


Event = Stepped | Finished


@dataclass(frozen=True, eq=False)  # identity is what tells two submissions apart
class Submission:
    """The problems of one request."""

    trajectories: tuple[Trajectory, ...]
    arrived: float  # on the engine's clock, seconds
    key: str = ""  # on whose account it thinks
    id: str = ""  # of the request, by which its key may stop it

    @property
    def steps(self) -> int:
        """The most steps this can take."""
        return sum(trajectory.steps_left for trajectory in self.trajectories)
