"""Accuracy over steps at several lengths, as a table and a picture.

python -m examples.prefix_sums.measure examples/prefix_sums/weights.safetensors --out depth.png
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from examples.common import accuracy, draw, load, told
from examples.prefix_sums.model import factory
from examples.prefix_sums.problems import rows

LENGTHS = (32, 128, 256, 512)
ROWS = 100
SEED = 1234  # of rows that training has not seen


def main(
    weights: Annotated[Path, typer.Argument(help="a checkpoint")],
    out: Annotated[Path, typer.Option(help="the picture to write")] = Path("depth.png"),
) -> None:
    """Measure rows of each length for three steps per bit; print and draw."""
    model = factory()
    load(model, weights)
    curves = {}
    for bits in LENGTHS:
        drawn, sums = rows(ROWS, bits, torch.Generator().manual_seed(SEED + bits))
        curves[f"{bits} bits"] = accuracy(model, model.embed(drawn), sums, 3 * bits)
        typer.echo(f"{bits} bits: {told(curves[f'{bits} bits'], (bits, 3 * bits))}")
    draw(curves, out, "Prefix sums, trained on up to 32 bits", "rows")


if __name__ == "__main__":
    typer.run(main)
