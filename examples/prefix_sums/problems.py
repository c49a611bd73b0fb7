"""Rows of random bits with their prefix sums.

python -m examples.prefix_sums.problems --bits 128 --count 100 --seed 7 --out problems.jsonl
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from examples.common import write_problems


def rows(count: int, bits: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Bits and, for each, 1 where the number of ones up to it is odd: two (count, bits) int64."""
    drawn = torch.randint(0, 2, (count, bits), generator=generator)
    return drawn, drawn.cumsum(dim=1) % 2


def problems(bits: int, count: int, seed: int) -> Iterator[dict[str, object]]:
    """As a server takes them, with what is right: a label for each bit."""
    for drawn, sums in zip(*rows(count, bits, torch.Generator().manual_seed(seed)), strict=True):
        labels = ["odd" if odd else "even" for odd in sums.tolist()]
        yield {"input": {"tensors": {"bits": drawn.tolist()}}, "label": labels}


def main(
    out: Annotated[Path, typer.Option(help="the file to write")] = Path("problems.jsonl"),
    bits: Annotated[int, typer.Option(min=1, help="bits in a row")] = 128,
    count: Annotated[int, typer.Option(min=1, help="rows")] = 100,
    seed: Annotated[int, typer.Option(help="the same seed draws the same rows")] = 7,
) -> None:
    """Write labelled rows of bits, one a line."""
    write_problems(out, problems(bits, count, seed))


if __name__ == "__main__":
    typer.run(main)
