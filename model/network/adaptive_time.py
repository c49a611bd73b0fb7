"""Adaptive computation time: every token learns when it has thought enough. A baseline.

"Adaptive Computation Time for Recurrent Neural Networks" (arXiv 1603.08983, section 2), token by token
as in "Universal Transformers" (arXiv 1807.03819, section 2.3). What is read of a token is the mean of
its states on the way, weighted by its halting probabilities; once these add up to one, it stays as it
is. All that a step must know of the steps before is in the state, so a step stays a pure function:

    (B, N, 2D + 3): the token's state (D), the weighted sum of its states so far (D),
                    the weight given out, the remainder, the steps taken
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HALTING_BIAS = -1.0  # probability .27 at first: a token starts with some four steps
EPSILON = 0.01  # a token halts once its probabilities add up to 1 - EPSILON (arXiv 1603.08983, equation 7)


class AdaptiveTime(nn.Module):
    """The halting probability of a token, and the bookkeeping around a step."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.halt = nn.Linear(width, 1)
        nn.init.constant_(self.halt.bias, HALTING_BIAS)

    def begin(self, state: Tensor) -> Tensor:
        """The state before the first step: (B, N, D) -> (B, N, 2D + 3)."""
        return F.pad(state, (0, self.width + 3))

    def current(self, state: Tensor) -> Tensor:
        """What the block works on: (B, N, 2D + 3) -> (B, N, D)."""
        return state[..., : self.width]

    def advance(self, state: Tensor, proposal: Tensor) -> Tensor:
        """One step of those who still think: the proposal (B, N, D) into the state."""
        own, total, spent, remainder, steps = self._parts(state)
        running = spent < 1
        probability = torch.sigmoid(self.halt(proposal))
        last = spent + probability >= 1 - EPSILON
        weight = torch.where(last, 1 - spent, probability)
        parts = (
            torch.where(running, proposal, own),
            torch.where(running, total + weight * proposal, total),
            torch.where(running, torch.where(last, 1.0, spent + weight), spent),
            torch.where(running, 1 - spent, remainder),
            steps + running.to(steps.dtype),
        )
        return torch.cat(parts, dim=-1)

    def output(self, state: Tensor) -> Tensor:
        """What the readout reads, were this step the last: (B, N, 2D + 3) -> (B, N, D)."""
        own, total, spent, _, _ = self._parts(state)
        return total + (1 - spent) * own

    def ponder(self, state: Tensor) -> Tensor:
        """Steps taken plus remainder, which has a gradient (equation 12): (B, N)."""
        _, _, _, remainder, steps = self._parts(state)
        return (steps + remainder).squeeze(-1)

    def steps(self, state: Tensor) -> Tensor:
        """Steps that each token has taken before it halted: (B, N)."""
        return state[..., -1]

    def _parts(self, state: Tensor) -> tuple[Tensor, ...]:
        return torch.split(state, [self.width, self.width, 1, 1, 1], dim=-1)
