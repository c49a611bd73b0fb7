"""What the network is built of: attention, the block around it, and the head that learns when to halt."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.config import RecurrentConfig
from model.network.perception import Context

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
    # log(1 - p); 0 where a key is masked. Softplus, in operators that runtimes vectorise.
    passed = -(logits.clamp(min=0) + torch.log(1 + torch.exp(-logits.abs())))
    left, right = passed.chunk(2, dim=1)
    left, right_so_far = left.cumsum(dim=-1), right.cumsum(dim=-1)
    between = torch.cat((left[..., -1:] - left, right_so_far - right), dim=1)
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


class HaltingHead(nn.Module):
    """Whether the answer stays right from here on, told from the states around a step.

    It sees the tokens that the readout reads, and of every token's state and movement a few features,
    of which the largest over the tokens count: a mean would hide the one token that still moves.
    """

    FEATURES, HIDDEN = 16, 32

    def __init__(self, width: int, readers: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.feature = nn.Linear(2 * width, self.FEATURES)
        self.hidden = nn.Linear(readers * width + self.FEATURES, self.HIDDEN)
        self.out = nn.Linear(self.HIDDEN, 1)

    def forward(self, state: Tensor, previous: Tensor, context: Context, mask: Tensor) -> Tensor:
        """The states after and before a step, (B, N, D) -> its logit, (B,)."""
        moved, state = state - previous, self.norm(state)
        features = torch.sigmoid(self.feature(torch.cat((state, moved), dim=-1)))
        largest = torch.where(mask.unsqueeze(-1), features, 0.0).amax(dim=1)
        seen = torch.cat(((context.places @ state).flatten(1), largest), dim=-1)
        return self.out(F.gelu(self.hidden(seen))).squeeze(-1)
