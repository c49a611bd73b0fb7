"""What every halting criterion keeps and costs, from its loosest threshold to its strictest."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from model.halting import CRITERIA
from training.judge.evaluate import Evaluation
from training.judge.figures.style import BLUE, INK, ORANGE, count_ticks, waits
from training.judge.traces import Trace

ACROSS = 5  # panels side by side, at most
ROOM, LETTER, GAP = 64, 3.9, 4  # points: a panel's width, one letter of a tick's label, between two labels
DASH = (2, 2)  # points drawn and left out
UNDER: Any = {
    "color": BLUE,
    "marker": "o",
    "markersize": 3.9,
    "linewidth": 2.0,
}  # shows around OVER
OVER: Any = {"color": ORANGE, "marker": "s", "markersize": 1.8, "linewidth": 0.8}


def draw_thresholds(evaluation: Evaluation) -> Figure:
    """A column for each criterion: accuracy above, mean steps below; thresholds get stricter to the right."""
    task = evaluation.subject.task
    traces = evaluation.traces[task.splits[0]]
    buckets = [bucket for bucket in task.calibrated if bucket in traces]
    entries = [entry for entry in evaluation.report["halting"] if entry["criterion"] != "none"]
    names = list(dict.fromkeys(entry["criterion"] for entry in entries))
    blocks = math.ceil(len(names) / ACROSS)
    across = math.ceil(len(names) / blocks)
    height = 0.5 + 2.35 * blocks  # inches
    figure = Figure(figsize=(6.9, height))
    outer = figure.add_gridspec(blocks, 1, hspace=0.36, top=1 - 0.72 / height, bottom=0.2 / height)
    for place, name in enumerate(names):
        if place % across == 0:
            grid = outer[place // across].subgridspec(2, across, hspace=0.1, wspace=0.2)
        column = place % across
        upper = figure.add_subplot(grid[0, column])
        lower = figure.add_subplot(grid[1, column], sharex=upper)
        points = [entry for entry in entries if entry["criterion"] == name]
        _panel(upper, lower, name, points, [traces[bucket] for bucket in buckets], [str(b) for b in buckets])
        if waits(task):  # "not known yet" counts as wrong
            upper.set_ylim(-0.05, 1.05)
            upper.set_yticks([0.0, 0.5, 1.0], ["0 %", "50 %", "100 %"])
        else:
            upper.set_ylim(0.47, 1.03)
            upper.set_yticks([0.5, 0.75, 1.0], ["50 %", "75 %", "100 %"])
        if column:
            upper.tick_params(labelleft=False)
            lower.tick_params(labelleft=False)
        else:
            upper.set_ylabel("accuracy")
            lower.set_ylabel("mean steps")
    limit = next(iter(traces.values())).right.shape[1]
    low, high = buckets[0], buckets[-1]
    lines = [
        Line2D([], [], label=f"mean over {low} to {high} {task.unit}", **UNDER),
        Line2D([], [], label=f"{high} {task.unit}", **OVER),
        Line2D(
            [],
            [],
            color=INK,
            linewidth=0.9,
            linestyle=(0, DASH),
            label=f"after {limit} steps (above), the oracle (below)",
        ),
    ]
    figure.suptitle(
        f"What halting keeps and costs on {task.name} problems", fontsize=8.5, weight="bold", y=1.0
    )
    figure.legend(handles=lines, loc="upper center", bbox_to_anchor=(0.5, 1 - 0.15 / height), ncols=3)
    return figure


def _panel(
    upper: Axes,
    lower: Axes,
    name: str,
    points: list[dict[str, Any]],
    traces: list[Trace],
    buckets: list[str],
) -> None:
    patience = Counter(point["patience"] for point in points).most_common(1)[0][0]
    points = sorted(
        (point for point in points if point["patience"] == patience), key=lambda point: point["threshold"]
    )
    shares = CRITERIA[name].halts_above and CRITERIA[name].high == 1.0
    along = [1 - point["threshold"] if shares else point["threshold"] for point in points]
    limit = traces[0].right.shape[1]
    for key, axes in (("accuracy", upper), ("mean_steps", lower)):
        figures = np.array([[point["buckets"][bucket][key] for bucket in buckets] for point in points])
        whole = [traced.accuracy(limit) if axes is upper else traced.oracle().mean() for traced in traces]
        for values, reference, look, start in (
            (figures.mean(axis=1), np.mean(whole), UNDER, 0.0),
            (figures[:, -1], whole[-1], OVER, 2.0),  # dashes between those of the other
        ):
            axes.axhline(float(reference), color=look["color"], linewidth=0.9, linestyle=(start, DASH))
            axes.plot(along, values, **look)
    upper.set_xscale("log")
    if shares or not CRITERIA[name].halts_above:
        upper.invert_xaxis()
    names = [f"{point['threshold']:g}".replace("e-0", "e-") for point in points]
    some = _with_room(np.log(along).tolist(), names)
    upper.set_xticks([along[place] for place in some], [names[place] for place in some])
    upper.set_xticks([], minor=True)
    upper.tick_params(labelbottom=False)
    lower.tick_params(axis="x", labelsize=6)
    labels = sorted(lower.get_xticklabels(), key=lambda label: label.get_position()[0])
    if len(labels) > 1:  # the outer ones inwards, so that those of two panels stay apart
        left, right = (labels[-1], labels[0]) if upper.xaxis_inverted() else (labels[0], labels[-1])
        left.set_horizontalalignment("left")
        right.set_horizontalalignment("right")
    lower.set_yscale("log")
    lower.set_ylim(0.85, 1.25 * limit)
    count_ticks(lower.yaxis, limit)
    upper.set_title(name, fontsize=7, loc="center")
    times = f" ({patience} running)" if patience > 1 else ""
    lower.set_xlabel(f"threshold{times}", fontsize=6.5, labelpad=1.5)


def _with_room(places: list[float], names: list[str]) -> list[int]:
    """Which ticks have room for their label: both ends, and the one nearest to the middle between them."""
    if len(places) == 1:
        return [0]
    first, last = places[0], places[-1]
    points = [ROOM * (place - first) / (last - first) for place in places]
    begin = LETTER * len(names[0]) + GAP
    end = ROOM - LETTER * len(names[-1]) - GAP
    halves = [LETTER * len(name) / 2 for name in names]
    fitting = [
        at
        for at in range(1, len(places) - 1)
        if points[at] - halves[at] >= begin and points[at] + halves[at] <= end
    ]
    middle = min(fitting, key=lambda at: abs(points[at] - (begin + end) / 2), default=None)
    return [0, *([] if middle is None else [middle]), len(places) - 1]
