"""Which criteria wait for the answer, and why those on the readout do not."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from model.halting import CRITERIA
from model.scores import SCORES
from training.evaluate import Evaluation, Subject
from training.measure import Trace, trace
from training.task import Problems

SOUND = 0.99  # the accuracy from which a criterion's marker is filled
ON_LATENTS = {"latent_diff": ("#0072B2", "o"), "cosine": ("#009E73", "s"), "acceleration": ("#56B4E9", "D")}
ON_READOUTS = {
    "confidence": ("#D55E00", "o"),
    "entropy": ("#E69F00", "s"),
    "entropy_diff": ("#CC79A7", "D"),
    "kl": ("#8B1A1A", "^"),
    "argmax_stability": ("#777777", "v"),
}


def draw_halting(evaluation: Evaluation, hard: Problems) -> Figure:
    """What criteria cost and keep, and why those on the readout are deceived."""
    figure = Figure(figsize=(6.9, 3.0))
    left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.05))
    figure.subplots_adjust(wspace=0.3)
    _costs(left, evaluation)
    _deceived(right, evaluation.subject, hard)
    return figure


def _costs(axes: Axes, evaluation: Evaluation) -> None:
    """Steps against difficulty, each criterion at about its usual threshold."""
    traces = evaluation.traces[evaluation.subject.task.splits[0]]
    unit = evaluation.subject.task.unit
    buckets = np.array(list(traces))
    oracle = [np.quantile(traced.oracle(), 0.95) for traced in traces.values()]
    axes.plot(
        buckets, oracle, color="black", linewidth=0.9, linestyle=(0, (2, 2)), label="oracle, 95 % of problems"
    )
    for name, (colour, marker) in {**ON_LATENTS, **ON_READOUTS}.items():
        usual = CRITERIA[name].default
        entries = [entry for entry in evaluation.report["halting"] if entry["criterion"] == name]
        entry = min(entries, key=lambda entry: abs(np.log(entry["threshold"] / usual)))
        figures = entry["buckets"].values()
        steps = np.array([figure["mean_steps"] for figure in figures])
        sound = np.array([figure["accuracy"] >= SOUND for figure in figures])
        axes.plot(buckets, steps, linewidth=0.8, color=colour, alpha=0.8)
        axes.plot(buckets[sound], steps[sound], marker=marker, markersize=3.4, linewidth=0, color=colour)
        hollow: dict[str, Any] = {"markerfacecolor": "white", "markeredgewidth": 0.8}
        axes.plot(buckets[~sound], steps[~sound], marker, markersize=3.4, color=colour, **hollow)
        axes.plot(
            [],
            [],
            marker=marker,
            markersize=3.4,
            linewidth=0.8,
            color=colour,
            label=f"{name} {entry['threshold']:g}",
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    ticks = [1, 2, 4, 8, 16, 32, 64]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_yticks([*ticks, 128], [str(tick) for tick in (*ticks, 128)])
    axes.minorticks_off()
    axes.set_ylim(0.9, 400)
    axes.set_xlabel(f"{unit}   (filled: right {SOUND:.0%} of the time)")
    axes.set_ylabel("mean steps until it halts")
    axes.set_title("a  Which criteria wait for the answer")
    axes.legend(loc="upper left", ncols=2, handlelength=1.6, labelspacing=0.2, columnspacing=0.8, fontsize=6)


def _deceived(axes: Axes, subject: Subject, hard: Problems) -> None:
    """Scores over the steps on problems whose answer turns late: medians and the middle 80 %."""
    steps, floor = 48, 1e-8
    traced: Trace = trace(subject.network, hard, steps)
    chosen = hard.labels.numpy() == 1
    flips = int(np.median(traced.oracle()[chosen]))
    along = np.arange(1, steps + 1)
    labels = {"latent_diff": (3, 4.0), "entropy": (3, 9e-5), "kl": (3, 3e-7)}
    for name, place in labels.items():
        colour = {**ON_LATENTS, **ON_READOUTS}[name][0]
        values = np.maximum(traced.scores[chosen][:, :, SCORES.index(name)], floor)
        low, middle, high = np.quantile(values, (0.1, 0.5, 0.9), axis=0)
        axes.fill_between(along, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(along, middle, color=colour, linewidth=1.3)
        axes.text(*place, name, color=colour, fontweight="bold", fontsize=7)
    axes.axvline(flips, color="black", linewidth=0.8, linestyle=(0, (2, 2)))
    axes.annotate(
        f"the evidence reaches\nthe readout: step {flips}",
        (flips, 0.08),
        xytext=(-5, 0),
        textcoords="offset points",
        ha="right",
        va="center",
        fontsize=7,
    )
    threshold, colour = CRITERIA["kl"].default, ON_READOUTS["kl"][0]
    axes.axhline(threshold, color=colour, linewidth=0.7, linestyle=(0, (1, 1.5)))
    axes.text(1.5, threshold * 1.4, "usual threshold of kl", fontsize=6.5, color=colour)
    axes.set_yscale("log")
    axes.set_ylim(floor, 20)
    axes.set_xlim(1, steps)
    axes.set_xlabel("step")
    axes.set_ylabel("score")
    axes.set_title("b  Stillness at the readout means nothing")
