"""Where thinking longer begins to pay, and that it never hurts."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from training.evaluate import Evaluation

COLUMNS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256)
LINE, LABEL = "#D55E00", "#FF9E5E"


def draw_frontier(evaluation: Evaluation) -> Figure:
    """Accuracy over difficulty and steps, with the line of one step per unit of difficulty."""
    task = evaluation.subject.task
    traces = evaluation.traces[task.splits[0]]
    buckets = list(traces)
    limit = next(iter(traces.values())).right.shape[1]
    columns = [steps for steps in COLUMNS if steps <= limit]
    grid = np.array([[traces[bucket].accuracy(steps) for steps in columns] for bucket in buckets])
    figure = Figure(figsize=(6.9, 3.7))
    axes = figure.add_subplot()
    image = axes.imshow(grid, cmap="cividis", vmin=0.5, vmax=1.0, origin="lower", aspect="auto")
    for row, column in np.argwhere((grid > 0.505) & (grid < 0.995)):
        colour = "#1a1a1a" if grid[row, column] > 0.8 else "#f0f0f0"
        label = f"{grid[row, column]:.0%}"
        axes.text(column, row, label, ha="center", va="center", fontsize=5.5, color=colour)
    axes.set_xticks(range(len(columns)), [str(steps) for steps in columns])
    axes.set_yticks(range(len(buckets)), [str(bucket) for bucket in buckets])
    axes.set_xlabel("steps of thinking")
    axes.set_ylabel(f"{task.unit} from source to target")
    axes.tick_params(length=0)
    # The staircase: to its right a row has had at least one step per unit of difficulty.
    edges = [sum(steps < bucket for steps in columns) - 0.5 for bucket in buckets]
    heights = np.arange(len(buckets) + 1) - 0.5
    axes.stairs(edges, heights, orientation="horizontal", baseline=None, color="white", linewidth=2.6)
    axes.stairs(edges, heights, orientation="horizontal", baseline=None, color=LINE, linewidth=1.5)
    note: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7.5}
    middle = (len(buckets) - 1) / 2
    height, across = len(buckets) - 2.5, len(columns)
    axes.text(edges[-3] / 2, height, "not enough steps yet: chance", color="white", **note)
    axes.text(
        (across + edges[int(middle)]) / 2,
        middle,
        f"right, and still right after {limit} steps",
        color="#1a1a1a",
        **note,
    )
    corner = len(buckets) - 4
    axes.annotate(
        f"one step per {task.unit.removesuffix('s')}",
        (edges[corner], corner),
        xytext=(-9, 0),
        textcoords="offset points",
        ha="right",
        va="center",
        color=LABEL,
        fontweight="bold",
        fontsize=7.5,
    )
    trained_to = evaluation.subject.trained_to
    if trained_to in buckets:
        line = buckets.index(trained_to) + 0.5
        axes.axhline(
            line,
            color="#1a1a1a",
            linewidth=0.9,
            linestyle=(0, (4, 2)),
            xmin=(edges[int(line + 0.5)] + 0.5) / across,
        )
        axes.text(across - 0.7, line + 0.12, "never trained on", ha="right", va="bottom", fontsize=6.8)
        axes.text(across - 0.7, line - 0.14, "trained on", ha="right", va="top", fontsize=6.8)
    for spine in axes.spines.values():
        spine.set_visible(False)
    bar = figure.colorbar(image, ax=axes, pad=0.015, aspect=28, ticks=[0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    bar.ax.set_yticklabels(["50 % (chance)", "60 %", "70 %", "80 %", "90 %", "100 %"])
    bar.outline.set_visible(False)
    problems = next(iter(traces.values())).problems
    axes.set_title(f"Accuracy on {task.name} problems, {problems} held-out per row")
    return figure
