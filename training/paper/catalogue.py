"""Every experiment that `fathom reproduce` knows. How they are carried out is in reproduce.py."""

from __future__ import annotations

from training.errors import ConfigError
from training.paper.experiment import Experiment, Progression
from training.paper.progression import progression
from training.paper.reading_ablations import RAW_LOGIC, RAW_TEXT
from training.paper.replications import ABLATIONS, BASELINES, frontiers


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


def experiment_of(name: str, full: bool) -> Experiment | Progression:
    """One of them. Raises ConfigError where there is none of this name."""
    known = experiments(full)
    if name not in known:
        raise ConfigError(f"there is no experiment {name!r}; there are {', '.join(known)}, shortcuts")
    return known[name]
