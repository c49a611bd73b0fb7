"""Graph reachability: {"edges": [["a", "b"], ...], "source": "a", "target": "b"} in tensors.

Names never reach the model. A node is a row of the adjacency matrix and the role it plays, so any
names and any numbering give the same answer, and graphs may be larger than those trained on.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from model.codecs import LONGEST_NAME, CodecLimits, Schema, Tensors, problem_schema, unknown_field
from model.errors import RequestError

FIELDS = ("edges", "source", "target", "nodes")
SOURCE, TARGET = 1, 2  # bits of a node's role
INTEGERS = 2**63  # numbers have 64 bits
Name = str  # a node's name as a message shows it: 'a' and '1' in quotes, the number 1 without


class GraphCodec:
    """Problem -> roles (N,) int64, adjacency (N, N) bool [i, j]: edge j -> i, mask (N,) bool."""

    example: dict[str, Any] = {"edges": [["a", "b"], ["b", "c"]], "source": "a", "target": "c"}  # noqa: RUF012

    def __init__(self, limits: CodecLimits) -> None:
        self.max_nodes, self.max_edges = limits.tokens(), limits.max_edges

    @property
    def schema(self) -> Schema:
        """Edges, source and target, and the nodes in an order of the caller's."""
        node = {
            "anyOf": [
                {"type": "string", "maxLength": LONGEST_NAME},
                {"type": "integer", "minimum": -INTEGERS, "maximum": INTEGERS - 1},
            ]
        }
        edge = {"type": "array", "items": node, "minItems": 2, "maxItems": 2}
        return problem_schema(
            "GraphProblem",
            "Is the target reachable from the source along the directed edges?",
            {
                "edges": {"type": "array", "maxItems": self.max_edges, "items": edge},
                "source": node,
                "target": node,
            },
            nodes={"type": ["array", "null"], "maxItems": self.max_nodes, "items": node},
        )

    def encode(self, problem: object, field: str) -> Tensors:
        """Raises RequestError naming the field where the problem is not a graph question."""
        if not isinstance(problem, dict):
            raise RequestError("a graph problem is an object with edges, source and target", field)
        for key in problem:
            if key not in FIELDS:
                has = "a graph problem has edges, source, target and optional nodes"
                raise unknown_field(key, FIELDS, has, field)
        for key in FIELDS[:3]:
            if key not in problem:
                raise RequestError(f"{key} is missing: give edges, source and target", f"{field}.{key}")
        edges = self._edges(problem["edges"], f"{field}.edges")
        places = self._places(problem.get("nodes"), edges, field)
        if not places:
            raise RequestError("the graph is empty: give at least one edge or one node", f"{field}.edges")
        source = _place(problem["source"], places, f"{field}.source")
        target = _place(problem["target"], places, f"{field}.target")

        size = len(places)
        roles = np.zeros(size, np.int64)
        roles[source] |= SOURCE
        roles[target] |= TARGET
        cells = bytearray(size * size)  # quicker to fill one by one than an array
        for start, end in edges:
            cells[places[end] * size + places[start]] = 1
        adjacency = np.frombuffer(cells, np.bool_).reshape(size, size)
        return {"roles": roles, "adjacency": adjacency, "mask": np.ones(size, np.bool_)}

    def measure(self, tensors: Tensors) -> dict[str, int]:
        """nodes and edges; an edge that is given twice counts once."""
        return {"nodes": len(tensors["mask"]), "edges": int(np.count_nonzero(tensors["adjacency"]))}

    def readout_tokens(self, tensors: Tensors) -> list[int]:
        """The readout reads the source and the target."""
        roles = tensors["roles"]
        return [int(np.flatnonzero(roles & role)[0]) for role in (SOURCE, TARGET)]

    def _edges(self, value: object, field: str) -> list[tuple[Name, Name]]:
        if not isinstance(value, list):
            raise RequestError("edges must be a list of [from, to] pairs", field)
        if len(value) > self.max_edges:
            raise RequestError(f"{len(value)} edges are too many; this server takes {self.max_edges}", field)
        edges: list[tuple[Name, Name]] = []
        for index, edge in enumerate(value):
            if not isinstance(edge, list) or len(edge) != 2:
                raise RequestError("an edge is a pair [from, to]", f"{field}.{index}")
            edges.append((_name(edge[0], field, index, 0), _name(edge[1], field, index, 1)))
        return edges

    def _places(self, nodes: object, edges: list[tuple[Name, Name]], field: str) -> dict[Name, int]:
        """Every node's row: the listed nodes first if there is a list, then by first appearance."""
        places: dict[Name, int] = {}
        if nodes is not None:
            if not isinstance(nodes, list):
                raise RequestError("nodes must be a list of node names", f"{field}.nodes")
            self._count(len(nodes), f"{field}.nodes")
            for index, node in enumerate(nodes):
                name = _name(node, field, "nodes", index)
                if name in places:
                    raise RequestError(f"node {name} is listed twice", f"{field}.nodes.{index}")
                places[name] = len(places)
        for index, edge in enumerate(edges):
            for name in edge:
                if name not in places:
                    if nodes is not None:
                        raise RequestError(f"node {name} is not in nodes; list it", f"{field}.edges.{index}")
                    places[name] = len(places)
        self._count(len(places), f"{field}.edges")
        return places

    def _count(self, nodes: int, field: str) -> None:
        if nodes > self.max_nodes:
            raise RequestError(f"{nodes} nodes are too many; this server takes {self.max_nodes}", field)


def _name(value: Any, *path: object) -> Name:
    """Kept as text, which Python hashes with a secret: numbers of one hash, too many, would take seconds.

    path: where it stands. Raises RequestError where it is no name.
    """
    kind = type(value)  # quicker than isinstance, and True is no int to it
    if (kind is int and -INTEGERS <= value < INTEGERS) or (kind is str and len(value) <= LONGEST_NAME):
        return repr(value)
    reason = "a node is named by a string or an integer"
    if kind is str:
        reason = f"a name of {len(value)} characters is too long; at most {LONGEST_NAME} are taken"
    if kind is int:
        reason = "a node's number is over 64 bits; name it by a string"
    raise RequestError(reason, ".".join(map(str, path)))


def _place(value: object, places: dict[Name, int], field: str) -> int:
    name = _name(value, field)
    if name not in places:
        raise RequestError(f"node {name} is not in the graph: it is in no edge and not in nodes", field)
    return places[name]
