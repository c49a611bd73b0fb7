"""Prefix sums: is the number of ones up to each bit odd? The smallest complete model to bring along."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Tensors = dict[str, Tensor]


class PrefixSums(nn.Module):
    """state {"places": (B, N, width)}: one vector for each bit."""

    readout_kind = "tokens"  # an answer for each bit
    labels = ["even", "odd"]  # noqa: RUF012 -- a plain list, as `fathom export --module` reads it
    axes = {"bits": {1: "N"}}  # noqa: RUF012 -- rows may be of any length
    max_steps = 1024

    def __init__(self, width: int = 16, hidden: int = 32) -> None:
        super().__init__()
        self.start = nn.Linear(2, width)
        self.look = nn.Linear(2 * width + 2, hidden)
        self.move = nn.Linear(hidden, 2 * width)  # where to, and how far
        self.answer = nn.Linear(width, 2)

    def example_inputs(self) -> Tensors:
        """{"bits": (2, 5) int64}."""
        return {"bits": torch.tensor([[1, 0, 1, 1, 0], [0, 1, 1, 0, 1]])}

    def embed(self, bits: Tensor) -> tuple[Tensors, Tensors]:
        """bits (B, N) int64, each 0 or 1 -> what stays, (B, N, 2), and the first state."""
        seen = F.one_hot(bits, 2).float()
        return {"seen": seen}, {"places": _normed(self.start(seen))}

    def step(self, context: Tensors, state: Tensors) -> Tensors:
        """Every place looks at its left neighbour and at its own bit, and moves."""
        places = state["places"]
        left = F.pad(places, (0, 0, 1, 0))[:, :-1]  # zeros to the left of the first
        hidden = F.relu(self.look(torch.cat((places, left, context["seen"]), dim=-1)))
        target, gate = self.move(hidden).chunk(2, dim=-1)
        return {"places": places + torch.sigmoid(gate) * (_normed(target) - places)}

    def readout(self, context: Tensors, state: Tensors) -> Tensor:  # noqa: ARG002
        """Logits (B, N, 2): even or odd."""
        return self.answer(state["places"])


def _normed(places: Tensor) -> Tensor:
    """To a root mean square of one: a state that cannot grow can be applied to itself for ever."""
    return places * torch.rsqrt(places.square().mean(dim=-1, keepdim=True) + 1e-6)


def factory() -> PrefixSums:
    """What `fathom export --module examples.prefix_sums.model:factory` calls."""
    return PrefixSums().eval()
