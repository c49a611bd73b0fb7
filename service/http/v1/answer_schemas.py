"""What answers, steps and errors look like, as the API page shows them.

Answers are built as plain dictionaries (answers.py), which is faster; tests hold them against the models
here, so that the page tells the truth.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from model.manifest import DType
from service.http.json_body import Part

One = bool | int | float | str
AnswerValue = (
    One | list[One] | None
)  # one per token where the readout is of that kind; none where it is a tensor
Label = str | list[str] | None
Shares = dict[str, float]
Probabilities = Shares | list[Shares] | None
Scores = dict[str, float | None]


class Tensor(Part):
    """A selection of the state, or a readout. data is base64 of little-endian values, or nested lists."""

    shape: list[int]
    dtype: DType
    encoding: Literal["base64", "json"]
    data: Any


class Shown(Part):
    """What steps and results show. What only some models or requests have is absent for the others."""

    answer: AnswerValue
    label: Label
    probabilities: Probabilities = None
    scores: Scores | None = None
    output: Tensor | None = Field(default=None, description="The readout, where that is the answer.")
    latents: Tensor | dict[str, Tensor] | None = Field(
        default=None, description="The selection of the state; by name where the model has several states."
    )


class TraceStep(Shown):
    """One step of one problem."""

    step: int


class StepEvent(TraceStep):
    """The data of `event: step`; index is the problem's place in the input."""

    index: int
    sample: int | None = Field(default=None, description="Which of the samples of this problem.")


class Votes(Part):
    """How the samples of one problem answered. agreement: the share of them whose answer was chosen."""

    votes: dict[str, int]
    agreement: float


class Effect(Part):
    """What the interventions changed: KL(clean || changed) of the last probabilities, in nats."""

    kl: float | None
    answer_changed: bool


class Result(Shown):
    """The end of one problem. answer and label are null where it was cancelled or failed."""

    steps: int
    max_steps: int
    halt_reason: Literal["halted", "budget", "deadline", "cancelled", "error"]
    trace: list[TraceStep] | None = None
    answer_entropy: float | list[float] | None = Field(
        default=None, description="Entropy of the answers over steps, in nats. Only where asked for."
    )
    samples: Votes | None = None
    effect: Effect | None = None
    warnings: list[str] | None = Field(
        default=None, description="Why this answer may be wrong. Only where something is known against it."
    )
    error: str | None = Field(default=None, description="Only where halt_reason is error.")


class Usage(Part):
    steps: int = Field(description="Steps taken over all problems.")


class Timings(Part):
    """Milliseconds. queue and compute are those of the problem that had most; total is from arrival."""

    queue: float
    compute: float
    total: float


class InferAnswer(Part):
    """The whole answer; also the data of `event: done`. results are in the input's order."""

    id: str
    model: str
    version: str
    results: list[Result]
    usage: Usage
    timings_ms: Timings
    dropped_steps: int | None = Field(
        default=None, description="Of a stream: steps that were not read in time and were left out."
    )


class Cancelled(Part):
    id: str
    cancelled: int = Field(description="Problems that had not ended.")


class Fault(Part):
    code: str = Field(description="What kind of error, for programs.")
    message: str = Field(description="What is wrong and what to do, for people.")
    field: str | None = Field(description='Where in the request, in dotted form: "input.edges.3".')


class ErrorBody(Part):
    """The one shape of every error."""

    error: Fault
