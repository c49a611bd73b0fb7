"""Which criteria wait for the answer, and what their scores do while it is on its way."""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import offset_copy
from numpy.typing import NDArray

from model.halting import CRITERIA, HaltingRule
from model.network.scores import SCORES
from training.judge.evaluate import Evaluation
from training.judge.figures.followed import Followed
from training.judge.figures.style import INK, count_ticks, difficulty_axis, look

SOUND = 0.99  # of the accuracy at the whole budget: from there a criterion's marker is filled
FLOOR = 1e-8
LANE = 2.4  # points between lines that would cover one another
NEAR = 0.08  # of the logarithm of their steps: nearer than that they do
WATCHED = ("latent_diff", "entropy", "kl")
DASHES: Any = {"linewidth": 0.9, "linestyle": (0, (2, 2))}


def draw_halting(evaluation: Evaluation, followed: Followed) -> Figure:
    """What criteria cost at every difficulty, and why some of them are deceived, where they are."""
    figure = Figure(figsize=(6.9, 3.5))
    left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.05))
    figure.subplots_adjust(wspace=0.3, bottom=0.29)
    _costs(figure, left, evaluation)
    _scores(right, evaluation, followed)
    handles = left.get_legend_handles_labels()
    figure.legend(*handles, loc="lower center", ncols=5, handlelength=1.8, columnspacing=1.2, fontsize=6.5)
    return figure


def _costs(figure: Figure, axes: Axes, evaluation: Evaluation) -> None:
    """Mean steps against difficulty, each criterion at about its usual threshold, and the oracle's."""
    task = evaluation.subject.task
    traces = evaluation.traces[task.splits[0]]
    buckets = np.array(list(traces))
    limit = next(iter(traces.values())).right.shape[1]
    oracle = [float(traced.oracle().mean()) for traced in traces.values()]
    axes.plot(buckets, oracle, color=INK, label="oracle", zorder=3, **DASHES)
    best = np.array([traced.accuracy(limit) for traced in traces.values()])
    entries = [entry for entry in evaluation.report["halting"] if entry["criterion"] != "none"]
    shown = {entry["criterion"]: _usual(entries, entry["criterion"]) for entry in entries}
    curves = {
        name: np.array([facts["mean_steps"] for facts in entry["buckets"].values()])
        for name, entry in shown.items()
    }
    lanes = _lanes({"oracle": np.array(oracle), **curves})
    for name, steps in curves.items():
        entry = shown[name]
        colour, marker = look(name)
        sound = np.array([facts["accuracy"] for facts in entry["buckets"].values()]) >= SOUND * best
        beside = offset_copy(axes.transData, fig=figure, y=LANE * lanes[name], units="points")
        drawn: Any = {
            "marker": marker,
            "markersize": 3.0,
            "color": colour,
            "linewidth": 0.8,
            "transform": beside,
        }
        axes.plot(buckets, steps, **{**drawn, "marker": "", "alpha": 0.8})
        axes.plot(buckets[sound], steps[sound], **{**drawn, "linewidth": 0})
        hollow = {"linewidth": 0, "markerfacecolor": "white", "markeredgewidth": 0.8}
        axes.plot(buckets[~sound], steps[~sound], **{**drawn, **hollow})
        axes.plot([], [], label=f"{name} {entry['threshold']:g}", **{**drawn, "transform": axes.transData})
    axes.set_yscale("log")
    axes.set_ylim(0.9, 1.25 * limit)
    count_ticks(axes.yaxis, limit)
    side = "\nlines that coincide are drawn side by side" if any(lanes.values()) else ""
    difficulty_axis(axes, traces, f"{task.unit}   (filled: as right as the whole budget){side}")
    axes.xaxis.label.set_fontsize(7)
    axes.set_ylabel("mean steps until it halts")
    axes.set_title("a  Which criteria wait for the answer")


def _usual(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Of a criterion's entries the one whose threshold is nearest to the usual one."""
    usual = CRITERIA[name].default
    return min(
        (entry for entry in entries if entry["criterion"] == name),
        key=lambda entry: float(abs(np.log(entry["threshold"] / usual))),
    )


def _lanes(curves: dict[str, NDArray[np.float64]]) -> dict[str, int]:
    """How many lanes above its true place each line is drawn, so that none covers another for long.

    The lowest stays where it is; never below: no criterion may seem to stop earlier than it does.
    """
    lanes: dict[str, int] = {}
    for name, curve in sorted(curves.items(), key=lambda item: float(np.log(item[1]).mean())):
        taken = {
            lane
            for other, lane in lanes.items()
            if (np.abs(np.log(curve / curves[other])) < NEAR).mean() > 1 / 3
        }
        lanes[name] = next(lane for lane in count() if lane not in taken)
    return lanes


def _scores(axes: Axes, evaluation: Evaluation, followed: Followed) -> None:
    """Scores over the steps on problems whose answer turns late: medians and the middle 80 %."""
    task, traced, steps = evaluation.subject.task, followed.traced, followed.steps
    chosen = followed.late()
    along = np.arange(1, steps + 1)
    ends = []
    for name in WATCHED:
        colour = look(name)[0]
        values = np.maximum(traced.scores[chosen][:, :steps, SCORES.index(name)], FLOOR)
        low, middle, high = np.quantile(values, (0.1, 0.5, 0.9), axis=0)
        axes.fill_between(along, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(along, middle, color=colour, linewidth=1.3)
        ends.append((float(middle[-1]), name, colour))
    threshold, red = CRITERIA["kl"].default, look("kl")[0]
    axes.axhline(threshold, color=red, linewidth=0.7, linestyle=(0, (1, 1.5)))
    for height, name, colour in _apart([*ends, (threshold, "usual for kl", red)]):
        axes.annotate(
            name,
            (steps, height),
            xytext=(4, 0),
            textcoords="offset points",
            color=colour,
            fontweight="bold" if name in WATCHED else None,
            fontsize=7,
            va="center",
            annotation_clip=False,
        )
    final = int(np.median(traced.oracle()[chosen]))
    if 1 < final <= steps and traced.right[chosen, -1].any():
        axes.axvline(final, color=INK, **DASHES)
        axes.annotate(
            f"half of the answers\nare final: step {final}",
            (final, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(-4 if final > 0.55 * steps else 4, -2),
            textcoords="offset points",
            ha="right" if final > 0.55 * steps else "left",
            va="top",
            fontsize=6.8,
        )
    axes.set_yscale("log")
    axes.set_ylim(FLOOR, 300)
    axes.set_xlim(1, max(2, steps))
    axes.set_xlabel(f"step   ({task.pictured} {task.unit}, answers that turn)")
    axes.set_ylabel("score")
    deceived = followed.traced.halted(HaltingRule("kl", threshold, 2))[0][chosen].mean() < 0.5
    late = bool(traced.right[chosen, -1].all())
    axes.set_title(
        "b  Stillness at the readout means nothing" if deceived and late else "b  Scores while one thinks"
    )


def _apart(ends: list[tuple[float, str, str]]) -> list[tuple[float, str, str]]:
    """Heights of labels on a logarithmic axis, pushed upwards until none covers another."""
    placed: list[tuple[float, str, str]] = []
    for height, name, colour in sorted(ends):
        lowest = placed[-1][0] * 4 if placed else 0.0
        placed.append((max(height, lowest), name, colour))
    return placed
