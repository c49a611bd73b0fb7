"""manifest.json: what a bundle says about itself. The one description both sides agree on.

A served model is any iterative model with two graphs:

    embed: inputs -> context, state, memory
    step:  context, state, memory (, depth) -> next state, next memory, logits, scores

Context stays, state is the latent a caller may read, memory is what the scores remember of the
last step. Every context, state and memory tensor leaves `embed` and enters `step` under its own
name; the step's outputs are called next_<name>, `logits` and, if there are any, `scores`. Shapes
are lists of sizes and axis names; the first is always the batch, "B".
"""

from __future__ import annotations

import math
import re
from functools import cached_property
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from model.bounds import (
    MOST_AXES,
    MOST_BYTES,
    MOST_CLASSES,
    MOST_FILES,
    MOST_LIMITS,
    MOST_PROBLEMS,
    MOST_SCORES,
    MOST_TENSORS,
    MOST_VALUES,
    MOST_WORDS,
    Example,
    Facts,
    Name,
    Number,
    Part,
    Size,
    Steps,
    Text,
    plain,
)
from model.calibration import Calibration, HaltingDefault
from model.halting import AGREEMENT, AGREES, CRITERIA, FAR, Criterion

FORMAT_VERSION = 1
NO_SCORES = ("none", AGREEMENT)  # criteria that are no columns of the scores
DType = Literal["float32", "float16", "int64", "int32", "bool"]
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


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

    @cached_property
    def numpy_dtype(self) -> np.dtype[Any]:
        return np.dtype(self.dtype)


Tensors = Annotated[tuple[TensorSpec, ...], Field(max_length=MOST_TENSORS)]


class Axis(Part):
    """A dynamic axis other than the batch: how long it may be, and whether padding is harmless."""

    max: Size
    padded: bool = True  # False: rows of different length never share a batch


class ClassSpec(Part):
    """One class of the readout: its label and the JSON value it means, none for "not known yet"."""

    label: Name
    answer: Annotated[bool | int | float | Name | None, AfterValidator(plain)] = None


class CodecSpec(Part):
    """The codec that turns a problem into tensors, with the vocabulary it was trained on."""

    name: Annotated[Name, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    vocabulary: dict[Name, Annotated[int, Field(ge=0, lt=MOST_WORDS)]] = Field(
        default_factory=dict, max_length=MOST_WORDS
    )


Place = Name | Size  # an axis by its name, or a fixed size


class Readout(Part):
    """What the logits are: one answer (B, C), one per token (B, axis, C), or the output itself (B, ...)."""

    kind: Literal["classes", "tokens", "tensor"] = "classes"
    # Of `tokens`: the axis they lie along (or how many there always are), or several of a grid's cells.
    axis: Place | Annotated[tuple[Place, ...], Field(min_length=1, max_length=MOST_AXES)] | None = None

    @model_validator(mode="after")
    def _axis_of_tokens(self) -> Self:
        if (self.axis is not None) != (self.kind == "tokens"):
            raise ValueError("an axis belongs to the kind tokens, and to no other")
        return self

    @property
    def axes(self) -> tuple[Place, ...]:
        """The axes along which there are answers; none where there is one answer, or no answer."""
        return (self.axis,) if isinstance(self.axis, str | int) else self.axis or ()


class OwnScore(Part):
    """A score that only this bundle computes, and when a row halts on it."""

    name: Annotated[Name, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    halts: Literal["above", "below"]
    default: Number

    @property
    def criterion(self) -> Criterion:
        return Criterion(self.name, self.halts == "above", self.default, -FAR, FAR, "a score of this model")


class Domain(Part):
    """What a model is right about: a sentence for people, and limits of what a codec can measure."""

    sentence: Annotated[str, Field(min_length=1, max_length=1_000)]
    limits: dict[Name, Annotated[int, Field(ge=0, le=MOST_PROBLEMS)]] = Field(
        default_factory=dict, max_length=MOST_LIMITS
    )


class StepLimits(Part):
    """How many steps a request takes when it does not say, and how many it may ask for."""

    default: Steps
    limit: Steps

    @model_validator(mode="after")
    def _default_within_limit(self) -> Self:
        if self.default > self.limit:
            raise ValueError(f"default of {self.default} steps is over the limit of {self.limit}")
        return self


class FileEntry(Part):
    """A file of the bundle."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0, le=MOST_BYTES)]


class Manifest(Part):
    """A bundle's manifest; reading one validates everything that does not need the files."""

    format_version: Literal[1] = 1
    name: Annotated[Name, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    version: Annotated[Name, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    # Other names that requests may call it by, where no model is called so.
    aliases: Annotated[
        tuple[Annotated[Name, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")], ...], Field(max_length=MOST_AXES)
    ] = ()
    task: Name
    description: Text = ""
    codec: CodecSpec
    readout: Readout = Readout()
    # In the order of the logits' last axis; none where the readout is a tensor.
    classes: Annotated[tuple[ClassSpec, ...], Field(max_length=MOST_CLASSES)] = ()
    inputs: Annotated[Tensors, Field(min_length=1)]
    context: Tensors = ()
    state: Annotated[Tensors, Field(min_length=1)]
    memory: Tensors = ()
    logits: TensorSpec
    # The columns of the scores tensor (B, S), which a step without scores does not give.
    scores: Annotated[tuple[Name | OwnScore, ...], Field(max_length=MOST_SCORES)] = ()
    # The scores of a lean step (lean.onnx, or `lean` of model.ts), which remembers nothing: for rows of which
    # nobody sees another score or goes on later. None: there is none.
    lean: Annotated[tuple[Name, ...], Field(max_length=MOST_SCORES)] | None = None
    axes: dict[Name, Axis] = Field(default_factory=dict, max_length=MOST_AXES)
    takes_depth: bool = False  # whether step has a last input, depth (B,) int64: steps taken so far
    mask: Name | None = None  # the input that marks real tokens with true or 1, if there is one
    steps: StepLimits
    halting: HaltingDefault = HaltingDefault(criterion="none", threshold=0.0)
    calibration: Calibration | None = None
    example: Example = None  # a problem, for codecs that cannot know one
    domain: Domain | None = None
    # Provenance: command, config, commit, seed, data seed, device, duration.
    training: Facts = Field(default_factory=dict)
    parity: Facts = Field(default_factory=dict)  # largest differences from torch, per exported file
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
        told = {size for spec in self.inputs for size in spec.shape}
        for axis in self.axes:
            if axis not in told:
                raise ValueError(f"the axis {axis!r} is in no input: nothing tells its length")
        if self.mask is not None and self.mask not in {spec.name for spec in self.inputs}:
            raise ValueError(f"mask names {self.mask!r}, which is not an input")
        if self.halting.min_steps > self.steps.default:
            raise ValueError("default min_steps is over the default number of steps")
        for file in self.files:
            if not FILE_NAME.fullmatch(file):
                raise ValueError(f"file {file!r} would leave the bundle's folder; plain names only")
        return self

    @model_validator(mode="after")
    def _scores_and_rules(self) -> Self:
        for score in self.scores:
            if isinstance(score, str) and (score not in CRITERIA or score in NO_SCORES):
                known = ", ".join(name for name in CRITERIA if name not in NO_SCORES)
                raise ValueError(f"unknown score {score!r}; known are {known}; say of others when they halt")
            if isinstance(score, OwnScore) and score.name in CRITERIA:
                raise ValueError(f"score {score.name!r} has the name of a built-in one; choose another")
        for name in self.score_names:
            if self.score_names.count(name) > 1:
                raise ValueError(f"score {name!r} is named twice")
        for name in self.lean or ():
            if name not in self.score_names:
                raise ValueError(f"the lean step's score {name!r} is not among the scores")
        if self.halting.criterion not in self.criteria:
            raise ValueError(f"default criterion {self.halting.criterion!r} is not among the scores")
        for point in self.calibration.points if self.calibration else ():
            if point.criterion not in self.criteria:
                raise ValueError(f"calibrated criterion {point.criterion!r} is not among the scores")
        return self

    @model_validator(mode="after")
    def _readout_fits(self) -> Self:
        kind, shape = self.readout.kind, self.logits.shape
        if kind == "tensor":
            if self.classes:
                raise ValueError("the readout is a tensor, which has no classes; leave them out")
            return self
        if not self.classes or shape != ("B", *self.readout.axes, len(self.classes)):
            raise ValueError(
                f"the readout is {kind} and there are {len(self.classes)} classes, but logits has the shape "
                f"{list(shape)}; give one class per column, or the readout the kind tensor"
            )
        return self

    @cached_property
    def score_names(self) -> tuple[str, ...]:
        """Names of the columns of the scores tensor."""
        return tuple(score if isinstance(score, str) else score.name for score in self.scores)

    @cached_property
    def criteria(self) -> dict[str, Criterion]:
        """What a row of this model can halt on, by name; `none` first, then as the scores' columns."""
        own = [CRITERIA[score] if isinstance(score, str) else score.criterion for score in self.scores]
        if set(AGREES) <= set(self.score_names):
            own.append(CRITERIA[AGREEMENT])
        return {criterion.name: criterion for criterion in (CRITERIA["none"], *own)}

    @property
    def step_inputs(self) -> tuple[str, ...]:
        """Names of the step's inputs, in order."""
        carried = (*self.context, *self.state, *self.memory)
        return (*(spec.name for spec in carried), *(("depth",) if self.takes_depth else ()))

    @property
    def step_outputs(self) -> tuple[str, ...]:
        """Names of the step's outputs, in order."""
        following = (f"next_{spec.name}" for spec in (*self.state, *self.memory))
        return (*following, "logits", *(("scores",) if self.scores else ()))

    @property
    def lean_inputs(self) -> tuple[str, ...]:
        """Names of the lean step's inputs, in order."""
        kept = (*self.context, *self.state)
        return (*(spec.name for spec in kept), *(("depth",) if self.takes_depth else ()))

    @property
    def lean_outputs(self) -> tuple[str, ...]:
        """Names of the lean step's outputs, in order."""
        return (*(f"next_{spec.name}" for spec in self.state), "logits", *(("scores",) if self.lean else ()))

    @property
    def embed_outputs(self) -> tuple[str, ...]:
        """Names of the embedding's outputs, in order."""
        return tuple(spec.name for spec in (*self.context, *self.state, *self.memory))
