"""Mazes without loops, the way through each, and how many steps dead ends take to fill.

python -m examples.mazes.problems --size 33 --count 100 --seed 7 --out problems.jsonl
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from examples.common import write_problems

WALL, OPEN, START, GOAL = range(4)
SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1))
Place = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Maze:
    """Pixels (size, size), the outermost of them walls; rooms lie at odd places."""

    pixels: NDArray[np.int64]  # WALL, OPEN, START or GOAL
    way: NDArray[np.bool_]  # from start to goal, both included
    depth: int  # steps until every dead end is filled, if each fills from its tip by a pixel a step


def maze(rng: random.Random, size: int, winding: bool = True) -> Maze:
    """One maze of an odd size. winding: long corridors (depth first), else many short dead ends (Prim)."""
    rooms = size // 2
    pixels = np.zeros((size, size), np.int64)
    _carve(rng, pixels, rooms, winding)
    begin, end = rng.sample([(2 * i + 1, 2 * j + 1) for i in range(rooms) for j in range(rooms)], 2)
    way, depth = _fill_dead_ends(pixels, begin, end)
    pixels[begin], pixels[end] = START, GOAL
    return Maze(pixels, way, depth)


def _carve(rng: random.Random, pixels: NDArray[np.int64], rooms: int, winding: bool) -> None:
    """Grow a tree of rooms: from the newest one that has a neighbour left, or from any."""
    first = (2 * rng.randrange(rooms) + 1, 2 * rng.randrange(rooms) + 1)
    pixels[first] = OPEN
    edge = [first]
    while edge:
        place = -1 if winding else rng.randrange(len(edge))
        i, j = edge[place]
        free = [(a, b) for a, b in SIDES if _free(pixels, i + 2 * a, j + 2 * b)]
        if not free:
            edge[place] = edge[-1]
            edge.pop()
            continue
        a, b = rng.choice(free)
        pixels[i + a, j + b] = pixels[i + 2 * a, j + 2 * b] = OPEN
        edge.append((i + 2 * a, j + 2 * b))


def _free(pixels: NDArray[np.int64], i: int, j: int) -> bool:
    return 0 < i < len(pixels) and 0 < j < len(pixels) and pixels[i, j] == WALL


def _fill_dead_ends(pixels: NDArray[np.int64], begin: Place, end: Place) -> tuple[NDArray[np.bool_], int]:
    """What is left of the open pixels when all dead ends are filled, and after how many steps it is."""
    way = pixels != WALL
    depth = 0
    while True:
        ways = np.pad(way, 1).astype(np.int64)
        exits = ways[2:, 1:-1] + ways[:-2, 1:-1] + ways[1:-1, 2:] + ways[1:-1, :-2]
        tips = way & (exits == 1)
        tips[begin] = tips[end] = False
        if not tips.any():
            return way, depth
        way = way & ~tips
        depth += 1


def stacked(mazes: Sequence[Maze]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Pixels and ways of mazes of one size, each (B, size, size)."""
    return np.stack([m.pixels for m in mazes]), np.stack([m.way for m in mazes])


def problems(size: int, count: int, seed: int) -> Iterator[dict[str, object]]:
    """As a server takes them, with what is right: 1 for each pixel on the way, row by row."""
    rng = random.Random(seed)
    for _ in range(count):
        drawn = maze(rng, size)
        label = drawn.way.astype(int).flatten().tolist()
        yield {"input": {"tensors": {"maze": drawn.pixels.tolist()}}, "label": label}


def main(
    out: Annotated[Path, typer.Option(help="the file to write")] = Path("problems.jsonl"),
    size: Annotated[int, typer.Option(min=5, help="pixels along a side; odd")] = 33,
    count: Annotated[int, typer.Option(min=1, help="mazes")] = 100,
    seed: Annotated[int, typer.Option(help="the same seed draws the same mazes")] = 7,
) -> None:
    """Write labelled mazes, one a line."""
    if size % 2 == 0:
        raise typer.BadParameter("a maze has an odd size: walls and rooms in turn, walls at both ends")
    write_problems(out, problems(size, count, seed))


if __name__ == "__main__":
    typer.run(main)
