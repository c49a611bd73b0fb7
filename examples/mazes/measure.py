"""Accuracy over steps at several sizes, as a table and a picture.

python -m examples.mazes.measure examples/mazes/weights.safetensors --out depth.png
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Annotated

import torch
import typer

from examples.common import accuracy, draw, load, told
from examples.mazes.model import factory
from examples.mazes.problems import maze, stacked

SIZES = {9: 100, 21: 50, 33: 30, 59: 10}  # pixels along a side, and how many mazes of it
SEED = 1234  # of mazes that training has not seen


def main(
    weights: Annotated[Path, typer.Argument(help="a checkpoint")],
    out: Annotated[Path, typer.Option(help="the picture to write")] = Path("depth.png"),
) -> None:
    """Measure mazes of each size for three times the steps that the deepest needs; print and draw."""
    model = factory()
    load(model, weights)
    curves = {}
    for size, count in SIZES.items():
        rng = random.Random(SEED + size)
        drawn = [maze(rng, size) for _ in range(count)]
        pixels, way = map(torch.from_numpy, stacked(drawn))
        deepest = max(m.depth for m in drawn)
        name = f"{size} x {size}"
        curves[name] = accuracy(model, model.embed(pixels), way, 3 * deepest)
        mean = sum(m.depth for m in drawn) / count
        shown = told(curves[name], (deepest, deepest + 2, 2 * deepest, 3 * deepest))
        typer.echo(f"{name}: {count} mazes, dead ends of {mean:.0f} steps, at most {deepest}: {shown}")
    draw(curves, out, "Mazes, trained on 9 x 9 pixels", "mazes")


if __name__ == "__main__":
    typer.run(main)
