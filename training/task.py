"""What the trainer and the evaluation ask of a task. A new task is a new file that answers to this."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from torch import Tensor

from model.manifest import ClassSpec, CodecSpec, Domain
from model.perception import Context, Inputs
from model.recurrent import RecurrentTransformer


@dataclass(frozen=True)
class Batch:
    """Training problems with what is asked about each.

    The weights sum to 1 over the whole batch, so that a loss over some of its rows is a share of
    the loss: processes that take a slice each add up to exactly the loss of one process.
    """

    inputs: Inputs
    labels: Tensor  # (B, Q) int64, the class of each of the Q questions a row is asked
    weights: Tensor  # (B, Q) float32, 0 where a question is not asked
    difficulty: int  # of the hardest question that is asked

    def rows(self, chosen: slice) -> Batch:
        """Some of the rows, their weights unchanged."""
        inputs = type(self.inputs)(*(tensor[chosen] for tensor in self.inputs))
        return Batch(inputs, self.labels[chosen], self.weights[chosen], self.difficulty)

    def to(self, device: str) -> Batch:
        """The batch on another device."""
        inputs = type(self.inputs)(*(tensor.to(device) for tensor in self.inputs))
        return Batch(inputs, self.labels.to(device), self.weights.to(device), self.difficulty)


@dataclass(frozen=True)
class Problems:
    """Evaluation problems, one question each, padded to one length."""

    inputs: Inputs
    labels: Tensor  # (B,) int64
    difficulty: int  # of the hardest of them


class Task(Protocol):
    """Problems of graded difficulty, answered by the readout of a recurrent network."""

    name: ClassVar[str]
    unit: ClassVar[str]  # what a difficulty counts, in the plural: "hops"
    classes: ClassVar[tuple[ClassSpec, ...]]
    splits: ClassVar[tuple[str, ...]]  # kinds of evaluation problems; the first is the one that counts
    buckets: ClassVar[tuple[int, ...]]  # difficulties that are evaluated
    calibrated: ClassVar[tuple[int, ...]]  # those of them that halting thresholds are calibrated on
    probe: ClassVar[int]  # the difficulty, not trained on, that training watches
    domain: ClassVar[Domain | None]  # what a network of the shipped recipe was measured to be right about
    pictured: ClassVar[int]  # the difficulty of the problems that pictures follow step by step

    @property
    def codec(self) -> CodecSpec:
        """What turns a problem of this task into tensors."""
        ...

    def sample(self, rng: np.random.Generator, rows: int, difficulty: int) -> Batch:
        """Training problems no harder than `difficulty`; harder questions among them have weight 0."""
        ...

    def logits(self, network: RecurrentTransformer, state: Tensor, context: Context) -> Tensor:
        """The readout for every question of a training batch: (B, Q, C)."""
        ...

    def problems(self, rng: np.random.Generator, split: str, bucket: int, count: int) -> Problems:
        """`count` evaluation problems of exactly this difficulty, classes balanced."""
        ...

    def unusual(self, rng: np.random.Generator, count: int) -> Mapping[str, Problems]:
        """Up to `count` problems of each kind that is far from the training's, by name."""
        ...

    def random_inputs(self, rng: np.random.Generator, rows: int, length: int) -> Inputs:
        """Any inputs the codec might make, rows of `length` tokens, most of them padded at the end."""
        ...

    def heuristics(self, problems: Problems) -> Mapping[str, float]:
        """Accuracy of shortcuts that need no thinking, best threshold in hindsight where they have one."""
        ...
