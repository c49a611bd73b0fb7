"""Codecs: what a problem in JSON is in tensors. Each is all that this house knows of its task.

A codec works on one problem and NumPy arrays without the batch axis; whoever batches pads. Codecs of
other distributions come by the entry-point group `fathom.codecs`, where the operator allows them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, Protocol

from numpy.typing import NDArray

from model.errors import BundleError, RequestError
from model.manifest import Manifest
from model.spelling import did_you_mean

Tensors = dict[str, NDArray[Any]]
Schema = dict[str, Any]
LONGEST_NAME = 256  # characters of a name in a problem
GROUP = "fathom.codecs"  # of entry points: each a callable (manifest, limits) -> Codec


@dataclass(frozen=True)
class CodecLimits:
    """How large a problem may be before it is refused: what the server takes, and what the bundle."""

    max_nodes: int = 256
    max_edges: int = 4096
    axes: Mapping[str, int] = field(default_factory=dict)  # the longest that the bundle takes, by axis

    def tokens(self, axis: str = "N") -> int:
        """How many tokens a problem may have along an axis."""
        return min(self.max_nodes, self.axes.get(axis, self.max_nodes))


class Codec(Protocol):
    """Problem JSON -> input tensors of one row, by the names of the manifest's inputs."""

    @property
    def schema(self) -> Schema:
        """JSON schema of a problem, with a title; what it bounds are the codec's own limits."""
        ...

    @property
    def example(self) -> Any:
        """A small valid problem, for documentation and the readiness probe."""
        ...

    def encode(self, problem: object, field: str) -> Tensors:
        """Raises RequestError, its field starting with `field`, where the problem is malformed."""
        ...

    def measure(self, tensors: Tensors) -> dict[str, int]:
        """How large an encoded problem is, in the words of a manifest's domain."""
        ...

    def readout_tokens(self, tensors: Tensors) -> list[int]:
        """The rows of the state (N, D) that the readout reads, for callers who ask for just those."""
        ...


def codec_of(manifest: Manifest, limits: CodecLimits, allowed: Collection[str] = ()) -> Codec:
    """The codec a bundle names: one of ours, or one of another distribution whose name is allowed.

    Raises BundleError where there is none, or where it cannot be had.
    """
    from model.codecs.graph import GraphCodec
    from model.codecs.logic import LogicCodec
    from model.codecs.tensors import TensorsCodec
    from model.codecs.text import TextCodec
    from model.codecs.words import KINDS, WordsCodec

    name = manifest.codec.name
    if name == "graph":
        return GraphCodec(limits)
    if name == "logic":
        return LogicCodec(limits)
    if name == "tensors":
        return TensorsCodec(manifest)
    if name == "text":
        if not manifest.codec.vocabulary:
            return TextCodec(limits)  # people are tokens: there are no words to know
        if manifest.codec.vocabulary == KINDS:
            return WordsCodec(limits, counts=any(spec.name == "placed" for spec in manifest.inputs))
        raise BundleError(f"bundle {manifest.name}: it has another vocabulary than this Fathom knows")
    return _brought(manifest, limits, allowed)


def _brought(manifest: Manifest, limits: CodecLimits, allowed: Collection[str]) -> Codec:
    """A codec of another distribution; its code runs only where the operator has named it."""
    name = manifest.codec.name
    offered = {point.name: point for point in metadata.entry_points(group=GROUP)}
    if name not in offered:
        raise BundleError(
            f"bundle {manifest.name}: codec {name!r} is not available; use graph, logic, text or tensors, "
            f"or install a distribution that offers it as an entry point of {GROUP}"
        )
    if name not in allowed:
        raise BundleError(
            f"bundle {manifest.name}: codec {name!r} comes from another distribution; "
            "name it in the setting codecs to allow it"
        )
    try:
        codec: Codec = offered[name].load()(manifest, limits)
        codec.encode(codec.example, "input")
    except Exception as error:
        what = " ".join(str(error).split())
        raise BundleError(
            f"bundle {manifest.name}: codec {name!r} cannot be used: {type(error).__name__}: {what}"
        ) from error
    return codec


def unknown_field(name: str, known: Collection[str], has: str, field: str) -> RequestError:
    """What to say of a field that a problem has not, with the one that may have been meant."""
    return RequestError(f"unknown field; {did_you_mean(name, known)}{has}", f"{field}.{name[:LONGEST_NAME]}")


def shown(text: str) -> str:
    """What a caller wrote, in quotes, as a message shows it: nobody reads a megabyte."""
    return repr(text if len(text) <= 80 else f"{text[:77]}...")


def problem_schema(title: str, description: str, required: Schema, **optional: Schema) -> Schema:
    """The JSON schema of a problem that is an object with these fields and no others."""
    return {
        "type": "object",
        "title": title,
        "description": description,
        "required": list(required),
        "additionalProperties": False,
        "properties": {**required, **optional},
    }
