"""The graph codec: any names, any numbering; every fault has a field and says what to do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from model.codecs import CodecLimits
from model.codecs.graph import GraphCodec
from model.errors import RequestError

CODEC = GraphCodec(CodecLimits(max_nodes=5, max_edges=6))
GOOD: dict[str, Any] = {"edges": [["a", "b"], ["b", "c"]], "source": "a", "target": "c"}


def test_edges_become_what_a_node_attends_to() -> None:
    tensors = CODEC.encode(GOOD, "input")
    assert tensors["roles"].tolist() == [1, 0, 2]
    assert np.argwhere(tensors["adjacency"]).tolist() == [[1, 0], [2, 1]]
    assert tensors["mask"].all()
    assert CODEC.readout_tokens(tensors) == [0, 2]


def test_listed_nodes_come_first_and_may_be_lonely() -> None:
    tensors = CODEC.encode({**GOOD, "nodes": ["z", "c", "b", "a"]}, "input")
    assert tensors["roles"].tolist() == [0, 2, 0, 1]


def test_the_source_may_be_the_target_and_edges_may_repeat() -> None:
    tensors = CODEC.encode({"edges": [[1, 2], [1, 2]], "source": 2, "target": 2}, "input")
    assert tensors["roles"].tolist() == [0, 3]
    assert tensors["adjacency"].sum() == 1
    assert CODEC.readout_tokens(tensors) == [1, 1]


def test_a_number_and_its_text_are_two_nodes() -> None:
    assert len(CODEC.encode({"edges": [[1, "1"]], "source": 1, "target": "1"}, "input")["mask"]) == 2


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"edges": None}, "input.edges", "must be a list"),
        ({"edges": [["a"]]}, "input.edges.0", r"a pair \[from, to\]"),
        ({"edges": [["a", "b"], ["b", 1.5]]}, "input.edges.1.1", "a string or an integer"),
        ({"edges": [["a", True]]}, "input.edges.0.1", "a string or an integer"),
        ({"edges": [["a", "b"]] * 7}, "input.edges", "7 edges are too many; this server takes 6"),
        ({"edges": [[n, n + 1] for n in range(5)]}, "input.edges", "6 nodes are too many"),
        ({"edges": []}, "input.edges", "the graph is empty"),
        ({"source": "x"}, "input.source", "node 'x' is not in the graph"),
        ({"target": "x"}, "input.target", "node 'x' is not in the graph"),
        ({"nodes": ["a", "b"]}, "input.edges.1", "node 'c' is not in nodes"),
        ({"nodes": ["a", "a"]}, "input.nodes.1", "listed twice"),
        ({"nodes": "abc"}, "input.nodes", "must be a list"),
        ({"weights": []}, "input.weights", "unknown field"),
    ],
)
def test_faults_name_their_field(change: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        CODEC.encode({**GOOD, **change}, "input")
    assert caught.value.field == field


@pytest.mark.parametrize("missing", ["edges", "source", "target"])
def test_what_is_missing_is_named(missing: str) -> None:
    with pytest.raises(RequestError, match=f"{missing} is missing") as caught:
        CODEC.encode({key: value for key, value in GOOD.items() if key != missing}, "input.3")
    assert caught.value.field == f"input.3.{missing}"


def test_a_problem_is_an_object() -> None:
    with pytest.raises(RequestError, match="is an object"):
        CODEC.encode([], "input")
