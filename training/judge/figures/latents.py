"""One problem, thought about step by step: what moves when, and where to."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from model.halting import TINY
from model.network.perception import Inputs, SequenceInputs, WordInputs
from training.judge.evaluate import Subject
from training.judge.figures.followed import Followed
from training.judge.figures.style import GREY, INK, ORANGE
from training.task import Task

BIG = 0.5  # a token is still being told something when it moves by this share of its own length
FLOOR = 1e-6
NEAR = 0.12  # of the picture: marks that are nearer to one another share a name
LONGEST = 12  # letters of a word under the picture; of a longer one the end is left
LABEL = np.array([0.2, 0.06])  # half of a name's width and height, of the picture

Floats = NDArray[np.floating[Any]]


@torch.inference_mode()
def draw_latents(subject: Subject, followed: Followed) -> Figure:
    """One problem's latent states: which token moves when, how far from step to step, and on which paths."""
    row = followed.shown()
    inputs = type(followed.problems.inputs)(*(tensor[row : row + 1] for tensor in followed.problems.inputs))
    context, start = subject.network.embed(inputs)
    states = subject.network.walk(start, context, inputs.mask, followed.steps)
    path = torch.cat(list(states))[:, inputs.mask[0]].numpy()  # (T + 1, N, D)
    read = int(context.places[0, -1].argmax())  # what the readout reads last
    movement = np.linalg.norm(np.diff(path, axis=0), axis=2) / (
        np.linalg.norm(path[1:], axis=2) + TINY
    )  # (T, N)
    right = followed.traced.right[row, : followed.steps]
    final = int(followed.traced.oracle()[row]) if right[-1] and not right[0] else None

    figure = Figure(figsize=(6.9, 5.6))
    grid = figure.add_gridspec(2, 2, hspace=0.42, wspace=0.28, width_ratios=(1.0, 1.1), bottom=0.13)
    _movement(figure, figure.add_subplot(grid[0, :]), movement, read, inputs, subject.task)
    distances = figure.add_subplot(grid[1, 0])
    _distance(distances, movement, read, final)
    _plane(figure, figure.add_subplot(grid[1, 1]), path, read, final)
    handles = distances.get_legend_handles_labels()
    figure.legend(*handles, loc="lower center", ncols=4, handlelength=1.6)
    return figure


def _movement(figure: Figure, axes: Axes, movement: Floats, read: int, inputs: Inputs, task: Task) -> None:
    """Steps upwards, tokens across: a text in its own order, anything else in the order of its last move."""
    steps, tokens = movement.shape
    big = movement > BIG
    arrival = np.where(big.any(axis=0), steps - big[::-1].argmax(axis=0), 0)
    order = (
        np.arange(tokens)
        if isinstance(inputs, SequenceInputs | WordInputs)
        else np.argsort(arrival, kind="stable")
    )
    image = axes.imshow(
        np.maximum(movement[:, order], 1e-9),
        cmap="cividis",
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=(-0.5, tokens - 0.5, 0.5, steps + 0.5),
        norm=mpl.colors.LogNorm(1e-2, 2),
    )
    place = int(np.flatnonzero(order == read)[0])
    axes.set_title("a  How far each token moves at each step")
    axes.set_ylabel("step")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(length=0)
    if isinstance(inputs, SequenceInputs | WordInputs):
        words = {kind: word for word, kind in task.codec.vocabulary.items()}
        whole = [words.get(kind, "?") for kind in inputs.tokens[0, :tokens].tolist()]
        names = [word if len(word) <= LONGEST else f"…{word[1 - LONGEST :]}" for word in whole]
        characters = max(map(len, names)) == 1
        style: Any = {"rotation": 0 if characters else 90, "family": "monospace" if characters else None}
        room = 500 if characters else 330  # points of type that stand beside one another
        axes.set_xticks(range(tokens), names, fontsize=min(8.0, room / tokens), **style)
        axes.tick_params(axis="x", pad=1)
        axes.get_xticklabels()[place].set_color(ORANGE)
        axes.set_xlabel("the expression" if characters else "word by word")
    else:
        axes.set_xticks([place], ["the token read out"], color=ORANGE, fontsize=7)
        crossed = np.unique(arrival[arrival > 0])
        wave = len(crossed) > 2 and len(crossed) >= 0.9 * crossed.max()
        axes.set_xlabel(
            "tokens in the order in which they come to rest"
            + (f": one {task.unit.removesuffix('s')} a step" if wave else "")
        )
    bar = figure.colorbar(image, ax=axes, pad=0.02, aspect=20, extend="both")
    bar.set_label("relative movement")
    bar.outline.set_visible(False)


def _distance(axes: Axes, movement: Floats, read: int, final: int | None) -> None:
    """The relative distance between consecutive states, for the token that is read and all others."""
    steps = np.arange(1, len(movement) + 1)
    others = np.delete(movement, read, axis=1)
    others = np.maximum(others[:, others.max(axis=0) > FLOOR], FLOOR)  # without those that are given and stay
    marker = "o" if len(steps) < 12 else None
    if others.shape[1]:
        low, high = others.min(axis=1), others.max(axis=1)
        axes.fill_between(steps, low, high, color=GREY, alpha=0.25, linewidth=0, label="the others, all")
        axes.plot(
            steps,
            np.median(others, axis=1),
            color=GREY,
            linewidth=1.1,
            marker=marker,
            markersize=2.5,
            label="the others, median",
        )
    axes.plot(
        steps,
        np.maximum(movement[:, read], FLOOR),
        color=ORANGE,
        linewidth=1.3,
        marker=marker,
        markersize=2.5,
        label="the token read out",
    )
    if final is not None and len(steps) > 1:
        axes.axvline(
            final, color=INK, linewidth=0.9, linestyle=(0, (2, 2)), label=f"answer final: step {final}"
        )
    axes.set_yscale("log")
    axes.set_xlim(1, max(2, len(steps)))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("step")
    axes.set_ylabel("distance from the step before / length")
    axes.set_title("b  Distance between steps")


def _plane(figure: Figure, axes: Axes, path: Floats, read: int, final: int | None) -> None:
    """The two directions in which the states differ most (PCA over all tokens and steps)."""
    flat = path.reshape(-1, path.shape[-1])
    centre = flat.mean(axis=0)
    _, spread, directions = np.linalg.svd(flat - centre, full_matrices=False)
    share = spread[:2] ** 2 / ((spread**2).sum() + TINY)
    plane = (path - centre) @ directions[:2].T  # (T + 1, N, 2)
    for token in range(plane.shape[1]):
        if token != read:
            axes.plot(*plane[:, token].T, color=GREY, linewidth=0.4, alpha=0.35)
    across, up = plane[:, read].T
    dots = axes.scatter(across, up, c=np.arange(len(plane)), cmap="cividis", s=11, zorder=3, linewidths=0)
    axes.plot(*plane[:, read].T, color=ORANGE, linewidth=0.9, zorder=2)
    axes.set_xlabel(f"first component ({share[0]:.0%})")
    axes.set_ylabel(f"second component ({share[1]:.0%})")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title("c  Paths in latent space")
    marks = {0: "start", len(plane) - 1: f"step {len(plane) - 1}"}
    if final is not None and 0 < final < len(plane) - 1:
        marks[final] = f"step {final}: final"
    low, size = plane.min(axis=(0, 1)), np.ptp(plane, axis=(0, 1)) + TINY
    path_there, labels = (plane[:, read] - low) / size, np.empty((0, 2))  # in the unit square
    for step, text in marks.items():
        where = path_there[step]
        if any(np.linalg.norm(where - path_there[other]) < NEAR for other in marks if other < step):
            continue  # one name would cover another
        place = _free(where, np.concatenate([path_there, labels]))
        labels = np.concatenate([labels, place[None]])
        axes.annotate(
            text,
            tuple(low + where * size),
            xytext=tuple(low + place * size),
            ha="center",
            va="center",
            fontsize=7,
            zorder=4,
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "alpha": 0.8, "linewidth": 0},
            arrowprops={"arrowstyle": "-", "color": INK, "linewidth": 0.6},
        )
    axes.margins(0.12, 0.16)
    bar = figure.colorbar(dots, ax=axes, pad=0.02, aspect=28)
    bar.set_label("step")
    bar.outline.set_visible(False)


def _free(where: Floats, taken: Floats) -> Floats:
    """Around a point of the unit square, the middle of a label that is farthest from what is there."""
    around = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    places = where + np.stack([0.28 * np.cos(around), 0.16 * np.sin(around)], axis=1)
    places = np.clip(places, (0.12, 0.0), (0.88, 1.0))
    apart = np.abs(places[:, None] - taken) / LABEL  # (16, taken, 2)
    return np.asarray(places[apart.max(axis=2).min(axis=1).argmax()])
