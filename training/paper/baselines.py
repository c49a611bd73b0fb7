"""The networks that ours is compared with: layers of their own, and tokens that learn when to halt.

Graves, "Adaptive Computation Time for Recurrent Neural Networks" (arXiv 1603.08983), as the Universal
Transformer uses it (arXiv 1807.03819): after each step every token says with what probability it halts,
and what is read of a token is the mean of its states on the way, weighted by its halting probabilities;
once these add up to one, it stays as it is. All that a step must know of the steps before is in the
state, so a step stays a pure function:

    (B, N, 2D + 3): the token's state (D), the weighted sum of its states so far (D),
                    the weight given out, the remainder, the steps taken
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.config import RecurrentConfig
from model.network.layers import Block
from model.network.perception import Context, Inputs
from model.network.recurrent import RecurrentTransformer

HALTING_BIAS = -1.0  # probability .27 at first: a token starts with some four steps
EPSILON = 0.01  # a token halts once its probabilities add up to 1 - EPSILON (arXiv 1603.08983, equation 7)


@dataclass(frozen=True)
class Baseline:
    """Which of them a run trains, by default none: our own network."""

    layers: int = 0  # blocks of their own, step t runs block t, later steps none; 0: one shared block
    adaptive_time: bool = False  # tokens learn when to halt
    ponder: float = 0.0  # weight of the steps that they take until then

    def __post_init__(self) -> None:
        if self.layers < 0 or self.ponder < 0:
            raise ValueError("baseline.layers and baseline.ponder must be 0 (none) or more")
        if self.layers and self.adaptive_time:
            raise ValueError("baseline.adaptive_time needs a shared block: baseline.layers=0")

    @property
    def compares(self) -> bool:
        """Whether it is another network than ours."""
        return self.layers > 0 or self.adaptive_time

    def network(self, config: RecurrentConfig) -> RecurrentTransformer:
        """The network, with fresh weights drawn from torch's global generator."""
        if self.layers:
            return FixedDepth(config, self.layers)
        return (
            AdaptiveTransformer(config, self.ponder) if self.adaptive_time else RecurrentTransformer(config)
        )


class FixedDepth(RecurrentTransformer):
    """A network of so many layers; steps after the last change nothing."""

    def __init__(self, config: RecurrentConfig, layers: int) -> None:
        super().__init__(config)
        self.later = nn.ModuleList(Block(config, self.perception.views) for _ in range(layers - 1))

    def step(self, state: Tensor, context: Context, mask: Tensor, depth: Tensor) -> Tensor:
        """The layer whose turn it is. The rows move together."""
        return state if int(depth[0]) > len(self.later) else super().step(state, context, mask, depth)

    def _block(self, depth: Tensor) -> nn.Module:
        taken = int(depth[0])
        assert bool((depth == taken).all()), "the rows of a network of fixed depth move together"
        return (self.block, *self.later)[taken]


class AdaptiveTransformer(RecurrentTransformer):
    """The same block, with tokens that halt by themselves; ponder weighs their steps in the loss."""

    def __init__(self, config: RecurrentConfig, ponder: float) -> None:
        super().__init__(config)
        self.time = AdaptiveTime(self.strands * config.width)
        self._ponder = ponder

    def embed(self, inputs: Inputs) -> tuple[Context, Tensor]:
        """As in our network, with room for what the rule keeps: the state is (B, N, 2D + 3)."""
        context, state = super().embed(inputs)
        return context, self.time.begin(state)

    def step(self, state: Tensor, context: Context, mask: Tensor, depth: Tensor) -> Tensor:
        """One step of those who still think."""
        proposal = self._proposal(self.time.current(state), context, mask, depth)
        return self.time.advance(state, proposal) * mask.unsqueeze(-1).to(state.dtype)

    def thinking_cost(self, state: Tensor, mask: Tensor) -> Tensor:
        """The steps that a row's tokens take on average, weighted, summed over rows."""
        real = mask.to(state.dtype)
        mean = (self.time.ponder(state) * real).sum(dim=1) / real.sum(dim=1)
        return self._ponder * mean.sum()

    def _readable(self, state: Tensor) -> Tensor:
        return self.time.output(state)


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
