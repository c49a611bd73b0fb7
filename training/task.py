"""What the trainer and the evaluation ask of a task. A new task is a new file that answers to this."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from model.manifest import ClassSpec, CodecSpec, Domain
from model.network.perception import Context, Inputs
from model.network.recurrent import RecurrentTransformer

# False and true, and behind them "not known yet", where that is an answer.
CLASSES = (
    ClassSpec(label="false", answer=False),
    ClassSpec(label="true", answer=True),
    ClassSpec(label="unknown", answer=None),
)
NEVER = 10**6  # steps: no evidence ever arrives


@dataclass(frozen=True)
class Schedule:
    """When the questions of a batch can be answered, and what "not known yet" is called.

    A question is graded on its answer once the answer is due, on "unknown" as long as no evidence can
    have arrived, and not at all between. Each kind of question has three shares of the loss: of those
    that are due, of those that are not yet, and of those that never are; within a share, weights count.
    """

    earliest: Tensor  # (B, Q) int64, steps after which evidence may have arrived; NEVER
    due: Tensor  # (B, Q) int64, steps after which the answer is graded; NEVER
    kind: Tensor  # (B, Q) int64, place in `shares`; -1: not asked
    shares: tuple[tuple[float, float, float], ...]  # by kind: due, not yet, never
    unknown: Tensor  # (B, Q) int64, the class that says so


@dataclass(frozen=True)
class Batch:
    """Training problems with what is asked about each.

    The weights sum to 1 over the whole batch, so that a loss over some of its rows is a share of
    the loss: processes that take a slice each add up to exactly the loss of one process.
    """

    inputs: Inputs
    labels: Tensor  # (B, Q) int64, the class of each of the Q questions a row is asked
    weights: Tensor  # (B, Q) float32, 0 where a question is not asked; of a schedule within its shares
    difficulty: int  # of the hardest question that is asked
    schedule: Schedule | None = None  # None: everything is due
    earlier: Inputs | None = None  # what there is during the burn-in of a late batch
    watched: Tensor | None = None  # (B, Q) weights of what the curriculum goes by; None: of everything

    def at(self, steps: int) -> Batch:
        """What is graded after so many steps: where there is a schedule, by that."""
        if self.schedule is None:
            return self
        schedule = self.schedule
        never = schedule.due >= NEVER
        states = steps >= schedule.due, (steps < schedule.earliest) & ~never, never
        weights, watched = torch.zeros_like(self.weights), torch.zeros_like(self.weights)
        for kind, shares in enumerate(schedule.shares):
            for share, state in zip(shares, states, strict=True):
                asked = self.weights * ((schedule.kind == kind) & state)
                weights += share * asked / asked.sum().clamp(min=1e-6)
        due = self.weights * ((schedule.kind == 0) & states[0])
        if float(due.sum()) > 0:
            watched = due / due.sum()
        labels = torch.where(states[0], self.labels, schedule.unknown)
        return replace(self, labels=labels, weights=weights, watched=watched, schedule=None)

    def rows(self, chosen: slice) -> Batch:
        """Some of the rows, their weights unchanged."""
        return self._mapped(lambda tensor: tensor[chosen])

    def to(self, device: str) -> Batch:
        """The batch on another device."""
        return self._mapped(lambda tensor: tensor.to(device))

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> Batch:
        assert self.schedule is None, "what is graded has been settled"
        inputs, earlier = (
            None if part is None else type(part)(*map(change, part)) for part in (self.inputs, self.earlier)
        )
        assert inputs is not None, "there are inputs"
        watched = None if self.watched is None else change(self.watched)
        return replace(
            self,
            inputs=inputs,
            labels=change(self.labels),
            weights=change(self.weights),
            earlier=earlier,
            watched=watched,
        )


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
    splits: ClassVar[tuple[str, ...]]  # kinds of evaluation problems; the first is the one that counts
    buckets: ClassVar[tuple[int, ...]]  # difficulties that are evaluated
    calibrated: ClassVar[tuple[int, ...]]  # those of them that halting thresholds are calibrated on
    probe: ClassVar[int]  # the difficulty, not trained on, that training watches
    pictured: ClassVar[int]  # the difficulty of the problems that pictures follow step by step

    @property
    def domain(self) -> Domain | None:
        """What a network of the shipped recipe was measured to be right about."""
        ...

    @property
    def classes(self) -> tuple[ClassSpec, ...]:
        """What the answers are, in the order of the logits."""
        ...

    @property
    def codec(self) -> CodecSpec:
        """What turns a problem of this task into tensors."""
        ...

    def cannot_draw(self, difficulty: int) -> str | None:
        """Why there are no training problems of this difficulty, or hardly any; None where there are."""
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
