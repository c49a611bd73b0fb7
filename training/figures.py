"""The pictures of an evaluation, each for one column or the full width of a paper.

Colours are cividis and Okabe and Ito's, which hold up under colour blindness and in grey.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from model.halting import CRITERIA
from model.scores import SCORES
from training.checkpoint import unwritable
from training.evaluate import SEED, Evaluation, Subject
from training.measure import Trace, trace
from training.task import Problems

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
COLUMNS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256)
ORANGE, BLUE, GREEN, PURPLE, GREY = "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#777777"
ON_LATENTS = {"latent_diff": (BLUE, "o"), "cosine": (GREEN, "s"), "acceleration": ("#56B4E9", "D")}
ON_READOUTS = {
    "confidence": (ORANGE, "o"),
    "entropy": ("#E69F00", "s"),
    "entropy_diff": (PURPLE, "D"),
    "kl": ("#8B1A1A", "^"),
    "argmax_stability": (GREY, "v"),
}


def draw(evaluation: Evaluation, out: Path) -> list[Path]:
    """Write every picture into the folder and return where they are. Raises RunError if it cannot."""
    subject = evaluation.subject
    hard = subject.task.problems(np.random.default_rng(SEED + 1), subject.task.splits[0], 32, 64)
    with mpl.rc_context(STYLE):
        pictures = {
            "frontier": _frontier(evaluation),
            "halting": _halting(evaluation, hard),
            "latents": _latents(subject, hard),
        }
        try:
            out.mkdir(parents=True, exist_ok=True)
            for name, figure in pictures.items():
                figure.savefig(out / f"{name}.png", bbox_inches="tight", metadata={"Software": None})
        except OSError as error:
            raise unwritable(out, error) from error
    return [out / f"{name}.png" for name in pictures]


def _frontier(evaluation: Evaluation) -> Figure:
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
    for row, line in enumerate(grid):
        for column, value in enumerate(line):
            axes.text(
                column,
                row,
                _percent(value),
                ha="center",
                va="center",
                fontsize=5.6,
                color="#1a1a1a" if value > 0.8 else "#e8e8e8",
            )
    axes.set_xticks(range(len(columns)), [str(steps) for steps in columns])
    axes.set_yticks(range(len(buckets)), [str(bucket) for bucket in buckets])
    axes.set_xlabel("steps of thinking")
    axes.set_ylabel(f"{task.unit} from source to target")
    axes.tick_params(length=0)
    # The staircase: to its right a row has had at least one step per unit of difficulty.
    edges = [sum(steps < bucket for steps in columns) - 0.5 for bucket in buckets]
    heights = np.arange(len(buckets) + 1) - 0.5
    axes.stairs(edges, heights, orientation="horizontal", baseline=None, color="white", linewidth=2.6)
    axes.stairs(edges, heights, orientation="horizontal", baseline=None, color=ORANGE, linewidth=1.5)
    top = len(buckets) - 1
    axes.annotate(
        f"one step per {task.unit.removesuffix('s')}",
        (edges[-2], top - 1),
        xytext=(-6, 4),
        textcoords="offset points",
        ha="right",
        va="center",
        color="white",
        fontweight="bold",
        fontsize=7.5,
    )
    trained_to = evaluation.subject.trained_to
    if trained_to in buckets:
        height = buckets.index(trained_to) + 0.5
        axes.axhline(height, color="white", linewidth=1.0, linestyle=(0, (4, 2)))
        axes.annotate(
            f"trained up to {trained_to} {task.unit}; nothing above was seen",
            (len(columns) - 0.65, height),
            xytext=(0, 3),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=6.5,
            color="#1a1a1a",
            bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.2},
        )
    for spine in axes.spines.values():
        spine.set_visible(False)
    bar = figure.colorbar(image, ax=axes, pad=0.015, aspect=28, ticks=[0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    bar.ax.set_yticklabels(["50 % (chance)", "60 %", "70 %", "80 %", "90 %", "100 %"])
    bar.outline.set_visible(False)
    problems = next(iter(traces.values())).problems
    axes.set_title(f"Accuracy on {task.name} problems, {problems} held-out per row")
    return figure


def _percent(accuracy: float) -> str:
    """Whole per cent, never rounded up to 100."""
    return str(int(np.floor(accuracy * 100 + 1e-9)))


def _halting(evaluation: Evaluation, hard: Problems) -> Figure:
    """What criteria cost and keep, and why those on the readout are deceived."""
    figure = Figure(figsize=(6.9, 2.75))
    left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.05))
    figure.subplots_adjust(wspace=0.3)
    _costs(left, evaluation)
    _deceived(right, evaluation.subject, hard)
    return figure


def _costs(axes: Axes, evaluation: Evaluation) -> None:
    traces = evaluation.traces[evaluation.subject.task.splits[0]]
    oracle = float(np.mean([traced.oracle().mean() for traced in traces.values()]))
    for name, (colour, marker) in {**ON_LATENTS, **ON_READOUTS}.items():
        entries = [entry for entry in evaluation.report["halting"] if entry["criterion"] == name]
        worst = [min(figures["accuracy"] for figures in entry["buckets"].values()) for entry in entries]
        cost = [
            np.mean([figures["mean_steps"] for figures in entry["buckets"].values()]) for entry in entries
        ]
        axes.plot(cost, worst, marker=marker, markersize=3.2, linewidth=0.9, color=colour, label=name)
    axes.axvline(oracle, color="black", linewidth=0.8, linestyle=(0, (2, 2)))
    axes.annotate(
        "oracle",
        (oracle, 0.72),
        xytext=(-3, 0),
        textcoords="offset points",
        rotation=90,
        va="center",
        ha="right",
    )
    axes.set_xscale("log")
    ticks = [2, 3, 5, 10, 20, 40]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(0.47, 1.03)
    axes.set_yticks([0.5, 0.6, 0.7, 0.8, 0.9, 1.0], ["50 %", "60 %", "70 %", "80 %", "90 %", "100 %"])
    axes.set_xlabel("mean steps over all difficulties")
    axes.set_ylabel("accuracy at the hardest difficulty")
    axes.set_title("a  What a criterion costs and keeps")
    axes.legend(loc="center right", bbox_to_anchor=(1.0, 0.52), handlelength=1.6, labelspacing=0.25)


def _deceived(axes: Axes, subject: Subject, hard: Problems) -> None:
    steps = 48
    traced: Trace = trace(subject.network, hard, steps)
    chosen = hard.labels.numpy() == 1
    flips = int(np.median(traced.oracle()[chosen]))
    along = np.arange(1, steps + 1)
    for name, (colour, _) in {
        "latent_diff": ON_LATENTS["latent_diff"],
        "kl": ON_READOUTS["kl"],
        "entropy": ON_READOUTS["entropy"],
    }.items():
        values = np.maximum(traced.scores[chosen][:, :, SCORES.index(name)], 1e-9)
        low, middle, high = np.quantile(values, (0.1, 0.5, 0.9), axis=0)
        axes.fill_between(along, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(along, middle, color=colour, linewidth=1.3, label=name)
    axes.axvline(flips, color="black", linewidth=0.8, linestyle=(0, (2, 2)))
    axes.annotate(
        "the wave\nreaches the target",
        (flips, 3e-9),
        xytext=(-4, 0),
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontsize=7,
    )
    axes.axhline(CRITERIA["kl"].default, color=ON_READOUTS["kl"][0], linewidth=0.7, linestyle=(0, (1, 1.5)))
    axes.annotate(
        "usual kl threshold",
        (steps, CRITERIA["kl"].default),
        xytext=(0, 2),
        textcoords="offset points",
        ha="right",
        fontsize=6.5,
        color=ON_READOUTS["kl"][0],
    )
    axes.set_yscale("log")
    axes.set_ylim(1e-9, 20)
    axes.set_xlim(1, steps)
    axes.set_xlabel("step")
    axes.set_ylabel("score")
    axes.set_title("b  Stillness at the readout means nothing")
    axes.legend(loc="upper left", bbox_to_anchor=(0.0, 0.62), handlelength=1.4, labelspacing=0.25)


@torch.inference_mode()
def _latents(subject: Subject, hard: Problems) -> Figure:
    """One problem's latent states: which node moves when, and the paths they take in the plane."""
    task, network = subject.task, subject.network
    row = int((hard.labels == 1).nonzero()[0])
    inputs = type(hard.inputs)(*(tensor[row : row + 1] for tensor in hard.inputs))
    context, state = network.embed(inputs)
    states = [state]
    for taken in range(44):
        state = network.step(state, context, inputs.mask, torch.full((1,), taken, dtype=torch.int64))
        states.append(state)
    path = torch.cat(states)[:, inputs.mask[0]].numpy()  # (T + 1, N, D)
    movement = np.linalg.norm(np.diff(path, axis=0), axis=2) / np.linalg.norm(path[1:], axis=2)  # (T, N)
    arrival = np.where(movement.max(axis=0) > 0, movement[2:].argmax(axis=0) + 2, 0)
    target = int((inputs.roles[0] // 2).argmax())
    order = np.argsort(arrival, kind="stable")
    figure = Figure(figsize=(6.9, 2.9))
    left, right = figure.subplots(1, 2, width_ratios=(1.1, 1.0))
    figure.subplots_adjust(wspace=0.32)
    image = left.imshow(
        movement[:, order].T,
        cmap="cividis",
        aspect="auto",
        interpolation="nearest",
        extent=(0.5, len(movement) + 0.5, len(order) - 0.5, -0.5),
        norm=mpl.colors.LogNorm(1e-2, 2),
    )
    place = int(np.flatnonzero(order == target)[0])
    left.annotate(
        "target", (len(movement) + 0.5, place), xytext=(3, 0), textcoords="offset points", va="center"
    )
    left.set_xlabel("step")
    left.set_ylabel("node, in the order of its largest movement")
    left.set_yticks([])
    left.set_title(f"a  A wave crosses the graph, one {task.unit.removesuffix('s')} a step")
    bar = figure.colorbar(image, ax=left, pad=0.12, aspect=28)
    bar.set_label("relative movement")
    bar.outline.set_visible(False)
    _plane(right, path, target)
    return figure


def _plane(axes: Axes, path: NDArray[np.float32], target: int) -> None:
    """The two directions in which the states differ most (PCA over all nodes and steps)."""
    flat = path.reshape(-1, path.shape[-1])
    centre = flat.mean(axis=0)
    _, spread, directions = np.linalg.svd(flat - centre, full_matrices=False)
    share = spread[:2] ** 2 / (spread**2).sum()
    plane = (path - centre) @ directions[:2].T  # (T + 1, N, 2)
    for node in range(plane.shape[1]):
        axes.plot(*plane[:, node].T, color=GREY, linewidth=0.4, alpha=0.35)
    steps = np.arange(len(plane))
    dots = axes.scatter(
        plane[:, target, 0], plane[:, target, 1], c=steps, cmap="cividis", s=11, zorder=3, linewidths=0
    )
    axes.plot(*plane[:, target].T, color=ORANGE, linewidth=0.9, zorder=2, label="the target")
    axes.plot([], [], color=GREY, linewidth=0.8, label="every other node")
    axes.set_xlabel(f"first component ({share[0]:.0%})")
    axes.set_ylabel(f"second component ({share[1]:.0%})")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title("b  The target's path through the latent space")
    axes.legend(loc="best", handlelength=1.4)
    figure = axes.get_figure()
    assert figure is not None, "axes belong to a figure"
    bar = figure.colorbar(dots, ax=axes, pad=0.02, aspect=28)
    bar.set_label("step")
    bar.outline.set_visible(False)
