"""What the kernel is compiled for, and which bundles it computes."""

from __future__ import annotations

import json
from dataclasses import dataclass

from model.bundle import CONFIG, Bundle
from service.errors import StartupError

WIDEST = 64  # channels
NARROWEST = 16  # what a matrix product takes at least, of a head too
MOST_ON_CHIP = 64 * 64  # tokens times channels: with more of them, registers spill by the kilobyte

# What the kernel computes. Fields that are not named here change the embedding, which is the bundle's own.
FITS: dict[str, object] = {
    "classes": 2,
    "attention": "softmax",
    "rotary": False,
    "proposal_norm": True,
    "depth_embedding": 0,
    "reinjection": False,
    "keep_given": False,
    "echo": False,
    "reading": 0,
    "layers": 0,
    "adaptive_time": False,
}
CONTEXT = [("attention", 1), ("places", 2), ("real", "N")]  # one view, and two tokens that are read
SIZES = ("width", "heads", "feed_forward", "gate_bias", "halting_head")


@dataclass(frozen=True)
class Shape:
    """A network's sizes, each a power of two."""

    width: int  # D
    heads: int
    expanded: int  # width of the feed-forward layer
    learned: bool  # whether there is a halting head

    def fits(self, tokens: int) -> bool:
        """Whether the state of a row with that many tokens fits on chip."""
        return tokens_on_chip(tokens) * self.width <= MOST_ON_CHIP

    @property
    def sizes(self) -> list[int]:
        """The numbers of tokens that the kernel is compiled for."""
        sizes = [NARROWEST]
        while self.fits(2 * sizes[-1]):
            sizes.append(2 * sizes[-1])
        return sizes

    @property
    def shown(self) -> int:
        """Numbers that a step shows: two logits, and the scores."""
        return 10 + self.learned


def tokens_on_chip(tokens: int) -> int:
    """What a number of tokens is rounded up to: one program serves several buckets."""
    return max(NARROWEST, 1 << (tokens - 1).bit_length())


def name_of(shape: Shape, tokens: int, arch: int) -> str:
    """The name of a program that is compiled ahead. arch: 90 for a compute capability of 9.0."""
    learned = "-learned" if shape.learned else ""
    sizes = f"{tokens_on_chip(tokens)}x{shape.width}x{shape.expanded}-{shape.heads}{learned}"
    return f"think-sm{arch}-{sizes}"


def shape_of(bundle: Bundle) -> Shape:
    """The shape of a bundle's network. Raises StartupError where the kernel does not compute it."""
    name, remedy = bundle.manifest.name, "choose backend torchscript"
    if not bundle.has(CONFIG):
        raise StartupError(f"backend fused needs {CONFIG}, which {name} does not have: {remedy}")
    config = json.loads(bundle.path(CONFIG).read_bytes())
    if not isinstance(config, dict) or any(field not in config for field in SIZES):
        raise StartupError(f"backend fused knows no network of the kind of {name}: {remedy}")
    wrong = [f"{field}={config[field]}" for field, fits in FITS.items() if config.get(field, fits) != fits]
    width, heads, expanded = config["width"], config["heads"], config["feed_forward"]
    if config["gate_bias"] is None:
        wrong.append("no gate")
    uneven = any(size & (size - 1) or size < NARROWEST for size in (width, width // heads, expanded))
    if [(spec.name, spec.shape[1]) for spec in bundle.manifest.context] != CONTEXT:
        wrong.append(f"context={'+'.join(spec.name for spec in bundle.manifest.context)}")
    if uneven or width > WIDEST:
        wrong.append(f"width={width}, heads={heads}, feed_forward={expanded}")
    if wrong:
        raise StartupError(
            f"backend fused does not compute the network of {name} ({', '.join(wrong)}): {remedy}"
        )
    return Shape(width, heads, expanded, bool(config["halting_head"]))
