"""One problem, thought about step by step."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training.evaluate import Subject
from training.task import Problems

PATH, OTHERS = "#D55E00", "#777777"


@torch.inference_mode()
def draw_latents(subject: Subject, hard: Problems) -> Figure:
    """One problem's latent states: which token moves when, and the paths they take in the plane."""
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
    # The wave is at a token when it last moves by a good part of its own length.
    arrival = len(movement) - (movement[::-1] > 0.5).argmax(axis=0)
    target = int(context.places[0, -1].argmax())  # what the readout reads last
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
    when = int(movement[:, target].argmax()) + 1
    left.annotate(
        "target",
        (when - 0.7, place),
        xytext=(-16, 0),
        textcoords="offset points",
        color="white",
        ha="right",
        va="center",
        arrowprops={"arrowstyle": "->", "color": "white", "linewidth": 0.7},
    )
    left.set_xlabel("step")
    left.set_ylabel("token, in the order of the wave")
    left.set_yticks([])
    left.set_title(f"a  A wave crosses the problem, one {task.unit.removesuffix('s')} a step")
    bar = figure.colorbar(image, ax=left, pad=0.03, aspect=28)
    bar.set_label("relative movement")
    bar.outline.set_visible(False)
    _plane(right, path, target)
    return figure


def _plane(axes: Axes, path: NDArray[np.float32], target: int) -> None:
    """The two directions in which the states differ most (PCA over all tokens and steps)."""
    flat = path.reshape(-1, path.shape[-1])
    centre = flat.mean(axis=0)
    _, spread, directions = np.linalg.svd(flat - centre, full_matrices=False)
    share = spread[:2] ** 2 / (spread**2).sum()
    plane = (path - centre) @ directions[:2].T  # (T + 1, N, 2)
    for token in range(plane.shape[1]):
        axes.plot(*plane[:, token].T, color=OTHERS, linewidth=0.4, alpha=0.35)
    steps = np.arange(len(plane))
    dots = axes.scatter(
        plane[:, target, 0], plane[:, target, 1], c=steps, cmap="cividis", s=11, zorder=3, linewidths=0
    )
    axes.plot(*plane[:, target].T, color=PATH, linewidth=0.9, zorder=2, label="the target")
    axes.plot([], [], color=OTHERS, linewidth=0.8, label="every other token")
    axes.set_xlabel(f"first component ({share[0]:.0%})")
    axes.set_ylabel(f"second component ({share[1]:.0%})")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title("b  The target's path in latent space")
    jump = int(np.linalg.norm(np.diff(plane[3:, target], axis=0), axis=1).argmax()) + 3
    marks = ((0, "start", 6, -9), (jump, f"step {jump}: not reached", -2, -14), (-1, "reached", 8, 8))
    for step, text, side, above in marks:
        where = plane[step, target]
        axes.annotate(
            text,
            where,
            xytext=(side, above),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            fontsize=7,
        )
    axes.margins(0.08, 0.12)
    axes.legend(loc="upper left", handlelength=1.4)
    figure = axes.get_figure()
    assert figure is not None, "axes belong to a figure"
    bar = figure.colorbar(dots, ax=axes, pad=0.02, aspect=28)
    bar.set_label("step")
    bar.outline.set_visible(False)
