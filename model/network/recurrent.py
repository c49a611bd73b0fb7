"""The depth-recurrent Transformer: one shared block, applied as often as the caller asks.

After "Thinking Deeper, Not Longer" (arXiv 2603.21676, section 3). Verbs, pure functions of
their arguments, so that the same code trains, exports and is the oracle for every other path:

    embed(inputs)                        -> context, state
    step(state, context, mask, depth)    -> state
    walk(state, context, mask, steps)    -> states    (the plain loop)
    readout(state, context)              -> logits
    forward(inputs, steps)               -> logits
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.config import RecurrentConfig
from model.network.layers import Block, HaltingHead
from model.network.perception import Context, Inputs, perception_of
from model.network.reading import CarryBlock, Heard, Reader, Routes


class RecurrentTransformer(nn.Module):
    """One block, one gate, one readout; how often the block runs is an argument, not a weight.

    Where the perception has several strands, a token's state is as many parts of equal width, side by
    side, and the block runs on each of them alone: K strands of W channels, D = K W.
    """

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.config = config
        self.perception = perception_of(config)
        self.strands = self.perception.strands  # K
        self.reader: Reader | None = None
        if config.reading:
            seen = self.perception
            self.reader = Reader(config, seen.kinds, self.strands, seen.distinct, seen.nothing)
            self.routes = Routes(config, config.reading)
            self.said = nn.Embedding(self.perception.classes, config.width)
        else:
            self.roles = nn.Embedding(self.perception.kinds, config.width)
            self.input_norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.block = CarryBlock(config) if config.reading else Block(config, self.perception.views)
        self.gate = nn.Linear(2 * config.width, config.width) if config.gate_bias is not None else None
        if self.gate is not None:
            nn.init.constant_(self.gate.bias, float(config.gate_bias or 0.0))
        self.depths = nn.Embedding(config.depth_embedding, config.width) if config.depth_embedding else None
        read = self.perception.readers * config.width
        self.head_norm = nn.LayerNorm(read)
        self.head = nn.Linear(read, self.perception.classes)
        # Last, so that all else starts from the same weights with and without it.
        self.halting = (
            HaltingHead(self.strands * config.width, self.perception.readers) if config.halting_head else None
        )

    @property
    def context(self) -> tuple[str, ...]:
        """The fields of Context that this network fills, in order."""
        if self.config.reading:
            counts = ("counts",) if self.config.counters else ()
            routing = ("routes",) if self.config.routing == "input" else counts
            return (*self.perception.context, *routing, "injection")
        injection = ("injection",) if self.config.reinjection else ()
        given = ("given", "known") if self.config.keep_given else ()
        return (*self.perception.context, *injection, *given)

    def embed(self, inputs: Inputs) -> tuple[Context, Tensor]:
        """Inputs -> context and the state before the first step, (B, N, D)."""
        kinds, context = self.perception.see(inputs, self.head.weight.dtype)
        if self.reader is not None:
            read = self.reader(kinds, inputs.mask)
            fixed = self.config.routing == "input"
            routes = self.routes(read.heard, inputs.mask) if fixed else None
            counts = None if fixed else read.heard.counts
            return context._replace(injection=read.perceived, routes=routes, counts=counts), read.state
        state = self._enter(self.roles(kinds), inputs.mask)
        if self.config.reinjection:
            context = context._replace(injection=state)
        if self.config.keep_given:
            context = context._replace(given=state, known=self.perception.known(kinds))
        return context, state

    def _enter(self, seen: Tensor, mask: Tensor) -> Tensor:
        state = self.dropout(self.input_norm(seen)).flatten(2)  # (B, N, K, W) -> (B, N, D)
        return state * mask.unsqueeze(-1).to(state.dtype)

    def step(self, state: Tensor, context: Context, mask: Tensor, depth: Tensor) -> Tensor:
        """One application of the shared block: (B, N, D) -> (B, N, D).

        depth (B,) int64 counts the steps a row has taken before this one. The gate mixes proposal
        and state, z = sigmoid(W[h'; h] + b), and starts close to the identity (b = -2).
        """
        proposal = self._proposal(state, context, mask, depth)
        return proposal * mask.unsqueeze(-1).to(proposal.dtype)

    def walk(
        self,
        state: Tensor,
        context: Context,
        mask: Tensor,
        steps: int,
        taken: int = 0,
        disturb: Callable[[Tensor], Tensor] | None = None,
    ) -> Iterator[Tensor]:
        """The plain loop, the oracle for every other path: the state, and then that after each step.

        taken counts the steps before; disturb, if given, changes the state before every step.
        """
        yield state
        for depth in range(taken, taken + steps):
            depths = torch.full((state.shape[0],), depth, dtype=torch.int64, device=state.device)
            state = self.step(disturb(state) if disturb else state, context, mask, depths)
            yield state

    def _proposal(self, state: Tensor, context: Context, mask: Tensor, depth: Tensor) -> Tensor:
        before = self._split(state)
        x = before if context.injection is None else self._split(state + context.injection)
        if self.config.echo:
            x = x + self._echo(before)
        if self.reader is not None:
            proposal = self.block(x, self._routes(x, context, mask))
        else:
            if self.depths is not None:
                places = depth.clamp(max=self.config.depth_embedding - 1).repeat_interleave(self.strands)
                x = x + self.depths(places).unsqueeze(1)
            proposal = self._block(depth)(x, self._attention(context))
        if self.config.proposal_norm:
            proposal = F.layer_norm(proposal, (self.config.width,))
        if self.gate is not None:
            opening = torch.sigmoid(self.gate(torch.cat((proposal, before), dim=-1)))
            proposal = opening * proposal + (1 - opening) * before
        proposal = self._joined(proposal)
        if context.given is not None and context.known is not None:
            proposal = torch.where(context.known, context.given, proposal)
        return proposal

    def _echo(self, before: Tensor) -> Tensor:
        """What the head says of each token, as a clean embedding of it: (B K, N, W) -> (B K, N, W)."""
        logits = self.head(self.head_norm(before)).split(self.perception.questions, dim=-1)
        said = torch.cat([torch.softmax(question, dim=-1) for question in logits], dim=-1)
        if self.reader is not None:
            return said @ self.said.weight
        return self.input_norm(said @ self.roles.weight)

    def _routes(self, x: Tensor, context: Context, mask: Tensor) -> Tensor:
        """Who listens to whom in this step: (B, H, N, N), or (B K, H, N, N) where the state decides."""
        if context.routes is not None:
            return context.routes
        counts = (
            x[..., :0] if context.counts is None else context.counts.repeat_interleave(self.strands, dim=0)
        )
        return self.routes(Heard(x, x, counts), mask.repeat_interleave(self.strands, dim=0))

    def _attention(self, context: Context) -> Tensor:
        """What is added to the attention logits of every strand: (B K, V, N, N)."""
        assert context.attention is not None, "a network that does not read attends under a mask"
        if self.strands == 1:
            return context.attention
        return context.attention.unsqueeze(1).expand(-1, self.strands, -1, -1, -1).flatten(0, 1)

    def _split(self, state: Tensor) -> Tensor:
        """Strands as rows of their own: (B, N, K W) -> (B K, N, W)."""
        if self.strands == 1:
            return state
        parts = state.reshape(*state.shape[:2], self.strands, self.config.width)
        return parts.transpose(1, 2).flatten(0, 1)

    def _joined(self, rows: Tensor) -> Tensor:
        """Strands side by side: (B K, N, W) -> (B, N, K W)."""
        if self.strands == 1:
            return rows
        return rows.reshape(-1, self.strands, *rows.shape[1:]).transpose(1, 2).flatten(2)

    def _block(self, depth: Tensor) -> nn.Module:  # noqa: ARG002  a baseline's blocks take turns
        """What computes the proposal of the step after `depth` others."""
        return self.block

    def readout(self, state: Tensor, context: Context) -> Tensor:
        """State -> logits (B, C), read at the source and the target, or at the person asked about."""
        read = context.places @ self._readable(state)  # (B, R, D)
        return self.perception.answer(self._said(read), context)

    def readout_everywhere(self, state: Tensor, context: Context) -> Tensor:
        """State -> what the head would say were each token the one asked about: (B, N, classes)."""
        state = self._readable(state)
        others = [
            (context.places[:, place : place + 1] @ state).expand_as(state)
            for place in range(self.perception.readers - 1)
        ]
        return self._said(torch.stack((*others, state), dim=-2))

    def _said(self, read: Tensor) -> Tensor:
        """The R tokens that are read, (..., R, D) -> what the head says of each strand, put together."""
        parts = read.reshape(*read.shape[:-1], self.strands, self.config.width)  # (..., R, K, W)
        strands = parts.transpose(-2, -3).flatten(-2)  # (..., K, R W)
        return self.perception.spread(self.head(self.head_norm(strands)))

    def _readable(self, state: Tensor) -> Tensor:
        """What is read of a state: all of it."""
        return state

    def thinking_cost(self, state: Tensor, mask: Tensor) -> Tensor:  # noqa: ARG002
        """What the loss says of the steps themselves, summed over rows: nothing, the caller counts them."""
        return state.new_zeros(())

    def forward(self, inputs: Inputs, steps: int) -> Tensor:
        """Logits (B, C) after `steps` steps."""
        context, state = self.embed(inputs)
        return self.readout(last(self.walk(state, context, inputs.mask, steps)), context)


def last(states: Iterator[Tensor]) -> Tensor:
    """Where a walk ends; the states on the way are let go."""
    return deque(states, maxlen=1).pop()
