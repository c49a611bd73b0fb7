"""The pictures of an evaluation, for the width of a paper.

frontier.png     accuracy over difficulty and steps
thresholds.png   what every criterion keeps and costs, over its thresholds
halting.png      which criteria wait for the answer, and what their scores do meanwhile
latents.png      one problem's states, step by step

Each is also written as SVG, which stays sharp at any size.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from training.checkpoint import unwritable
from training.judge.evaluate import SEED, Evaluation
from training.judge.figures.followed import follow
from training.judge.figures.frontier import draw_frontier
from training.judge.figures.halting import draw_halting
from training.judge.figures.latents import draw_latents
from training.judge.figures.style import STYLE
from training.judge.figures.thresholds import draw_thresholds

NAMELESS: dict[str, dict[str, Any]] = {  # formats, without dates and names: the same figures, the same file
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
}


def draw(evaluation: Evaluation, out: Path) -> list[Path]:
    """Write every picture into the folder, as PNG and as SVG, and return where they are.

    Raises RunError if the folder cannot be written.
    """
    followed = follow(evaluation, np.random.default_rng(SEED + 1))
    with mpl.rc_context(STYLE):
        pictures = {
            "frontier": draw_frontier(evaluation),
            "thresholds": draw_thresholds(evaluation),
            "halting": draw_halting(evaluation, followed),
            "latents": draw_latents(evaluation.subject, followed),
        }
        try:
            out.mkdir(parents=True, exist_ok=True)
            for (name, figure), (ending, nameless) in product(pictures.items(), NAMELESS.items()):
                figure.savefig(out / f"{name}.{ending}", bbox_inches="tight", metadata=nameless)
        except OSError as error:
            raise unwritable(out, error) from error
    return [out / f"{name}.{ending}" for name, ending in product(pictures, NAMELESS)]
