"""manifest.json: what a bundle says about itself. The one description both sides agree on.

A served model is any iterative model with two graphs:

    embed: inputs -> context, state, memory
    step:  context, state, memory (, depth) -> next state, next memory, logits, scores

Context stays, state is the latent a caller may read, memory is what the scores remember of the
last step. Every context, state and memory tensor leaves `embed` and enters `step` under its own
name; the step's outputs are called next_<name>, `logits` and `scores`. Shapes are lists of sizes
and axis names; the first is always the batch, "B".
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from model.halting import CRITERIA, HaltingRule

FORMAT_VERSION = 1
DType = Literal["float32", "float16", "int64", "int32", "bool"]
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class Part(BaseModel):
    """Base of every manifest section: immutable, and strict about what it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TensorSpec(Part):
    """One tensor: its name, its type and its shape, batch first."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    dtype: DType
    shape: Annotated[tuple[int | str, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _batch_first(self) -> Self:
        if self.shape[0] != "B":
            raise ValueError(f"tensor {self.name!r}: the first axis must be the batch, 'B'")
        if any(isinstance(size, int) and size < 1 for size in self.shape):
            raise ValueError(f"tensor {self.name!r}: sizes must be at least 1")
        return self

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        return np.dtype(self.dtype)


class Axis(Part):
    """A dynamic axis other than the batch: how long it may be, and whether padding is harmless."""

    max: Annotated[int, Field(ge=1)]
    padded: bool = True  # False: rows of different length never share a batch


class ClassSpec(Part):
    """One class of the readout: its label and the JSON value it means."""

    label: str
    answer: bool | int | float | str


class CodecSpec(Part):
    """The codec that turns a problem into tensors, with the vocabulary it was trained on."""

    name: Literal["graph", "logic", "text", "tensors"]
    vocabulary: dict[str, int] = {}


class StepLimits(Part):
    """How many steps a request takes when it does not say, and how many it may ask for."""

    default: Annotated[int, Field(ge=1)]
    limit: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _default_within_limit(self) -> Self:
        if self.default > self.limit:
            raise ValueError(f"default of {self.default} steps is over the limit of {self.limit}")
        return self


class RulePart(Part):
    """A halting rule in a manifest."""

    criterion: str
    threshold: float
    patience: int = 1

    @model_validator(mode="after")
    def _is_a_rule(self) -> Self:
        self.rule()
        return self

    def rule(self) -> HaltingRule:
        """The rule as the engine takes it. Raises ValueError where it is none."""
        return HaltingRule(self.criterion, self.threshold, self.patience)


class HaltingDefault(RulePart):
    """The rule a request follows when it names none."""

    min_steps: Annotated[int, Field(ge=1)] = 1


class CalibrationPoint(RulePart):
    """One measured threshold: what it costs and what it keeps, on the calibration split.

    guaranteed is the largest accuracy that can be promised for the hardest difficulty bucket.
    """

    accuracy: float
    mean_steps: float
    hardest_accuracy: float
    guaranteed: float


class Calibration(Part):
    """The threshold curve, and how it was measured."""

    problems: int
    max_steps: int  # the budget the points were measured under
    confidence: float  # of a promise, jointly over all points that could be chosen for it
    description: str = ""
    points: tuple[CalibrationPoint, ...] = ()

    def cheapest(self, target: float) -> CalibrationPoint | None:
        """The point with the fewest steps that guarantees this accuracy, if there is one."""
        sound = [point for point in self.points if point.guaranteed >= target]
        return min(sound, key=lambda point: point.mean_steps, default=None)


class FileEntry(Part):
    """A file of the bundle."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0)]


class Manifest(Part):
    """A bundle's manifest; reading one validates everything that does not need the files."""

    format_version: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    task: str
    description: str = ""
    codec: CodecSpec
    classes: tuple[ClassSpec, ...] = ()  # empty: the readout is not a classification
    inputs: Annotated[tuple[TensorSpec, ...], Field(min_length=1)]
    context: tuple[TensorSpec, ...] = ()
    state: Annotated[tuple[TensorSpec, ...], Field(min_length=1)]
    memory: tuple[TensorSpec, ...] = ()
    logits: TensorSpec
    scores: tuple[str, ...] = ()  # the columns of the scores tensor (B, S)
    axes: dict[str, Axis] = {}
    takes_depth: bool = False  # whether step has a last input, depth (B,) int64: steps taken so far
    mask: str | None = None  # the input (B, N) that marks real tokens, if there is one
    steps: StepLimits
    halting: HaltingDefault
    calibration: Calibration | None = None
    training: dict[str, Any] = {}  # provenance: command, config, commit, seed, data seed, device, duration
    parity: dict[str, Any] = {}  # largest differences from torch, per exported file
    files: dict[str, FileEntry]

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        names = [spec.name for spec in (*self.inputs, *self.context, *self.state, *self.memory)]
        for name in {name for name in names if names.count(name) > 1}:
            raise ValueError(
                f"tensor {name!r} is named twice; inputs and carried tensors need names of their own"
            )
        for spec in (*self.inputs, *self.context, *self.state, *self.memory, self.logits):
            for size in spec.shape[1:]:
                if isinstance(size, str) and size not in self.axes:
                    raise ValueError(f"tensor {spec.name!r} has the axis {size!r}, which axes does not list")
        if self.mask is not None and self.mask not in {spec.name for spec in self.inputs}:
            raise ValueError(f"mask names {self.mask!r}, which is not an input")
        for score in self.scores:
            if score not in CRITERIA:
                raise ValueError(f"unknown score {score!r}; known are {', '.join(CRITERIA)}")
        if self.halting.criterion not in ("none", *self.scores):
            raise ValueError(f"default criterion {self.halting.criterion!r} is not among the scores")
        if self.halting.min_steps > self.steps.default:
            raise ValueError("default min_steps is over the default number of steps")
        for file in self.files:
            if not FILE_NAME.fullmatch(file):
                raise ValueError(f"file {file!r} would leave the bundle's folder; plain names only")
        return self

    @property
    def step_inputs(self) -> tuple[str, ...]:
        """Names of the step's inputs, in order."""
        carried = (*self.context, *self.state, *self.memory)
        return (*(spec.name for spec in carried), *(("depth",) if self.takes_depth else ()))

    @property
    def step_outputs(self) -> tuple[str, ...]:
        """Names of the step's outputs, in order."""
        return (*(f"next_{spec.name}" for spec in (*self.state, *self.memory)), "logits", "scores")

    @property
    def embed_outputs(self) -> tuple[str, ...]:
        """Names of the embedding's outputs, in order."""
        return tuple(spec.name for spec in (*self.context, *self.state, *self.memory))
