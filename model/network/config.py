"""What a network is made of: every mechanism of the paper is one field, so an ablation is a config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PERCEPTIONS = ("graph", "family", "characters", "words", "sentences")
NOTHING_GIVEN = ("characters", "words", "sentences")  # of whose tokens none is given for good


@dataclass(frozen=True)
class RecurrentConfig:
    """The shape and the mechanisms of a RecurrentTransformer (arXiv 2603.21676, section 3).

    Raises ValueError on a combination that cannot be built.
    """

    width: int = 64  # W, of a strand; D where there is one (model/network/perception.py)
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
    # What is read once, before the first step (model/network/reading.py).
    reading: int = 0  # E, channels of a token as it is read; 0: nothing is read ahead
    # Who listens to whom is told by the state, anew at every step, or by the input, once: then only values
    # travel.
    routing: Literal["state", "input"] = "state"
    window: int = 3  # neighbours to either side that a token is read together with
    counters: int = 0  # M, sums over what stands before, by which routes are told (attention=nearest)
    same_heads: int = 0  # heads that listen to the same kind of token, wherever it stands (attention=softmax)
    span: int = 7  # places to either side that the other heads reach (attention=softmax)
    halting_head: bool = False  # a head on the state that says when to stop; it learns last, alone
    # What the network sees of a problem (model/network/perception.py).
    perception: Literal["graph", "family", "characters", "words", "sentences"] = "graph"

    def __post_init__(self) -> None:
        for name in ("width", "heads", "feed_forward", "classes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be at least 1")
        if self.perception not in PERCEPTIONS:
            known = ", ".join(PERCEPTIONS)
            raise ValueError(f"perception is {self.perception!r}, but must be one of {known}")
        if self.attention not in ("softmax", "nearest"):
            raise ValueError(f"attention is {self.attention!r}, but must be softmax or nearest")
        if self.routing not in ("state", "input"):
            raise ValueError(f"routing is {self.routing!r}, but must be state or input")
        if self.attention == "nearest" and self.heads % 2:
            raise ValueError("attention=nearest needs an even number of heads, half for either side")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        in_a_row = self.perception in ("characters", "words", "sentences")
        if (self.attention == "nearest" or self.rotary) and not in_a_row:
            raise ValueError(
                "attention=nearest and rotary need tokens in a row: characters, words or sentences"
            )
        if self.rotary and self.width // self.heads % 2:
            raise ValueError(f"rotary turns pairs: width {self.width} / heads {self.heads} must be even")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}, but must be in [0, 1)")
        if self.depth_embedding < 0:
            raise ValueError(f"depth_embedding is {self.depth_embedding}, but must be 0 (none) or more")
        if self.reading < 0 or self.window < 0 or self.span < 1 or self.counters < 0 or self.same_heads < 0:
            raise ValueError("reading, window, counters and same_heads must be 0 or more, and span 1 or more")
        if self.reading and not in_a_row:
            raise ValueError("reading needs tokens in a row: perception=characters, words or sentences")
        if not self.reading and (self.routing == "input" or self.counters or self.same_heads):
            raise ValueError("routing=input, counters and same_heads need a network that reads: reading=48")
        if self.reading and (self.rotary or self.depth_embedding):
            raise ValueError("reading goes with no rotary positions or depth embedding")
        if self.reading and self.routing == "state" and self.reading != self.width:
            raise ValueError("routing=state needs reading as wide as the state: reading=width")
        if self.keep_given and self.perception in NOTHING_GIVEN:
            raise ValueError("keep_given needs tokens that are given: perception=graph or family")
        if self.echo and self.perception != "family" and not self.reading:
            raise ValueError("echo needs a head that speaks of what can be given, or a network that reads")
