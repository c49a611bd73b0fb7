"""What a network is made of: every mechanism of the paper is one field, so an ablation is a config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PERCEPTIONS = ("graph", "family", "brackets", "characters", "words")
NOTHING_GIVEN = ("characters", "words")  # of whose tokens none is given for good


@dataclass(frozen=True)
class RecurrentConfig:
    """The shape and the mechanisms of a RecurrentTransformer (arXiv 2603.21676, section 3).

    Raises ValueError on a combination that cannot be built.
    """

    width: int = 64  # W, of a strand; D where there is one (model/perception.py)
    heads: int = 4  # H; divides width
    feed_forward: int = 128  # hidden width of the feed-forward layer
    classes: int = 2  # C
    dropout: float = 0.0
    layer_scale: float | None = 1e-4  # LayerScale's start; None: plain residuals
    gate_bias: float | None = -2.0  # the identity-biased gate's start; None: no gate, h <- h'
    proposal_norm: bool = True  # normalise h' before the gate: the state stays bounded and can settle
    depth_embedding: int = 0  # rows of the learned depth embedding; 0: none
    reinjection: bool = False  # add the embedded input again at every step
    keep_given: bool = False  # tokens that something is known of from the start stay as they were given
    echo: bool = False  # a token is shown, as if it were given, what the head says of it: a clean copy
    attention: Literal["softmax", "nearest"] = "softmax"  # nearest: the nearest match, left or right
    rotary: bool = False  # rotary positions on queries and keys
    adjacency_mask: bool = True  # a node attends to its predecessors and itself only
    target_role: bool = False  # mark the target in the input; the readout finds it either way
    halting_head: bool = False  # a head on the state that says when to stop; it learns last, alone
    # What the network sees of a problem (model/perception.py).
    perception: Literal["graph", "family", "brackets", "characters", "words"] = "graph"
    # Baselines.
    layers: int = 0  # blocks of their own, step t runs block t, later steps none; 0: one shared block
    adaptive_time: bool = False  # tokens learn when to halt (model/adaptive_time.py)

    def __post_init__(self) -> None:
        for name in ("width", "heads", "feed_forward", "classes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be at least 1")
        if self.perception not in PERCEPTIONS:
            known = ", ".join(PERCEPTIONS)
            raise ValueError(f"perception is {self.perception!r}, but must be one of {known}")
        if self.attention not in ("softmax", "nearest"):
            raise ValueError(f"attention is {self.attention!r}, but must be softmax or nearest")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        in_a_row = self.perception in ("brackets", "characters", "words")
        if (self.attention == "nearest" or self.rotary) and not in_a_row:
            raise ValueError(
                "attention=nearest and rotary need tokens in a row: brackets, characters or words"
            )
        if self.perception == "brackets" and self.attention != "nearest":
            raise ValueError("perception=brackets needs attention=nearest, which tells the order")
        if self.rotary and self.width // self.heads % 2:
            raise ValueError(f"rotary turns pairs: width {self.width} / heads {self.heads} must be even")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}, but must be in [0, 1)")
        for name in ("depth_embedding", "layers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be 0 (none) or more")
        if self.keep_given and self.perception in NOTHING_GIVEN:
            raise ValueError("keep_given needs tokens that are given: perception=graph, family or brackets")
        if self.echo and self.perception != "family":
            raise ValueError("echo needs a head that speaks of what can be given: perception=family")
        if self.layers and self.adaptive_time:
            raise ValueError("adaptive_time needs a shared block: layers=0")
