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

ROTARY_BASE = 10_000.0


class Attention(nn.Module):
    """Multi-head self-attention with an additive mask per view; the views share the heads evenly.

    "nearest" is geometric attention ("The Neural Data Router", arXiv 2110.07732, section 3.2): each
    key is a match with probability sigmoid(q . k), and a query takes the first match that it meets on
    its way to the left or to the right. How far away that is makes no difference, so what is learned
    on short sequences holds on long ones; where nothing matches, nothing is taken.
    """

    def __init__(self, config: RecurrentConfig, views: int) -> None:
        super().__init__()
        width, heads = config.width, config.heads
        self.heads = heads
        self.views = views
        self.nearest = config.attention == "nearest"
        self.rotary = config.rotary
        self.scale = math.sqrt(width // heads)  # a number, so that tracing keeps it one
        self.project = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, attention: Tensor) -> Tensor:
        rows, tokens, width = x.shape
        split = self.project(x).reshape(rows, tokens, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, H, N, D/H)
        if self.rotary:
            query, key = rotated(query), rotated(key)
        logits = query @ key.transpose(-2, -1) / self.scale
        if self.views > 1:
            attention = attention.repeat_interleave(self.heads // self.views, dim=1)
        logits = logits + attention
        mixed = (nearest_match(logits) if self.nearest else torch.softmax(logits, dim=-1)) @ value
        return self.out(mixed.transpose(1, 2).reshape(rows, tokens, width))


def nearest_match(logits: Tensor) -> Tensor:
    """The weight of each key as the first match on the way: (B, H, N, N) -> (B, H, N, N).

    The first half of the heads walks to the left, the other to the right. A weight is
    p_ij * prod (1 - p_ik) over the k between i and j (arXiv 2110.07732, equation 5), in logarithms.
    """
    passed = -F.softplus(logits)  # log(1 - p); 0 where a key is masked
    place = torch.arange(logits.shape[-1], device=logits.device)
    beyond = (place.unsqueeze(1) > place.unsqueeze(0)).to(logits.dtype)  # [k, j]: k stands right of j
    left, right = passed.chunk(2, dim=1)
    between = torch.cat((left @ beyond, right @ beyond.transpose(0, 1)), dim=1)
    return torch.exp(logits + passed + between)


def rotated(x: Tensor) -> Tensor:
    """Rotary position embedding (arXiv 2104.09864, equation 34): (B, H, N, D/H), each pair turned."""
    half = x.shape[-1] // 2
    speed = ROTARY_BASE ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angle = torch.arange(x.shape[-2], device=x.device, dtype=torch.float32).unsqueeze(1) * speed
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    one, other = x[..., :half], x[..., half:]
    return torch.cat((one * cos - other * sin, one * sin + other * cos), dim=-1)


class Block(nn.Module):
    """Pre-norm attention and feed-forward, each residual scaled by LayerScale (arXiv 2103.17239)."""

    def __init__(self, config: RecurrentConfig, views: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = Attention(config, views)
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
            context = context._replace(given=state, known=kinds.amax(dim=-1, keepdim=True) > 0)
        return context, state

    def blank(self, inputs: Inputs) -> Tensor:
        """The state of the same tokens before anything is known of them, (B, N, D)."""
        return self._enter(torch.zeros_like(inputs.mask, dtype=torch.int64).unsqueeze(-1), inputs.mask)

    def marked(self, inputs: Inputs) -> Tensor:
        """Which tokens something is known of from the start, (B, N, 1) bool."""
        return self.perception.see(inputs, self.roles.weight.dtype)[0].amax(dim=-1, keepdim=True) > 0

    def _enter(self, kinds: Tensor, mask: Tensor) -> Tensor:
        state = self.dropout(self.input_norm(self.roles(kinds).sum(dim=-2)))
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
        """State -> what the head would say were each token the one asked about: (B, N, classes)."""
        others = [
            (context.places[:, place : place + 1] @ state).expand_as(state)
            for place in range(self.perception.readers - 1)
        ]
        return self.perception.spread(self.head(self.head_norm(torch.cat((*others, state), dim=-1))))

    def forward(self, inputs: Inputs, steps: int) -> Tensor:
        """The plain loop, the oracle for every other path: logits (B, C) after `steps` steps."""
        context, state = self.embed(inputs)
        for taken in range(steps):
            depth = torch.full((state.shape[0],), taken, dtype=torch.int64, device=state.device)
            state = self.step(state, context, inputs.mask, depth)
        return self.readout(state, context)
