"""How a model's steps are computed: what was asked of the arithmetic, and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["ieee", "tf32", "bf16"]


@dataclass(frozen=True)
class Numerics:
    """What an operator asks of a GPU's arithmetic.

    precision: of matrix products; all else is IEEE float32. deterministic: a row's numbers do not depend
    on who is beside it, bit for bit; it costs batches that are always of full size.
    """

    precision: Precision = "ieee"
    deterministic: bool = False


IEEE = Numerics()


@dataclass(frozen=True)
class Parity:
    """How far a precision is from IEEE float32, over the steps that the model's example takes."""

    steps: int
    logits: float  # the largest difference of any of them after any step
    same_depth: bool  # the example halts at the same step, by the model's default rule
    same_answer: bool  # and with the same answer; of a model that has no classes: true


@dataclass(frozen=True)
class Computing:
    """What is shown of a runner, with its model."""

    device_name: str = ""  # as its driver calls it; empty for a CPU
    numerics: Numerics = IEEE
    parity: Parity | None = None  # None where nothing was compared: IEEE is what others are held against
