"""What every codec owns: a schema, an example and measures; and codecs that others bring."""

from __future__ import annotations

import itertools
from importlib.metadata import EntryPoint
from typing import Any

import pytest

import model.codecs
from model.codecs import Codec, CodecLimits, Tensors, codec_of
from model.codecs.graph import GraphCodec
from model.codecs.logic import LogicCodec
from model.codecs.text import TextCodec
from model.codecs.words import WordsCodec
from model.errors import BundleError, RequestError
from model.manifest import Manifest
from tests.service.servers import counting_bundle

LIMITS = CodecLimits(max_nodes=20, max_edges=30, axes={"N": 12})
OURS: list[Codec] = [
    GraphCodec(LIMITS),
    LogicCodec(LIMITS),
    TextCodec(LIMITS),
    WordsCodec(LIMITS, counts=False),
    WordsCodec(LIMITS, counts=True),
]
ROOMY = CodecLimits(max_nodes=20, max_edges=30)


class Brought:
    """A codec of another distribution: the counting model's inputs for a number of nodes."""

    schema: dict[str, Any] = {"title": "Nodes", "type": "integer", "minimum": 1}  # noqa: RUF012

    def __init__(self, manifest: Manifest, limits: CodecLimits) -> None:
        self.example = 0 if manifest.name == "broken" else 3
        self._graph = GraphCodec(limits)

    def encode(self, problem: object, field: str) -> Tensors:
        if not isinstance(problem, int) or problem < 1:
            raise RequestError("a problem is a number of nodes,\nfrom 1", field)
        edges = [[node, node + 1] for node in range(problem)]
        return self._graph.encode({"edges": edges, "source": 0, "target": problem}, field)

    def measure(self, tensors: Tensors) -> dict[str, int]:
        return {"nodes": len(tensors["mask"])}

    def readout_tokens(self, tensors: Tensors) -> list[int]:
        return [0]


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a distribution with that codec were installed."""
    points = [EntryPoint("nodes", f"{__name__}:Brought", model.codecs.GROUP)]
    monkeypatch.setattr("model.codecs.metadata.entry_points", lambda group: points if group else [])


def manifest(codec: str, name: str = "graph") -> Manifest:
    return counting_bundle(name, codec={"name": codec}).manifest


@pytest.mark.parametrize("codec", OURS, ids=lambda codec: type(codec).__name__)
def test_a_codec_says_what_its_problems_look_like(codec: Codec) -> None:
    schema = codec.schema
    assert schema["type"] == "object"
    assert schema["title"].endswith("Problem")
    assert set(schema["required"]) == set(codec.example)
    for field in schema["properties"]:
        with pytest.raises(RequestError):
            codec.encode({**codec.example, field: 1.5}, "input")
    with pytest.raises(RequestError, match="unknown field"):
        codec.encode({**codec.example, "another": 1}, "input")
    for field in schema["required"]:
        with pytest.raises(RequestError, match=f"{field} is missing"):
            codec.encode({key: value for key, value in codec.example.items() if key != field}, "input")


@pytest.mark.parametrize(
    ("codec", "expected"),
    [
        (GraphCodec(ROOMY), {"nodes": 3, "edges": 2}),
        (LogicCodec(ROOMY), {"characters": 8, "levels": 1, "operands": 2}),
        (TextCodec(ROOMY), {"people": 3, "links": 2}),
        (WordsCodec(ROOMY, counts=False), {"people": 3, "facts": 2}),
        (WordsCodec(ROOMY, counts=True), {"people": 3, "facts": 2}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_codec_measures_its_problems(codec: Codec, expected: dict[str, int]) -> None:
    assert codec.measure(codec.encode(codec.example, "input")) == expected


def test_a_graphs_nodes_and_edges_are_counted_once() -> None:
    problem = {"edges": [[1, "1"], [1, "1"], [1, 2]], "source": 1, "target": 2, "nodes": [1, "1", 2, 3]}
    codec = GraphCodec(ROOMY)
    assert codec.measure(codec.encode(problem, "input")) == {"nodes": 4, "edges": 2}


def test_people_between_are_counted() -> None:
    problem = {"facts": ["Ann is the great-grandparent of Bob"], "query": "Ann is the parent of Bob"}
    codec = TextCodec(ROOMY)
    assert codec.measure(codec.encode(problem, "input")) == {"people": 4, "links": 3}


@pytest.mark.parametrize("codec", OURS[:3], ids=lambda codec: type(codec).__name__)
def test_the_bundles_axis_is_kept_to_and_may_be_filled(codec: Codec) -> None:
    def problem(tokens: int) -> dict[str, Any]:
        people = [f"P{place}" for place in range(tokens)]
        if isinstance(codec, GraphCodec):
            return {"edges": [], "nodes": people, "source": "P0", "target": "P0"}
        if isinstance(codec, LogicCodec):
            return {"expression": "!" * (tokens - 3) + "T"}
        facts = [f"{one} is the parent of {other}" for one, other in itertools.pairwise(people)]
        return {"facts": facts, "query": facts[0]}

    assert len(codec.encode(problem(12), "input")["mask"]) == 12
    with pytest.raises(RequestError, match=r"too many; this server takes 1[02]"):
        codec.encode(problem(13), "input")


@pytest.mark.usefixtures("offered")
def test_a_codec_of_another_distribution_comes_where_it_is_allowed() -> None:
    codec = codec_of(manifest("nodes"), LIMITS, ("nodes",))
    assert codec.encode(4, "input")["mask"].sum() == 5
    with pytest.raises(BundleError, match="name it in the setting codecs to allow it"):
        codec_of(manifest("nodes"), LIMITS)


@pytest.mark.usefixtures("offered")
def test_a_codec_that_cannot_be_had_is_one_line() -> None:
    with pytest.raises(BundleError, match="'grid' is not available; use graph, logic, text") as refusal:
        codec_of(manifest("grid"), LIMITS, ("grid",))
    assert "\n" not in refusal.value.message
    with pytest.raises(BundleError, match="'nodes' cannot be used: RequestError: a problem is") as refusal:
        codec_of(manifest("nodes", "broken"), LIMITS, ("nodes",))
    assert "\n" not in refusal.value.message
