"""What goes into an engine and what comes out: problems in, events out.

A Problem is one row with its own budget, halting rule and deadline. A Submission is what one
request asks for, its problems sharing a fate when the client goes away. The engine answers with
events, in order; a submission is over after one Finished event per problem.
"""

from __future__ import annotations

from dataclasses import dataclass

from model.codecs import Tensors
from model.halting import HaltingRule, HaltReason
from model.row import Floats, Row
from service.runners.runner import View

TO_THE_END = HaltingRule()  # no criterion: exactly max_steps
EVENT_BYTES = 1024  # what an event takes beside what follows: objects now, JSON later
READOUT_BYTES = 32  # for every number of a readout


@dataclass(frozen=True)
class Problem:
    """One row of work and the caller's terms."""

    row: Row
    max_steps: int
    min_steps: int = 1
    rule: HaltingRule = TO_THE_END
    deadline: float | None = None  # on the engine's clock (time.monotonic), seconds
    every_step: bool = False  # emit a Stepped event per step
    view: View | None = None  # what events show of the state

    def __post_init__(self) -> None:
        if not 1 <= self.min_steps <= self.max_steps:
            raise ValueError(f"need 1 <= min_steps {self.min_steps} <= max_steps {self.max_steps}")


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


Event = Stepped | Finished


@dataclass(frozen=True, eq=False)  # identity is what tells two submissions apart
class Submission:
    """The problems of one request."""

    problems: tuple[Problem, ...]
    arrived: float  # on the engine's clock, seconds
    key: str = ""  # on whose account it thinks

    @property
    def steps(self) -> int:
        """The most steps this can take."""
        return sum(problem.max_steps for problem in self.problems)
