"""Accuracy over steps and difficulty, and when the network halts by itself, as a table and a picture.

python -m examples.sudoku.measure examples/sudoku/weights.safetensors --out depth.png
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from examples.common import COLOURS, load, think, told
from examples.sudoku.model import Sudoku, factory
from examples.sudoku.problems import Puzzle, puzzle, stacked

SEED = 1234  # of puzzles that training has not seen
TOGETHER = 32  # rows that run at once
SHOWN = (8, 16, 32, 64, 128, 256, 384)  # steps
KINDS = {"1 to 3 rounds": (1, 3), "4 to 6 rounds": (4, 6), "7 or more": (7, 80), "beyond singles": None}


@dataclass(frozen=True, eq=False)
class Course:
    """What each of S steps did for P puzzles."""

    right: NDArray[np.bool_]  # (P, S), every cell
    sure: NDArray[np.float32]  # (P, S), the network's own score

    def halts(self, threshold: float) -> NDArray[np.int64]:
        """The step at which each puzzle halts, 0 where it does not: (P,)."""
        over = self.sure > threshold
        return np.where(over.any(axis=1), over.argmax(axis=1) + 1, 0)


@torch.inference_mode()
def course(model: Sudoku, puzzles: Sequence[Puzzle], steps: int) -> Course:
    """Think about the puzzles for so many steps."""
    rights, sures = [], []
    for first in range(0, len(puzzles), TOGETHER):
        grid, solution = stacked(puzzles[first : first + TOGETHER])
        context, start = model.embed(grid)
        right, sure = [], []
        for state, logits in think(model, context, start, steps):
            right.append((logits.argmax(dim=-1) + 1 == solution).flatten(1).all(dim=1))
            sure.append(model.scores(context, state, state)["sure"])
        rights.append(torch.stack(right, dim=1).numpy())
        sures.append(torch.stack(sure, dim=1).numpy())
    return Course(np.concatenate(rights), np.concatenate(sures))


def main(
    weights: Annotated[Path, typer.Argument(help="a checkpoint")],
    out: Annotated[Path, typer.Option(help="the picture to write")] = Path("depth.png"),
    count: Annotated[int, typer.Option(min=1, help="puzzles")] = 250,
    steps: Annotated[int, typer.Option(min=1, help="of each puzzle")] = 128,
) -> None:
    """Measure, print and draw."""
    model = factory()
    load(model, weights)
    rng = random.Random(SEED)
    puzzles = [puzzle(rng) for _ in range(count)]
    seen = course(model, puzzles, steps)
    halted = seen.halts(model.score_defaults["sure"])
    groups = {"all": np.full(count, True)} | {
        name: np.array([_within(p.rounds, bounds) for p in puzzles]) for name, bounds in KINDS.items()
    }
    for name, members in groups.items():
        typer.echo(f"{name} ({members.sum()}): {_told(seen, halted, members)}")
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_accuracy(left, seen, groups)
    _draw_halts(right, halted, [p.rounds for p in puzzles])
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out, dpi=110, metadata={"Software": None})


def _within(rounds: int | None, bounds: tuple[int, int] | None) -> bool:
    if bounds is None or rounds is None:
        return bounds is None and rounds is None
    return bounds[0] <= rounds <= bounds[1]


def _told(seen: Course, halted: NDArray[np.int64], members: NDArray[np.bool_]) -> str:
    curve = seen.right[members].mean(axis=0)
    done = np.flatnonzero(members & (halted > 0))
    facts = told(curve.tolist(), [step for step in SHOWN if step <= len(curve)])
    if not len(done):
        return f"{facts}; none halts"
    right, spent = seen.right[done, halted[done] - 1].mean(), halted[done].mean()
    share = len(done) / members.sum()
    return f"{facts}; {share:.3f} halt, after {spent:.1f} steps on average, {right:.3f} of them right"


def _draw_accuracy(axes: Axes, seen: Course, groups: dict[str, NDArray[np.bool_]]) -> None:
    for (name, members), colour in zip(groups.items(), COLOURS, strict=True):
        curve = seen.right[members].mean(axis=0)
        axes.plot(range(1, len(curve) + 1), curve, label=name, color=colour, linewidth=1.8)
    axes.set(xscale="log", xlabel="steps", ylabel="grids right", title="Sudoku, 9 x 9", ylim=(-0.02, 1.02))
    axes.legend(frameon=False, fontsize=8)


def _draw_halts(axes: Axes, halted: NDArray[np.int64], rounds: Sequence[int | None]) -> None:
    most = max(r for r in rounds if r is not None)
    places = np.array([most + 2 if r is None else r for r in rounds])[halted > 0]
    axes.scatter(places, halted[halted > 0], s=12, alpha=0.5, color=COLOURS[0])
    ticks = range(2, most + 1, 2)
    axes.set_xticks([*ticks, most + 2], [*map(str, ticks), "more"])
    axes.set(xlabel="rounds of singles", ylabel="steps until sure and no rule broken", yscale="log")
    axes.set_title("Harder grids think longer")


if __name__ == "__main__":
    typer.run(main)
