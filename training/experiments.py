"""Every experiment that `fathom reproduce` knows. How they are carried out is in training/reproduce.py."""

from __future__ import annotations

from training.paper import ABLATIONS, BASELINES, frontiers
from training.progression import progression
from training.raw import RAW_LOGIC, RAW_TEXT
from training.variants import Experiment, Progression


def experiments(full: bool = False) -> dict[str, Experiment | Progression]:
    """By name. full: the paper's protocol at the paper's size, which needs a GPU."""
    every: tuple[Experiment | Progression, ...] = (
        *frontiers(full),
        ABLATIONS,
        BASELINES,
        progression(full),
        RAW_LOGIC,
        RAW_TEXT,
    )
    return {experiment.name: experiment for experiment in every}
