"""Codecs: what a problem in JSON is in tensors, and what logits are in JSON.

A codec works on one problem and NumPy arrays without the batch axis; whoever batches pads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from model.errors import BundleError
from model.manifest import Manifest

Tensors = dict[str, NDArray[Any]]
LONGEST_NAME = 256  # characters of a name in a problem


@dataclass(frozen=True)
class CodecLimits:
    """How large a problem may be before it is refused."""

    max_nodes: int = 256
    max_edges: int = 4096


class Codec(Protocol):
    """Problem JSON -> input tensors of one row, by the names of the manifest's inputs."""

    example: dict[str, Any]  # a small valid problem, for documentation and the readiness probe

    def encode(self, problem: object, field: str) -> Tensors:
        """Raises RequestError, its field starting with `field`, where the problem is malformed."""
        ...

    def readout_tokens(self, tensors: Tensors) -> list[int]:
        """The rows of the state (N, D) that the readout reads, for callers who ask for just those."""
        ...


def codec_of(manifest: Manifest, limits: CodecLimits) -> Codec:
    """The codec a bundle names. Raises BundleError for one that this Fathom does not have."""
    from model.codecs.graph import GraphCodec
    from model.codecs.logic import LogicCodec
    from model.codecs.text import TextCodec
    from model.codecs.words import KINDS, WordsCodec

    if manifest.codec.name == "graph":
        return GraphCodec(limits)
    if manifest.codec.name == "logic":
        return LogicCodec(limits)
    if manifest.codec.name == "text":
        if not manifest.codec.vocabulary:
            return TextCodec(limits)  # people are tokens: there are no words to know
        if manifest.codec.vocabulary == KINDS:
            return WordsCodec(limits)
        raise BundleError(f"bundle {manifest.name}: it has another vocabulary than this Fathom knows")
    raise BundleError(
        f"bundle {manifest.name}: codec {manifest.codec.name!r} is not available; use graph, logic or text"
    )


def shown(text: str) -> str:
    """What a caller wrote, in quotes, as a message shows it: nobody reads a megabyte."""
    return repr(text if len(text) <= 80 else f"{text[:77]}...")


@dataclass(frozen=True)
class Answer:
    """A readout in words: the most probable class and all probabilities."""

    answer: bool | int | float | str
    label: str
    probabilities: dict[str, float]


def answer_of(manifest: Manifest, logits: NDArray[np.floating]) -> Answer:
    """Logits (C,) -> the answer, for a bundle with classes."""
    weights = np.exp(logits.astype(np.float64) - float(logits.max()))
    weights /= weights.sum()
    best = manifest.classes[int(logits.argmax())]
    shares = {spec.label: float(share) for spec, share in zip(manifest.classes, weights, strict=True)}
    return Answer(best.answer, best.label, shares)
