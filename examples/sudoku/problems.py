"""Sudoku grids with one solution each, and how far counting alone gets with them.

python -m examples.sudoku.problems --count 200 --seed 7 --out problems.jsonl
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from examples.common import write_problems

SEARCH = 5_000  # tries after which a removal counts as one that makes the solution ambiguous
GIVENS = {6: (8, 20), 9: (20, 50)}  # how many cells are shown, where that leaves one solution
BOX = {6: (2, 3), 9: (3, 3)}  # rows and columns of a box


@dataclass(frozen=True)
class Puzzle:
    """Cells row by row; 0 where nothing is shown."""

    grid: tuple[int, ...]
    solution: tuple[int, ...]
    rounds: int | None  # of filling every cell that has one choice left; None: that gets stuck

    @property
    def size(self) -> int:
        """Rows, columns and digits."""
        return math.isqrt(len(self.grid))


class Board:
    """Digits on a grid of size x size cells, and what each group has used: bit d - 1 for the digit d."""

    def __init__(self, size: int, cells: tuple[int, ...] | None = None) -> None:
        self.size = size
        height, width = BOX[size]
        places = [divmod(cell, size) for cell in range(size * size)]
        boxes = [2 * size + r // height * height + c // width for r, c in places]
        self.groups = [(r, size + c, box) for (r, c), box in zip(places, boxes, strict=True)]
        self.used = [0] * (3 * size)
        self.cells = [0] * (size * size)
        self.every = (1 << size) - 1
        for cell, digit in enumerate(cells or ()):
            if digit:
                self.put(cell, digit)

    def put(self, cell: int, digit: int) -> None:
        """Write a digit into an empty cell, or take it out again (0)."""
        bit = 1 << ((digit or self.cells[cell]) - 1)
        for group in self.groups[cell]:
            self.used[group] ^= bit
        self.cells[cell] = digit

    def open(self, cell: int) -> int:
        """The digits that no group of the cell has yet, as bits."""
        row, column, box = self.groups[cell]
        return self.every & ~(self.used[row] | self.used[column] | self.used[box])

    def fill(self, rng: random.Random, tries: list[int]) -> bool:
        """Complete the grid, cells with the fewest choices first; False, and as before, where none can."""
        choices, least, cell = 0, self.size + 1, -1
        for place, digit in enumerate(self.cells):
            if not digit:
                left = self.open(place)
                count = left.bit_count()
                if count < least:
                    choices, least, cell = left, count, place
                    if count < 2:
                        break
        if cell < 0:
            return True
        digits = [digit for digit in range(1, self.size + 1) if choices >> (digit - 1) & 1]
        rng.shuffle(digits)
        for digit in digits:
            tries[0] -= 1
            if tries[0] < 0:
                return True  # undecided; who asks whether there is another solution is told yes
            self.put(cell, digit)
            if self.fill(rng, tries):
                return True
            self.put(cell, 0)
        return False

    def singles(self) -> dict[int, int]:
        """Cells with one digit left, and digits with one cell left in a group: cell -> digit."""
        found = {}
        once, twice = [0] * len(self.used), [0] * len(self.used)
        left = {cell: self.open(cell) for cell, digit in enumerate(self.cells) if not digit}
        for cell, bits in left.items():
            for group in self.groups[cell]:
                twice[group] |= once[group] & bits
                once[group] |= bits
        for cell, bits in left.items():
            row, column, box = (once[group] & ~twice[group] & bits for group in self.groups[cell])
            single = bits if bits.bit_count() == 1 else row | column | box
            if single.bit_count() == 1:
                found[cell] = single.bit_length()
        return found

    def rounds(self) -> int | None:
        """Fill singles, all at once in each round; the number of rounds, None where it gets stuck."""
        count = 0
        while 0 in self.cells:
            found = self.singles()
            if not found:
                return None
            for cell, digit in found.items():
                self.put(cell, digit)
            count += 1
        return count


def puzzle(rng: random.Random, size: int = 9) -> Puzzle:
    """One puzzle: a random full grid, then cells are taken out while the solution stays the only one."""
    board = Board(size)
    while not board.fill(rng, [SEARCH]) or 0 in board.cells:
        board = Board(size)
    solution = tuple(board.cells)
    shown = rng.randint(*GIVENS[size])
    order = list(range(size * size))
    rng.shuffle(order)
    for cell in order:
        if size * size - board.cells.count(0) <= shown:
            break
        board.put(cell, 0)
        if board.singles().get(cell) != solution[cell] and _other(board, cell, solution[cell], rng):
            board.put(cell, solution[cell])
    grid = tuple(board.cells)
    return Puzzle(grid, solution, board.rounds())


def _other(board: Board, cell: int, known: int, rng: random.Random) -> bool:
    """Whether the grid can be completed with another digit than the known one in the cell."""
    for digit in range(1, board.size + 1):
        if digit != known and board.open(cell) >> (digit - 1) & 1:
            trial = Board(board.size, tuple(board.cells))
            trial.put(cell, digit)
            if trial.fill(rng, [SEARCH]):
                return True
    return False


def stacked(puzzles: Sequence[Puzzle]) -> tuple[Tensor, Tensor]:
    """Their grids and solutions, each (B, size, size) int64."""
    shape = (len(puzzles), puzzles[0].size, puzzles[0].size)
    cells = torch.tensor([[p.grid, p.solution] for p in puzzles])
    return cells[:, 0].view(shape), cells[:, 1].view(shape)


def problems(count: int, seed: int) -> Iterator[dict[str, object]]:
    """As a server takes them, with what is right: the digit of each cell."""
    rng = random.Random(seed)
    for _ in range(count):
        drawn = puzzle(rng)
        rows = range(0, len(drawn.grid), drawn.size)
        grid = [list(drawn.grid[row : row + drawn.size]) for row in rows]
        yield {"input": {"tensors": {"grid": grid}}, "label": list(drawn.solution)}


def main(
    out: Annotated[Path, typer.Option(help="the file to write")] = Path("problems.jsonl"),
    count: Annotated[int, typer.Option(min=1, help="puzzles")] = 200,
    seed: Annotated[int, typer.Option(help="the same seed draws the same puzzles")] = 7,
) -> None:
    """Write labelled puzzles of 9 x 9 cells, one a line."""
    write_problems(out, problems(count, seed))


if __name__ == "__main__":
    typer.run(main)
