"""What an experiment is: variants that are trained, and what they are measured on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from training.config import TrainConfig


@dataclass(frozen=True)
class Variant:
    """One configuration, trained once for each seed; runs with the same folder are shared."""

    name: str
    folder: str
    config: TrainConfig


@dataclass(frozen=True)
class HeldOut:
    """What every run is measured on: problems that nobody was trained on, and budgets."""

    splits: Mapping[str, tuple[int, ...]]  # their difficulties; the first split is the one that counts
    budgets: tuple[int, ...]  # of steps; the best of them is "the best budget"
    problems: int  # for each split and difficulty
    longest: int  # steps, for what too much thinking does


@dataclass(frozen=True)
class Cited:
    """What is not trained here: published figures, or those of code that is gone."""

    source: str
    columns: tuple[str, ...]  # budgets, in words
    accuracy: Mapping[int, tuple[float, ...]]  # by difficulty, one for each column


@dataclass(frozen=True)
class Experiment:
    """Variants, all measured alike, and how they are shown.

    grid: difficulty and steps, of a single variant. means: one mean over what was trained on, one over
    what was not. cells: every difficulty of every split.
    """

    name: str
    title: str
    variants: tuple[Variant, ...]
    held_out: HeldOut
    shown: Literal["grid", "means", "cells"] = "means"
    cited: Mapping[str, Cited] = field(default_factory=dict)  # beside the variants, by name


@dataclass(frozen=True)
class Progression:
    """Experiments of one kind in several domains, side by side."""

    name: str
    title: str
    domains: tuple[Experiment, ...]
