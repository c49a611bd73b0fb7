"""Sudoku by a network that knows cells, digits and groups, but no rule about them.

One token for each cell and each digit that it could hold: "is this the digit of that cell?". A step
adds up what the tokens of a digit say along the cell's row, column and box, and what the digits of a
cell say among themselves; the same weights for all. No digit is special, so exchanging two of them
in a puzzle exchanges them in the answer.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Tensors = dict[str, Tensor]
EXAMPLE = "530070000600195000098000060800060003400803001700020006060000280000419005000080079"


class Sudoku(nn.Module):
    """The digits of a sudoku. State: {"cells": (B, size, size, size, width)} by row, column and digit."""

    readout_kind = "tokens"  # an answer for each cell
    axes: dict[str, dict[int, str]] = {}  # noqa: RUF012 -- all grids are of one size
    score_rules = {"sure": "above"}  # noqa: RUF012
    score_defaults = {"sure": 0.9}  # noqa: RUF012
    max_steps = 128

    def __init__(self, box: tuple[int, int] = (3, 3), width: int = 24, hidden: int = 64) -> None:
        """box: rows and columns of a box; a grid has as many rows, columns and digits as it has cells."""
        super().__init__()
        height, across = box
        self.size = height * across
        self.labels = [str(digit) for digit in range(1, self.size + 1)]
        rows, columns = torch.arange(self.size**2) // self.size, torch.arange(self.size**2) % self.size
        boxes = rows // height * height + columns // across
        groups = [F.one_hot(index, self.size) for index in (rows, columns, boxes)]
        # Which of 3 * size rows, columns and boxes a cell belongs to: (cells, groups).
        self.member: Tensor
        self.register_buffer("member", torch.cat(groups, dim=1).float(), persistent=False)
        self.first = nn.Parameter(0.5 * torch.randn(width))
        self.own = nn.Linear(width + 3, hidden)
        self.among_digits = nn.Linear(width, hidden, bias=False)
        self.along_groups = nn.Parameter(torch.randn(3, width, hidden) / math.sqrt(width))
        self.out = nn.Linear(hidden, 2 * width)
        self.scale = nn.Parameter(torch.full((width,), 0.5))
        self.answer = nn.Linear(width, 1)

    def example_inputs(self) -> Tensors:
        """{"grid": (2, 9, 9) int64}: digits, 0 where a cell is empty."""
        grid = torch.tensor([int(digit) for digit in EXAMPLE]).view(9, 9)
        return {"grid": torch.stack((grid, grid.T))}

    def embed(self, grid: Tensor) -> tuple[Tensors, Tensors]:
        """grid (B, size, size) int64 -> what is known of each token (..., 3), and one start for all."""
        digits = torch.arange(1, self.size + 1, device=grid.device)
        shown = grid[..., None]  # (B, size, size, 1)
        given = shown == digits  # (B, size, size, size)
        unknown = (shown == 0).expand_as(given)
        known = torch.stack((unknown, given, ~(unknown | given)), dim=-1).float()
        return {"known": known}, {"cells": self.first.expand(*given.shape, -1).clone()}

    def step(self, context: Tensors, state: Tensors) -> Tensors:
        """One round of sums, and a gated move towards what they suggest."""
        cells = state["cells"]
        # Sizes come from shapes: a trace for an export would take len(cells) for a constant.
        rows, size, width = cells.shape[0], self.size, cells.shape[-1]
        seen = _normed(cells)
        sums = self.member.T @ seen.reshape(rows, size * size, size * width) / 3  # by group
        views = sums.view(rows, 3, size * size, width) @ self.along_groups  # of rows, columns and boxes
        spread = self.member @ views.view(rows, 3 * size, -1)  # what its three groups tell each cell
        hidden = self.own(torch.cat((seen, context["known"]), dim=-1))
        hidden = hidden + spread.view(hidden.shape) + self.among_digits(seen.sum(dim=3, keepdim=True) / 3)
        proposal, gate = self.out(F.relu(hidden)).chunk(2, dim=-1)
        target = _normed(cells + self.scale * proposal)
        return {"cells": cells + torch.sigmoid(gate) * (target - cells)}

    def readout(self, context: Tensors, state: Tensors) -> Tensor:
        """Logits (B, size, size, size), the last axis by digit; what is given is certain."""
        logits = self.answer(_normed(state["cells"]))[..., 0]
        return logits + 50.0 * context["known"][..., 1]

    def scores(self, context: Tensors, state: Tensors, previous: Tensors) -> Tensors:  # noqa: ARG002
        """sure (B,): the probability of the least certain cell, 0 while the digits break a rule."""
        logits = self.readout(context, state)
        chosen = F.one_hot(logits.argmax(dim=-1), self.size).float().flatten(1, 2)
        most = (self.member.T @ chosen).amax(dim=(1, 2))  # of one digit in one group
        least = logits.softmax(dim=-1).amax(dim=-1).amin(dim=(1, 2))
        return {"sure": torch.where(most > 1.5, 0.0, least)}


def _normed(tokens: Tensor) -> Tensor:
    return F.layer_norm(tokens, tokens.shape[-1:])


def factory() -> Sudoku:
    """For grids of 9 x 9."""
    return Sudoku().eval()
