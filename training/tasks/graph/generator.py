"""Random digraphs with a shortest path of known length, many at once.

The generator of "Thinking Deeper, Not Longer" (arXiv 2603.21676, section 4.1), vectorised over a
batch: a path of L hops, then randint(n//2, 2n) random edges, each dropped if it would shorten the
way from source to target; a negative is a random digraph with a pair that no path joins.

Here edges[b, i, j] is True for an edge i -> j. The network's adjacency is the transpose.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

UNREACHABLE = 10_000  # a distance no graph of ours has; twice it still fits int16

Bools = NDArray[np.bool_]
Ints = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Graphs:
    """A batch of digraphs of one size, each with a question: is target reachable from source?"""

    edges: Bools  # (B, N, N)
    source: Ints  # (B,)
    target: Ints  # (B,)

    def distances(self) -> Ints:
        """Hops from the source to every node, UNREACHABLE where there is no path: (B, N)."""
        return distances(self.edges, self.source)

    def hops(self) -> Ints:
        """Hops from source to target: (B,)."""
        return np.asarray(self.distances()[np.arange(len(self.source)), self.target])

    def rows(self, chosen: Bools | slice | Ints) -> Graphs:
        """Some of the graphs."""
        return Graphs(self.edges[chosen], self.source[chosen], self.target[chosen])


def distances(edges: Bools, source: Ints) -> Ints:
    """Breadth-first search from one source in each graph of a batch: (B, N, N), (B,) -> (B, N)."""
    rows = np.arange(len(source))
    distance = np.full(edges.shape[:2], UNREACHABLE, np.int64)
    distance[rows, source] = 0
    frontier = distance == 0
    weights = edges.astype(np.float32)  # matmul on floats is what BLAS is fast at
    for hops in range(1, edges.shape[1]):
        entered = (frontier.astype(np.float32)[:, None, :] @ weights)[:, 0] > 0
        frontier = entered & (distance == UNREACHABLE)
        if not frontier.any():
            break
        distance[frontier] = hops
    return distance


def positives(rng: np.random.Generator, count: int, nodes: int, hops: int) -> Graphs:
    """Graphs whose target is exactly `hops` >= 1 from the source, by the paper's generator."""
    assert 1 <= hops < nodes, "a path of that length needs more nodes"
    rows = np.arange(count)
    order = rng.permuted(np.tile(np.arange(nodes), (count, 1)), axis=1)
    path = order[:, : hops + 1]
    source, target = path[:, 0], path[:, hops]
    edges = np.zeros((count, nodes, nodes), np.bool_)
    edges[rows[:, None], path[:, :-1], path[:, 1:]] = True

    # All-pairs distances, kept exact edge by edge: a new edge u -> v offers d(i,u) + 1 + d(v,j).
    apart = np.full((count, nodes, nodes), UNREACHABLE, np.int16)
    apart[:, np.arange(nodes), np.arange(nodes)] = 0
    ahead = np.subtract.outer(np.arange(hops + 1), np.arange(hops + 1)).T
    along = np.where(ahead >= 0, ahead, UNREACHABLE)
    apart[rows[:, None, None], path[:, :, None], path[:, None, :]] = along
    extra = rng.integers(nodes // 2, 2 * nodes + 1, count)
    for number in range(int(extra.max())):
        start, end = rng.integers(0, nodes, (2, count))
        length = apart[rows, source, start] + 1 + apart[rows, end, target]
        kept = np.flatnonzero((number < extra) & (start != end) & (length >= hops))
        start, end = start[kept], end[kept]
        edges[kept, start, end] = True
        through = apart[kept, :, start][:, :, None] + 1 + apart[kept, end][:, None, :]
        apart[kept] = np.minimum(apart[kept], through)
    return Graphs(edges, source, target)


def negatives(rng: np.random.Generator, count: int, nodes: int) -> Graphs:
    """Random digraphs of randint(n//2, 2n) edges and a pair that no path joins: the paper's negatives."""
    found: list[Graphs] = []
    missing = count
    while missing > 0:
        edges = np.zeros((missing, nodes, nodes), np.bool_)
        extra = rng.integers(nodes // 2, 2 * nodes + 1, missing)
        for number in range(int(extra.max())):
            start, end = rng.integers(0, nodes, (2, missing))
            kept = np.flatnonzero((number < extra) & (start != end))
            edges[kept, start[kept], end[kept]] = True
        source = rng.integers(0, nodes, missing)
        open_ = distances(edges, source) == UNREACHABLE
        target = np.where(open_, rng.random((missing, nodes)), -1.0).argmax(axis=1)
        graphs = Graphs(edges, source, target).rows(open_.any(axis=1))
        found.append(graphs)
        missing -= len(graphs.source)
    return concatenate(found)


def concatenate(parts: list[Graphs]) -> Graphs:
    """Batches of graphs of one size as one batch."""
    return Graphs(
        np.concatenate([part.edges for part in parts]),
        np.concatenate([part.source for part in parts]),
        np.concatenate([part.target for part in parts]),
    )
