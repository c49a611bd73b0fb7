"""Where thinking longer begins to pay, and whether it ever hurts."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training.judge.evaluate import Evaluation
from training.judge.figures.style import INK, ORANGE, waits
from training.judge.traces import Trace

COLUMNS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1024)
NEAR = 0.01  # how far from its best a row may be for the boundary
LEARNT = 0.5  # of the way from chance to always right: rows that get less far have no boundary
WIDTH = 5.4  # inches that the grid has, about


def boundary(traced: Trace, chance: float) -> int | None:
    """The fewest steps at which a row is near its best; None where its best is too near chance."""
    share = traced.right.mean(axis=0)
    if share.max() < chance + LEARNT * (1 - chance):
        return None
    return int((share >= share.max() - NEAR).argmax()) + 1


def draw_frontier(evaluation: Evaluation) -> Figure:
    """Accuracy over difficulty and steps, with the boundary from which on a row is near its best."""
    task = evaluation.subject.task
    traces = evaluation.traces[task.splits[0]]
    buckets = list(traces)
    chance = 0.0 if waits(task) else 1 / len(task.classes)
    some = next(iter(traces.values()))
    limit = some.right.shape[1]
    columns = [steps for steps in COLUMNS if steps <= limit]
    grid = np.array([[traces[bucket].accuracy(steps) for steps in columns] for bucket in buckets])
    figure = Figure(figsize=(6.9, 0.9 + 0.19 * max(8, len(buckets))))
    axes = figure.add_subplot()
    image = axes.imshow(grid, cmap="cividis", vmin=chance, vmax=1.0, origin="lower", aspect="auto")
    for row, column in np.argwhere(_labelled(grid, chance)):
        colour = INK if grid[row, column] > chance + 0.6 * (1 - chance) else "#f0f0f0"
        label = f"{grid[row, column]:.0%}"
        axes.text(column, row, label, ha="center", va="center", fontsize=5.5, color=colour)
    axes.set_xticks(range(len(columns)), [str(steps) for steps in columns])
    axes.tick_params(axis="x", labelsize=6.5 if len(columns) > 16 else None)
    axes.set_yticks(range(len(buckets)), [str(bucket) for bucket in buckets])
    axes.set_xlabel("steps of thinking", loc="left")
    axes.set_ylabel(task.unit)
    axes.tick_params(length=0)
    axes.set_title(f"Accuracy on {task.name} problems, {some.problems} held-out per row")
    for spine in axes.spines.values():
        spine.set_visible(False)

    firsts = {bucket: boundary(traced, chance) for bucket, traced in traces.items()}
    _stairs(axes, firsts, columns, task.unit)
    learnt = np.array([first is not None for first in firsts.values()])[:, None]
    _say(
        axes,
        learnt & (grid < chance + 0.005),
        f"not enough steps yet: {'not known' if waits(task) else 'chance'}",
        "white",
    )
    if limit > 1:
        still = np.logical_and.accumulate(grid[:, ::-1] >= 0.995, axis=1)[:, ::-1]  # and so to the last step
        _say(axes, still, f"right, and still right after {limit} steps", INK)
    _trained(axes, buckets, evaluation.subject.trained_to)
    bar = figure.colorbar(image, ax=axes, pad=0.05, aspect=28)
    ticks = np.linspace(chance, 1.0, 6)
    bar.set_ticks(
        list(ticks), labels=[f"{tick:.0%}" + (" (chance)" if tick == chance > 0 else "") for tick in ticks]
    )
    bar.outline.set_visible(False)
    return figure


def _labelled(grid: NDArray[np.float64], chance: float) -> NDArray[np.bool_]:
    """Cells that say their share in figures: those that neither colour at the end says exactly."""
    return np.asarray((grid >= chance + 0.005) & (grid < 0.995))


def _stairs(axes: Axes, firsts: dict[int, int | None], columns: list[int], unit: str) -> None:
    """The boundary as observed; where it is one step per unit of difficulty, it is called so."""
    known = {bucket: first for bucket, first in firsts.items() if first is not None}
    if not known:
        return
    edges = [
        np.nan if first is None else sum(steps < first for steps in columns) - 0.5
        for first in firsts.values()
    ]
    heights = np.arange(len(firsts) + 1) - 0.5
    one_each = np.mean([first == max(1, bucket) for bucket, first in known.items()]) >= 0.8
    label = f"one step per {unit.removesuffix('s')}" if one_each else f"within {NEAR:.0%} of the row's best"
    for colour, width in (("white", 2.6), (ORANGE, 1.5)):
        axes.stairs(edges, heights, orientation="horizontal", baseline=None, color=colour, linewidth=width)
    axes.plot([], [], color=ORANGE, linewidth=1.5, label=label)
    axes.legend(loc="upper right", bbox_to_anchor=(1.0, -0.07), handlelength=1.6)


def _say(axes: Axes, free: NDArray[np.bool_], text: str, colour: str) -> None:
    """Write in the middle one of the rows that have room for it, if any has."""
    rows, columns = free.shape
    room = []
    for row in range(rows):
        start = length = here = 0
        for column in range(columns):
            here = here + 1 if free[row, column] else 0
            if here > length:
                start, length = column + 1 - here, here
        if length * WIDTH / columns >= 0.062 * len(text):  # an inch holds some sixteen characters
            room.append((start + (length - 1) / 2, row))
    if room:
        middle, row = room[len(room) // 2]
        axes.text(middle, row, text, ha="center", va="center", fontsize=7.5, color=colour)


def _trained(axes: Axes, buckets: list[int], trained_to: int | None) -> None:
    """Beside the grid: which rows training had seen."""
    seen = 0 if trained_to is None else sum(bucket <= trained_to for bucket in buckets)
    if not 0 < seen < len(buckets):
        return
    edge, right = seen - 0.5, axes.get_xlim()[1]
    axes.plot([-0.5, right], [edge, edge], color="white", linewidth=0.7)
    axes.plot([-0.5, right], [edge, edge], color=INK, linewidth=0.7, linestyle=(0, (4, 2)))
    for above, text in ((-3, "trained"), (3, "never trained on")):
        axes.annotate(
            text,
            (1.0, edge),
            xycoords=("axes fraction", "data"),
            xytext=(7, above),
            textcoords="offset points",
            rotation=90,
            ha="center",
            va="top" if above < 0 else "bottom",
            fontsize=6.8,
        )
