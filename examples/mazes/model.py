"""Mazes by a convolution that is applied again and again, with the maze beside it (recall).

After "End-to-end Algorithm Synthesis with Recurrent Networks" (arXiv 2202.05826), smaller, with two
changes that let it go on for as long as one likes: each step proposes a state of fixed length and
moves towards it by a gate. Trained on 9 x 9 pixels it is right on mazes of any size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Tensors = dict[str, Tensor]


class Mazes(nn.Module):
    """Which pixels of a maze lie on the way from start to goal. State: {"picture": (B, width, H, W)}."""

    readout_kind = "tokens"  # an answer for each pixel
    labels = ["0", "1"]  # noqa: RUF012 -- plain lists and dictionaries are what the export reads
    axes = {"maze": {1: "H", 2: "W"}}  # noqa: RUF012
    longest = {"H": 99, "W": 99}  # noqa: RUF012
    max_steps = 400

    def __init__(self, width: int = 16, hidden: int = 32) -> None:
        super().__init__()
        self.start = nn.Conv2d(4, width, 1)
        self.look = nn.Conv2d(width + 4, hidden, 3, padding=1)
        self.mix = nn.Conv2d(hidden, hidden, 1)
        self.move = nn.Conv2d(hidden, 2 * width, 1)  # where to, and how far
        self.answer = nn.Conv2d(width, 1, 1)

    def example_inputs(self) -> Tensors:
        """{"maze": (2, 5, 7) int64}: 0 wall, 1 open, 2 start, 3 goal."""
        rows = ("0000000", "0211110", "0100010", "0101130", "0000000")
        maze = torch.tensor([[int(pixel) for pixel in row] for row in rows])
        return {"maze": torch.stack((maze, maze.flip(1)))}

    def embed(self, maze: Tensor) -> tuple[Tensors, Tensors]:
        """maze (B, H, W) int64 -> what each pixel is, (B, 4, H, W), and the first state."""
        pixels = F.one_hot(maze, 4).permute(0, 3, 1, 2).float()
        return {"pixels": pixels}, {"picture": _normed(self.start(pixels))}

    def step(self, context: Tensors, state: Tensors) -> Tensors:
        """Every pixel looks at its eight neighbours and at the maze, and moves."""
        picture = state["picture"]
        hidden = F.relu(self.look(torch.cat((picture, context["pixels"]), dim=1)))
        target, gate = self.move(F.relu(self.mix(hidden))).chunk(2, dim=1)
        return {"picture": picture + torch.sigmoid(gate) * (_normed(target) - picture)}

    def readout(self, context: Tensors, state: Tensors) -> Tensor:  # noqa: ARG002
        """Logits (B, H, W, 2): off the way, on it."""
        on = self.answer(state["picture"])[:, 0]
        return torch.stack((torch.zeros_like(on), on), dim=-1)


def _normed(picture: Tensor) -> Tensor:
    """To a root mean square of one over the channels of each pixel."""
    return picture * torch.rsqrt(picture.square().mean(dim=1, keepdim=True) + 1e-6)


def factory() -> Mazes:
    return Mazes().eval()
