"""What the examples share: files of problems and weights, accuracy over steps, and its picture."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import safetensors.torch
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

Tensors = dict[str, Tensor]
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00")  # Okabe and Ito's


class Iterative(Protocol):
    """What a module for `fathom export --module` does after its `embed`."""

    def step(self, context: Tensors, state: Tensors) -> Tensors: ...

    def readout(self, context: Tensors, state: Tensors) -> Tensor: ...


def think(model: Iterative, context: Tensors, state: Tensors, steps: int) -> Iterator[tuple[Tensors, Tensor]]:
    """The state after each step, and its readout."""
    for _ in range(steps):
        state = model.step(context, state)
        yield state, model.readout(context, state)


@torch.inference_mode()
def accuracy(model: Iterative, embedded: tuple[Tensors, Tensors], classes: Tensor, steps: int) -> list[float]:
    """The share of rows that are right in every place, after each step.

    embedded: context and state, as `embed` gives them. classes: the right answers, (B, ...).
    """
    curve = []
    for _, logits in think(model, *embedded, steps):
        right = (logits.argmax(dim=-1) == classes).flatten(1).all(dim=1)
        curve.append(right.float().mean().item())
    return curve


def told(curve: Sequence[float], steps: Iterable[int]) -> str:
    """A curve in words, at some steps."""
    return ", ".join(f"{curve[step - 1]:.3f} after {step}" for step in steps)


def draw(curves: Mapping[str, Sequence[float]], out: Path, title: str, problems: str) -> None:
    """One curve of accuracy over steps (a logarithmic axis) for each size, into a PNG."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    for (name, values), colour in zip(curves.items(), COLOURS, strict=False):
        axes.plot(range(1, len(values) + 1), values, label=name, color=colour, linewidth=1.8)
    axes.set(xscale="log", xlabel="steps", ylabel=f"{problems} right", title=title, ylim=(-0.02, 1.02))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(out, dpi=110, metadata={"Software": None})


def write_problems(out: Path, problems: Iterable[Mapping[str, object]]) -> None:
    """One problem a line, as `fathom export --problems` and `fathom infer --file` take them."""
    with out.open("w", encoding="utf-8") as file:
        for problem in problems:
            file.write(json.dumps(problem, separators=(",", ":")) + "\n")


def save(model: nn.Module, out: Path) -> None:
    """The weights, and nothing that could run."""
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    out.write_bytes(safetensors.torch.save(weights))


def load(model: nn.Module, path: Path) -> None:
    """Weights from a file into the module they belong to."""
    model.load_state_dict(safetensors.torch.load(path.read_bytes()))
