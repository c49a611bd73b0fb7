"""Reading: what a network makes of its input once, before the first step.

It perceives what every token is, and decides who listens to whom. Both stay: the attention weights are
context, so that a step carries nothing but values along routes that are known, and routing cannot
drift however long the network thinks.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.config import RecurrentConfig
from model.network.layers import nearest_match
from model.network.perception import ahead

BARRED = -1e9  # a logit that no softmax hears; finite, so that fp16 export stays free of NaN
LOOK_WIDTH = 16  # channels of a query


class Read(NamedTuple):
    """What was read."""

    perceived: Tensor  # (B, N, K W) shown to the block at every step
    state: Tensor  # (B, N, K W) before the first step
    heard: Heard


class Heard(NamedTuple):
    """What routes follow from."""

    tokens: Tensor  # (B, N, E) what each token is by itself
    perceived: Tensor  # (B, N, E) what it is among its neighbours
    counts: Tensor  # (B, N, M) where the counters stand


class Counters(nn.Module):
    """Every token moves each of M counters up, down or not; a counter is the sum of all moves so far.

    A learned softmax over the three, summed over what stands before: contextual positions (CoPE, arXiv
    2405.18719) that a token's kind alone decides. From brackets one of them learns the level of nesting.
    """

    def __init__(self, width: int, counters: int) -> None:
        super().__init__()
        self.moves = nn.Linear(width, 3 * counters, bias=False)
        nn.init.normal_(self.moves.weight, std=1 / math.sqrt(width))
        self.rest = nn.Parameter(torch.tensor([0.0, 2.0, 0.0]))  # at first most tokens move nothing

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (..., E) -> their moves, each in [-1, 1]: (..., M)."""
        normed = F.layer_norm(tokens, tokens.shape[-1:])
        down, _, up = torch.softmax(self.moves(normed).unflatten(-1, (-1, 3)) + self.rest, dim=-1).unbind(-1)
        return up - down


class NearestRoutes(nn.Module):
    """A token takes from the nearest match to its left or right (model/network/layers.py, nearest_match).

    What matches is told by content, and by how far apart the counters stand: a difference that a head
    looks for costs nothing, any other does.
    """

    def __init__(self, width: int, heads: int, counters: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, heads * LOOK_WIDTH)
        self.key = nn.Linear(width, heads * LOOK_WIDTH)
        self.bias = nn.Parameter(torch.zeros(heads, 1, 1))
        self.counters = counters
        if counters:
            self.query_at = nn.Linear(width, heads * counters)
            self.key_at = nn.Linear(width, heads * counters)
            self.strictness = nn.Parameter(torch.zeros(heads, 1, counters))

    def forward(self, heard: Heard, mask: Tensor) -> Tensor:
        """Weights (B, H, N, N); of each query they sum to at most 1."""
        x = self.norm(heard.perceived)
        query, key = _heads(self.query(x), self.heads), _heads(self.key(x), self.heads)
        logits = query @ key.transpose(-2, -1) * (2 / math.sqrt(LOOK_WIDTH)) + self.bias
        if self.counters:
            strict = F.softplus(self.strictness).sqrt()
            counts = heard.counts.unsqueeze(1)
            here = (counts + _heads(self.query_at(x), self.heads)) * strict  # (B, H, N, M)
            there = (counts + _heads(self.key_at(x), self.heads)) * strict
            squares = here.square().sum(dim=-1, keepdim=True) + there.square().sum(dim=-1).unsqueeze(-2)
            logits = logits - squares + 2 * here @ there.transpose(-2, -1)
        to_right = ahead(mask)
        half = self.heads // 2
        sides = torch.stack((to_right < 0, to_right > 0)).repeat_interleave(half, dim=0)  # (H, N, N)
        barred = ~(sides & mask[:, None, None])
        return nearest_match(logits.masked_fill(barred, BARRED))


class SameRoutes(nn.Module):
    """A token takes from others that are the same kind of token: one look, query and key alike."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = math.sqrt(width)  # a number, so that tracing keeps it one
        self.norm = nn.LayerNorm(width)
        self.look = nn.Linear(width, heads * width, bias=False)
        for head in range(heads):
            nn.init.orthogonal_(self.look.weight[head * width : (head + 1) * width].data)
        self.sharpness = nn.Parameter(torch.full((heads, 1, 1), 1.3))
        self.nobody = nn.Parameter(torch.full((heads, 1, 1), 7.0))  # the logit of taking from nobody

    def forward(self, heard: Heard, mask: Tensor) -> Tensor:
        """Weights (B, H, N, N); of each query they sum to at most 1."""
        look = _heads(self.look(self.norm(heard.tokens)), self.heads)
        logits = look @ look.transpose(-2, -1) * (self.sharpness / self.scale)
        barred = (ahead(mask) == 0) | ~mask[:, None, None]
        return _softmax_or_nobody(logits.masked_fill(barred, BARRED), self.nobody)


class LocalRoutes(nn.Module):
    """A token takes from those within `span` places, by content and a learned number per distance."""

    def __init__(self, width: int, heads: int, span: int) -> None:
        super().__init__()
        self.heads, self.span = heads, span
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, heads * LOOK_WIDTH, bias=False)
        self.key = nn.Linear(width, heads * LOOK_WIDTH, bias=False)
        self.by_distance = nn.Parameter(2.0 * torch.randn(heads, 2 * span + 1))
        self.nobody = nn.Parameter(torch.zeros(heads, 1, 1))

    def forward(self, heard: Heard, mask: Tensor) -> Tensor:
        """Weights (B, H, N, N); of each query they sum to at most 1."""
        x = self.norm(heard.perceived)
        query, key = _heads(self.query(x), self.heads), _heads(self.key(x), self.heads)
        to_right = ahead(mask)
        near = self.by_distance[:, to_right.clamp(-self.span, self.span) + self.span]
        logits = query @ key.transpose(-2, -1) / math.sqrt(LOOK_WIDTH) + near
        barred = (to_right == 0) | (to_right.abs() > self.span) | ~mask[:, None, None]
        return _softmax_or_nobody(logits.masked_fill(barred, BARRED), self.nobody)


class Routes(nn.Module):
    """Who listens to whom, by every way of looking that the configuration names."""

    def __init__(self, config: RecurrentConfig, width: int) -> None:
        super().__init__()
        self.same = SameRoutes(width, config.same_heads) if config.same_heads else None
        self.near = near_routes(config, width)

    def forward(self, heard: Heard, mask: Tensor) -> Tensor:
        """Weights (B, same_heads + heads, N, N)."""
        near: Tensor = self.near(heard, mask)
        return near if self.same is None else torch.cat((self.same(heard, mask), near), dim=1)


def near_routes(config: RecurrentConfig, width: int) -> NearestRoutes | LocalRoutes:
    """What tells a token's neighbours: the nearest match, or what is near."""
    if config.attention == "nearest":
        return NearestRoutes(width, config.heads, config.counters)
    return LocalRoutes(width, config.heads, config.span)


class Carry(nn.Module):
    """Values go along given routes: multi-head attention whose weights are somebody else's."""

    def __init__(self, width: int, heads: int, out: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        channels = heads * max(1, out // heads)
        self.value = nn.Linear(width, channels)
        self.out = nn.Linear(channels, out)

    def forward(self, x: Tensor, routes: Tensor) -> Tensor:
        """(B K, N, W) along (B, H, N, N), the same for all K strands of a row, -> (B K, N, W)."""
        rows, (_, tokens, _) = routes.shape[0], x.shape
        share = self.value.out_features // self.heads
        values = self.value(self.norm(x)).reshape(rows, -1, tokens, self.heads, share)
        strands = values.shape[1]
        packed = values.permute(0, 3, 2, 1, 4).reshape(rows, self.heads, tokens, strands * share)
        mixed = (routes @ packed).reshape(rows, self.heads, tokens, strands, share)
        return self.out(mixed.permute(0, 3, 2, 1, 4).reshape(-1, tokens, self.heads * share))


class Products(nn.Module):
    """A gated feed-forward layer (GEGLU, arXiv 2002.05202): products make "are these two equal?" easy."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, hidden)
        self.factor = nn.Linear(width, hidden)
        self.contract = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return self.contract(F.gelu(self.expand(x)) * self.factor(x))


class CarryBlock(nn.Module):
    """The shared block of a network that reads: carries, then products, each scaled by LayerScale."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.heads = [count for count in (config.same_heads, config.heads) if count]
        self.carries = nn.ModuleList(Carry(config.width, count, config.width) for count in self.heads)
        self.products = Products(config.width, config.feed_forward)
        start, shape = config.layer_scale, (len(self.heads) + 1, config.width)
        self.scale = nn.Parameter(torch.full(shape, start)) if start is not None else None

    def forward(self, x: Tensor, routes: Tensor) -> Tensor:
        """(B K, N, W) along (B, H, N, N); what one way of looking brought, the next carries on."""
        ways = torch.split(routes, self.heads, dim=1)
        for place, (carry, along) in enumerate(zip(self.carries, ways, strict=True)):
            x = x + self._scaled(place, carry(x, along))
        return x + self._scaled(-1, self.products(x))

    def _scaled(self, place: int, update: Tensor) -> Tensor:
        return update if self.scale is None else self.scale[place] * update


class Reader(nn.Module):
    """Reads the input: every token with its neighbours, and with whom one look finds."""

    def __init__(
        self, config: RecurrentConfig, kinds: int, strands: int, distinct: slice | None, nothing: int | None
    ) -> None:
        """distinct: kinds that mean nothing but themselves. nothing: the kind that adds nothing."""
        super().__init__()
        read, width = config.reading, config.width
        self.embedding = nn.Embedding(kinds, read)
        self.nothing = nothing
        if nothing is not None:
            with torch.no_grad():
                self.embedding.weight[nothing].zero_()
        if distinct is not None:
            with torch.no_grad():
                rows = self.embedding.weight[distinct]
                nn.init.orthogonal_(rows)
                rows.mul_(math.sqrt(read))
        self.counters = Counters(read, config.counters) if config.counters else None
        self.norm = nn.LayerNorm(read)
        self.window = nn.Conv1d(read, read, 2 * config.window + 1, padding=config.window)
        self.mix = nn.Linear(read, read)
        self.first_routes = near_routes(config, read)
        self.first_carry = Carry(read, config.heads, read)
        self.feed_norm = nn.LayerNorm(read)
        self.expand = nn.Linear(read, 2 * read)
        self.contract = nn.Linear(2 * read, read)
        self.out_norm = nn.LayerNorm(read)
        self.perceive = nn.Linear(read, width)
        self.strands = nn.Parameter(0.5 * torch.randn(strands, width)) if strands > 1 else None
        self.begin = nn.Linear(width, config.feed_forward)
        self.start = nn.Linear(config.feed_forward, width)

    def forward(self, kinds: Tensor, mask: Tensor) -> Read:
        """kinds (B, N, G): a token is the sum of G embeddings."""
        real = mask.unsqueeze(-1).to(self.mix.weight.dtype)
        parts = self.embedding(kinds)
        if self.nothing is not None:
            parts = parts * (kinds != self.nothing).unsqueeze(-1)
        tokens = parts.sum(dim=-2) * real
        if self.counters is None:
            counts = tokens[..., :0]
        else:
            counts = (self.counters(self.embedding(kinds[..., 0])) * real).cumsum(dim=1)
        near = self.window((self.norm(tokens) * real).transpose(1, 2)).transpose(1, 2)
        x = tokens + self.mix(F.gelu(near))
        x = x + self.first_carry(x, self.first_routes(Heard(tokens, x, counts), mask))
        x = x + self.contract(F.gelu(self.expand(self.feed_norm(x))))
        x = self.out_norm(x)
        perceived = self.perceive(x).unsqueeze(-2)  # (B, N, 1, W)
        if self.strands is not None:
            perceived = perceived + self.strands
        state = F.layer_norm(self.start(F.gelu(self.begin(perceived))), perceived.shape[-1:])
        return Read(perceived.flatten(-2) * real, state.flatten(-2) * real, Heard(tokens, x, counts))

    def unrest(self) -> Tensor:
        """How far the counters are from moving by whole numbers, all kinds of token alike: a scalar.

        Over a hundred tokens a small move adds up to a wrong count. Whoever moves little is drawn to
        rest, and whoever moves much to a whole step.
        """
        if self.counters is None:
            return self.embedding.weight.new_zeros(())
        moves = self.counters(self.embedding.weight).abs()
        return (moves * (1 - moves)).sum(dim=-1).mean()


def _softmax_or_nobody(logits: Tensor, nobody: Tensor) -> Tensor:
    """Softmax over the keys and one more, which nothing is taken from: (B, H, N, N) -> (B, H, N, N)."""
    most = torch.maximum(logits.amax(dim=-1, keepdim=True), nobody)
    weights = torch.exp(logits - most)
    return weights / (weights.sum(dim=-1, keepdim=True) + torch.exp(nobody - most))


def _heads(x: Tensor, heads: int) -> Tensor:
    """(B, N, H D) -> (B, H, N, D)."""
    return torch.unflatten(x, -1, (heads, -1)).transpose(1, 2)
