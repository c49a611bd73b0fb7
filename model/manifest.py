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

import math
import re
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from model.halting import CRITERIA, FAR, MOST_STEPS, HaltingRule

FORMAT_VERSION = 1
DType = Literal["float32", "float16", "int64", "int32", "bool"]
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")

# Bounds of what a manifest may say: far above what a bundle needs, far below what breaks a server.
LONGEST_AXIS = 2**20
MOST_VALUES = 2**24  # of a tensor's fixed sizes, multiplied
MOST_TENSORS, MOST_AXES, MOST_CLASSES, MOST_FILES = 64, 8, 10_000, 1_000
MOST_WORDS, MOST_POINTS, MOST_PROBLEMS = 100_000, 10_000, 10**9
MOST_BYTES = 2**40
MOST_LEVELS = 32  # of lists and objects in one another, where a manifest is free to say what it likes
INTEGERS = 2**64


def _plain(content: Any, level: int = 0) -> Any:
    """Content that can be written as JSON wherever it is shown. Raises ValueError for any other."""
    if level > MOST_LEVELS:
        raise ValueError(f"nested more than {MOST_LEVELS} levels deep")
    if isinstance(content, str):
        content.encode()
    elif isinstance(content, float | int) and not -INTEGERS < content < INTEGERS:
        raise ValueError("a number over 64 bits, or none at all")
    elif isinstance(content, dict):
        for part in (*content, *content.values()):
            _plain(part, level + 1)
    elif isinstance(content, list | tuple):
        for part in content:
            _plain(part, level + 1)
    return content


Name = Annotated[str, Field(max_length=128)]
Text = Annotated[str, Field(max_length=10_000)]
Steps = Annotated[int, Field(ge=1, le=MOST_STEPS)]
Size = Annotated[int, Field(ge=1, le=LONGEST_AXIS)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Number = Annotated[float, Field(ge=-FAR, le=FAR, allow_inf_nan=False)]
Facts = Annotated[dict[str, Any], AfterValidator(_plain)]


class Part(BaseModel):
    """Base of every manifest section: immutable, and strict about what it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TensorSpec(Part):
    """One tensor: its name, its type and its shape, batch first."""

    name: Annotated[Name, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    dtype: DType
    shape: Annotated[tuple[Size | Name, ...], Field(min_length=1, max_length=MOST_AXES)]

    @model_validator(mode="after")
    def _batch_first(self) -> Self:
        if self.shape[0] != "B":
            raise ValueError(f"tensor {self.name!r}: the first axis must be the batch, 'B'")
        if math.prod(size for size in self.shape if isinstance(size, int)) > MOST_VALUES:
            raise ValueError(f"tensor {self.name!r}: its fixed sizes make more than {MOST_VALUES} values")
        return self

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        return np.dtype(self.dtype)


Tensors = Annotated[tuple[TensorSpec, ...], Field(max_length=MOST_TENSORS)]


class Axis(Part):
    """A dynamic axis other than the batch: how long it may be, and whether padding is harmless."""

    max: Size
    padded: bool = True  # False: rows of different length never share a batch


class ClassSpec(Part):
    """One class of the readout: its label and the JSON value it means."""

    label: Name
    answer: Annotated[bool | int | float | Name, AfterValidator(_plain)]


class CodecSpec(Part):
    """The codec that turns a problem into tensors, with the vocabulary it was trained on."""

    name: Literal["graph", "logic", "text", "tensors"]
    vocabulary: Annotated[
        dict[Name, Annotated[int, Field(ge=0, lt=MOST_WORDS)]], Field(max_length=MOST_WORDS)
    ] = {}


class StepLimits(Part):
    """How many steps a request takes when it does not say, and how many it may ask for."""

    default: Steps
    limit: Steps

    @model_validator(mode="after")
    def _default_within_limit(self) -> Self:
        if self.default > self.limit:
            raise ValueError(f"default of {self.default} steps is over the limit of {self.limit}")
        return self


class RulePart(Part):
    """A halting rule in a manifest."""

    criterion: Name
    threshold: Number
    patience: Steps = 1

    @model_validator(mode="after")
    def _is_a_rule(self) -> Self:
        self.rule()
        return self

    def rule(self) -> HaltingRule:
        """The rule as the engine takes it. Raises ValueError where it is none."""
        return HaltingRule(self.criterion, self.threshold, self.patience)


class HaltingDefault(RulePart):
    """The rule a request follows when it names none."""

    min_steps: Steps = 1


class CalibrationPoint(RulePart):
    """One measured threshold: what it costs and what it keeps, on the calibration split.

    guaranteed is the largest accuracy that can be promised for the hardest difficulty bucket.
    """

    accuracy: Share
    mean_steps: Annotated[float, Field(ge=0, le=MOST_STEPS, allow_inf_nan=False)]
    hardest_accuracy: Share
    guaranteed: Share


class Calibration(Part):
    """The threshold curve, and how it was measured."""

    problems: Annotated[int, Field(ge=0, le=MOST_PROBLEMS)]
    max_steps: Steps  # the budget the points were measured under
    confidence: Share  # of a promise, jointly over all points that could be chosen for it
    description: Text = ""
    points: Annotated[tuple[CalibrationPoint, ...], Field(max_length=MOST_POINTS)] = ()

    def cheapest(self, target: float) -> CalibrationPoint | None:
        """The point with the fewest steps that guarantees this accuracy, if there is one."""
        sound = [point for point in self.points if point.guaranteed >= target]
        return min(sound, key=lambda point: point.mean_steps, default=None)


class FileEntry(Part):
    """A file of the bundle."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0, le=MOST_BYTES)]


class Manifest(Part):
    """A bundle's manifest; reading one validates everything that does not need the files."""

    format_version: Literal[1] = 1
    name: Annotated[Name, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    version: Annotated[Name, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    task: Name
    description: Text = ""
    codec: CodecSpec
    # Empty: the readout is not a classification.
    classes: Annotated[tuple[ClassSpec, ...], Field(max_length=MOST_CLASSES)] = ()
    inputs: Annotated[Tensors, Field(min_length=1)]
    context: Tensors = ()
    state: Annotated[Tensors, Field(min_length=1)]
    memory: Tensors = ()
    logits: TensorSpec
    # The columns of the scores tensor (B, S).
    scores: Annotated[tuple[Name, ...], Field(max_length=len(CRITERIA))] = ()
    axes: Annotated[dict[Name, Axis], Field(max_length=MOST_AXES)] = {}
    takes_depth: bool = False  # whether step has a last input, depth (B,) int64: steps taken so far
    mask: Name | None = None  # the input (B, N) that marks real tokens, if there is one
    steps: StepLimits
    halting: HaltingDefault
    calibration: Calibration | None = None
    training: Facts = {}  # provenance: command, config, commit, seed, data seed, device, duration
    parity: Facts = {}  # largest differences from torch, per exported file
    files: Annotated[dict[Name, FileEntry], Field(max_length=MOST_FILES)]

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
