"""The pictures of an evaluation, for the width of a paper.

Colours are cividis and Okabe and Ito's, which hold up under colour blindness and in grey.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from training.checkpoint import unwritable
from training.evaluate import SEED, Evaluation
from training.figures.frontier import draw_frontier
from training.figures.halting import draw_halting
from training.figures.latents import draw_latents

STYLE: Any = {  # matplotlib's own type spells out every key there is
    "font.family": "sans-serif",
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "savefig.dpi": 220,
}


def draw(evaluation: Evaluation, out: Path) -> list[Path]:
    """Write every picture into the folder and return where they are. Raises RunError if it cannot."""
    subject = evaluation.subject
    hard = subject.task.problems(np.random.default_rng(SEED + 1), subject.task.splits[0], 32, 64)
    with mpl.rc_context(STYLE):
        pictures = {
            "frontier": draw_frontier(evaluation),
            "halting": draw_halting(evaluation, hard),
            "latents": draw_latents(subject, hard),
        }
        try:
            out.mkdir(parents=True, exist_ok=True)
            for name, figure in pictures.items():
                figure.savefig(out / f"{name}.png", bbox_inches="tight", metadata={"Software": None})
        except OSError as error:
            raise unwritable(out, error) from error
    return [out / f"{name}.png" for name in pictures]
