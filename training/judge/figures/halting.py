"""Which criteria wait for the answer, and what their scores do while it is on its way."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from model.halting import CRITERIA, HaltingRule
from model.network.scores import SCORES
from training.judge.evaluate import Evaluation
from training.judge.figures.followed import Followed
from training.judge.figures.style import INK, count_ticks, difficulty_axis, look

SOUND = 0.99  # of the accuracy at the whole budget: from there a criterion's marker is filled
FLOOR = 1e-8
WATCHED = ("latent_diff", "entropy", "kl")
DASHES: Any = {"linewidth": 0.9, "linestyle": (0, (2, 2))}


def draw_halting(evaluation: Evaluation, followed: Followed) -> Figure:
    """What criteria cost at every difficulty, and why some of them are deceived, where they are."""
    figure = Figure(figsize=(6.9, 3.5))
    left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.05))
    figure.subplots_adjust(wspace=0.3, bottom=0.26)
    _costs(left, evaluation)
    _scores(right, evaluation, followed)
    handles = left.get_legend_handles_labels()
    figure.legend(*handles, loc="lower center", ncols=5, handlelength=1.8, columnspacing=1.2, fontsize=6.5)
    return figure


def _costs(axes: Axes, evaluation: Evaluation) -> None:
    """Steps against difficulty, each criterion at about its usual threshold."""
    task = evaluation.subject.task
    traces = evaluation.traces[task.splits[0]]
    buckets = np.array(list(traces))
    limit = next(iter(traces.values())).right.shape[1]
    oracle = [np.quantile(traced.oracle(), 0.95) for traced in traces.values()]
    axes.plot(buckets, oracle, color=INK, label="oracle, 95 % of problems", **DASHES)
    best = np.array([traced.accuracy(limit) for traced in traces.values()])
    entries = [entry for entry in evaluation.report["halting"] if entry["criterion"] != "none"]
    for name in dict.fromkeys(entry["criterion"] for entry in entries):
        usual = CRITERIA[name].default
        entry = min(
            (entry for entry in entries if entry["criterion"] == name),
            key=lambda entry: abs(np.log(entry["threshold"] / usual)),
        )
        colour, marker = look(name)
        figures = entry["buckets"].values()
        steps = np.array([figure["mean_steps"] for figure in figures])
        sound = np.array([figure["accuracy"] for figure in figures]) >= SOUND * best
        drawn: Any = {"marker": marker, "markersize": 3.4, "color": colour, "linewidth": 0.8}
        axes.plot(buckets, steps, color=colour, linewidth=0.8, alpha=0.8)
        axes.plot(buckets[sound], steps[sound], **{**drawn, "linewidth": 0})
        hollow = {"linewidth": 0, "markerfacecolor": "white", "markeredgewidth": 0.8}
        axes.plot(buckets[~sound], steps[~sound], **{**drawn, **hollow})
        axes.plot([], [], label=f"{name} {entry['threshold']:g}", **drawn)
    axes.set_yscale("log")
    axes.set_ylim(0.9, 1.25 * limit)
    count_ticks(axes.yaxis, limit)
    difficulty_axis(axes, traces, f"{task.unit}   (filled: as right as the whole budget)")
    axes.set_ylabel("mean steps until it halts")
    axes.set_title("a  Which criteria wait for the answer")


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
