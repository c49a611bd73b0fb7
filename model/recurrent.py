"""The depth-recurrent Transformer: one shared block, applied as often as the caller asks.

After "Thinking Deeper, Not Longer" (arXiv 2603.21676, section 3). Four verbs, pure functions of
their arguments, so that the same code trains, exports and is the oracle for every other path:

    embed(inputs)                        -> context, state
    step(state, context, mask, depth)    -> state
    readout(state, context)              -> logits
    forward(inputs, steps)               -> logits    (the plain loop)
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import RecurrentConfig
from model.perception import Context, Inputs, perception_of


class Attention(nn.Module):
    """Multi-head self-attention with an additive mask per view; the views share the heads evenly."""

    def __init__(self, width: int, heads: int, views: int) -> None:
        super().__init__()
        self.heads = heads
        self.views = views
        self.scale = math.sqrt(width // heads)  # a number, so that tracing keeps it one
        self.project = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, attention: Tensor) -> Tensor:
        rows, tokens, width = x.shape
        split = self.project(x).reshape(rows, tokens, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, H, N, D/H)
        logits = query @ key.transpose(-2, -1) / self.scale
        if self.views > 1:
            attention = attention.repeat_interleave(self.heads // self.views, dim=1)
        mixed = torch.softmax(logits + attention, dim=-1) @ value
        return self.out(mixed.transpose(1, 2).reshape(rows, tokens, width))


class Block(nn.Module):
    """Pre-norm attention and feed-forward, each residual scaled by LayerScale (arXiv 2103.17239)."""

    def __init__(self, config: RecurrentConfig, views: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = Attention(config.width, config.heads, views)
        self.feed_forward_norm = nn.LayerNorm(config.width)
        self.expand = nn.Linear(config.width, config.feed_forward)
        self.contract = nn.Linear(config.feed_forward, config.width)
        self.dropout = nn.Dropout(config.dropout)
        start = config.layer_scale
        self.scale = nn.Parameter(torch.full((2, config.width), start)) if start is not None else None

    def forward(self, x: Tensor, attention: Tensor) -> Tensor:
        update = self.dropout(self.attention(self.attention_norm(x), attention))
        x = x + (update if self.scale is None else self.scale[0] * update)
        update = self.dropout(self.contract(F.gelu(self.expand(self.feed_forward_norm(x)))))
        return x + (update if self.scale is None else self.scale[1] * update)


class RecurrentTransformer(nn.Module):
    """One block, one gate, one readout; how often the block runs is an argument, not a weight."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.config = config
        self.perception = perception_of(config)
        self.roles = nn.Embedding(self.perception.kinds, config.width)
        self.input_norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.block = Block(config, self.perception.views)
        self.gate = nn.Linear(2 * config.width, config.width) if config.gate_bias is not None else None
        if self.gate is not None:
            nn.init.constant_(self.gate.bias, float(config.gate_bias or 0.0))
        self.depths = nn.Embedding(config.depth_embedding, config.width) if config.depth_embedding else None
        read = self.perception.readers * config.width
        self.head_norm = nn.LayerNorm(read)
        self.head = nn.Linear(read, self.perception.classes)

    @property
    def context(self) -> tuple[str, ...]:
        """The fields of Context that this network fills, in order."""
        injection = ("injection",) if self.config.reinjection else ()
        given = ("given", "known") if self.config.keep_given else ()
        return (*self.perception.context, *injection, *given)

    def embed(self, inputs: Inputs) -> tuple[Context, Tensor]:
        """Inputs -> context and the state before the first step, (B, N, D)."""
        kinds, context = self.perception.see(inputs, self.roles.weight.dtype)
        state = self._enter(kinds, inputs.mask)
        if self.config.reinjection:
            context = context._replace(injection=state)
        if self.config.keep_given:
            context = context._replace(given=state, known=(kinds > 0).unsqueeze(-1))
        return context, state

    def blank(self, inputs: Inputs) -> Tensor:
        """The state of the same tokens before anything is known of them, (B, N, D)."""
        return self._enter(torch.zeros_like(inputs.mask, dtype=torch.int64), inputs.mask)

    def marked(self, inputs: Inputs) -> Tensor:
        """Which tokens something is known of from the start, (B, N, 1) bool."""
        return (self.perception.see(inputs, self.roles.weight.dtype)[0] > 0).unsqueeze(-1)

    def _enter(self, kinds: Tensor, mask: Tensor) -> Tensor:
        state = self.dropout(self.input_norm(self.roles(kinds)))
        return state * mask.unsqueeze(-1).to(state.dtype)

    def step(self, state: Tensor, context: Context, mask: Tensor, depth: Tensor) -> Tensor:
        """One application of the shared block: (B, N, D) -> (B, N, D).

        depth (B,) int64 counts the steps a row has taken before this one. The gate mixes proposal
        and state, z = sigmoid(W[h'; h] + b), and starts close to the identity (b = -2).
        """
        x = state
        if context.injection is not None:
            x = x + context.injection
        if self.depths is not None:
            x = x + self.depths(depth.clamp(max=self.config.depth_embedding - 1)).unsqueeze(1)
        proposal = self.block(x, context.attention)
        if self.config.proposal_norm:
            proposal = F.layer_norm(proposal, (self.config.width,))
        if self.gate is not None:
            opening = torch.sigmoid(self.gate(torch.cat((proposal, state), dim=-1)))
            proposal = opening * proposal + (1 - opening) * state
        if context.given is not None and context.known is not None:
            proposal = torch.where(context.known, context.given, proposal)
        return proposal * mask.unsqueeze(-1).to(proposal.dtype)

    def readout(self, state: Tensor, context: Context) -> Tensor:
        """State -> logits (B, C), read at the source and the target, or at the person asked about."""
        read = context.places @ state  # (B, R, D)
        return self.perception.answer(self.head(self.head_norm(read.flatten(1))), context)

    def readout_everywhere(self, state: Tensor, context: Context) -> Tensor:
        """State -> what the head would say were each token the one asked about: (B, N, its classes)."""
        others = [
            (context.places[:, place : place + 1] @ state).expand_as(state)
            for place in range(self.perception.readers - 1)
        ]
        return self.head(self.head_norm(torch.cat((*others, state), dim=-1)))

    def forward(self, inputs: Inputs, steps: int) -> Tensor:
        """The plain loop, the oracle for every other path: logits (B, C) after `steps` steps."""
        context, state = self.embed(inputs)
        for taken in range(steps):
            depth = torch.full((state.shape[0],), taken, dtype=torch.int64, device=state.device)
            state = self.step(state, context, inputs.mask, depth)
        return self.readout(state, context)
