"""Graphs far from the ones trained on: what a stranger might send.

A shape draws one graph, by NumPy's rules edges[i, j] for i -> j, with its source; every node of it
is a question. The evaluation reports accuracy by shape (docs/results.md).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from training.tasks.graph.generator import Bools

Graph = tuple[Bools, int]  # edges (N, N), source
Draw = Callable[[np.random.Generator], Graph]


def _empty(nodes: int) -> Bools:
    return np.zeros((nodes, nodes), np.bool_)


def _random(rng: np.random.Generator, nodes: int, probability: float) -> Bools:
    edges = rng.random((nodes, nodes)) < probability
    np.fill_diagonal(edges, False)
    return edges


def _halves(rng: np.random.Generator, half: int, probability: float) -> Bools:
    edges = _random(rng, 2 * half, probability)
    edges[:half, half:] = False
    return edges


def single(rng: np.random.Generator) -> Graph:
    """One or two nodes, with or without edges between them and to themselves."""
    nodes = int(rng.integers(1, 3))
    return rng.random((nodes, nodes)) < 0.5, 0


def no_way_out(rng: np.random.Generator) -> Graph:
    """Up to 70 nodes, none of whose edges leaves the source."""
    edges = _random(rng, int(rng.integers(2, 71)), float(rng.uniform(0.02, 0.5)))
    edges[0] = False
    return edges, 0


def dense(rng: np.random.Generator) -> Graph:
    """20 to 70 nodes, edge probability 0.3 to 0.9: everything is one or two hops away."""
    return _random(rng, int(rng.integers(20, 71)), float(rng.uniform(0.3, 0.9))), 0


def dense_halves(rng: np.random.Generator) -> Graph:
    """Two dense halves of up to 35 nodes; edges lead from the second to the first, never back."""
    return _halves(rng, int(rng.integers(5, 36)), float(rng.uniform(0.3, 1.0))), 0


def complete_unreached(rng: np.random.Generator) -> Graph:
    """A complete graph that the source, a node outside it with edges from it, cannot enter."""
    nodes = int(rng.integers(3, 71))
    edges = ~np.eye(nodes, dtype=np.bool_)
    edges[0] = False
    return edges, 0


def star(rng: np.random.Generator) -> Graph:
    """A centre with 20 to 250 predecessors, of which the source reaches one, or none; then a tail."""
    leaves, tail = int(rng.integers(20, 251)), int(rng.integers(1, 6))
    edges = _empty(1 + leaves + tail)
    edges[1 : 1 + leaves, 1 + leaves] = True
    for place in range(1 + leaves, leaves + tail):
        edges[place, place + 1] = True
    if rng.random() < 0.5:
        edges[0, rng.integers(1, 1 + leaves)] = True
    return edges, 0


def dense_chain(rng: np.random.Generator) -> Graph:
    """A chain of dense groups joined by one edge each; of the last joints one may be missing."""
    groups, size = int(rng.integers(2, 8)), int(rng.integers(3, 10))
    edges = _empty(groups * size)
    cut = int(rng.integers(1, groups + 1))
    for group in range(groups):
        inside = slice(group * size, (group + 1) * size)
        edges[inside, inside] = ~np.eye(size, dtype=np.bool_)
        if group and group != cut:
            start, end = rng.integers(0, size, 2)
            edges[(group - 1) * size + start, group * size + end] = True
    return edges, 0


def grid(rng: np.random.Generator) -> Graph:
    """A grid up to 8 x 8 whose edges lead right and down, or in all four directions, some missing."""
    height, width = (int(side) for side in rng.integers(2, 9, 2))
    both = bool(rng.random() < 0.5)
    edges = _empty(height * width)
    for row in range(height):
        for column in range(width):
            here = row * width + column
            beside = [here + 1] * (column + 1 < width) + [here + width] * (row + 1 < height)
            for there in beside:
                edges[here, there] = rng.random() < 0.8
                edges[there, here] = both and rng.random() < 0.8
    return edges, 0


def tree(rng: np.random.Generator) -> Graph:
    """A random tree of up to 70 nodes with edges away from the root; the source is some node near it."""
    nodes = int(rng.integers(10, 71))
    edges = _empty(nodes)
    reach = int(rng.integers(1, 6))  # small: long thin trees
    for node in range(1, nodes):
        edges[max(0, node - int(rng.integers(1, reach + 1))), node] = True
    return edges, int(rng.integers(0, 4))


def cycle(rng: np.random.Generator) -> Graph:
    """A cycle of up to 64 nodes, and beside it another that it does not touch."""
    nodes, others = int(rng.integers(2, 65)), int(rng.integers(2, 9))
    edges = _empty(nodes + others)
    for start, size in ((0, nodes), (nodes, others)):
        places = start + np.arange(size)
        edges[places, np.roll(places, -1)] = True
    return edges, 0


def sparse_large(rng: np.random.Generator) -> Graph:
    """256 nodes with one to three edges each."""
    return _random(rng, 256, float(rng.uniform(1.0, 3.0)) / 256), 0


def dense_large(rng: np.random.Generator) -> Graph:
    """150 to 256 nodes in two dense halves; edges lead from the second to the first, never back."""
    return _halves(rng, int(rng.integers(75, 129)), float(rng.uniform(0.05, 1.0))), 0


def long_chain(rng: np.random.Generator) -> Graph:
    """100 to 256 nodes in a chain that may be cut in one place."""
    nodes = int(rng.integers(100, 257))
    edges = np.eye(nodes, k=1, dtype=np.bool_)
    if rng.random() < 0.5:
        edges[int(rng.integers(0, nodes - 1))] = False
    return edges, 0


SHAPES: dict[str, Draw] = {
    draw.__name__: draw
    for draw in (
        single,
        no_way_out,
        dense,
        dense_halves,
        complete_unreached,
        star,
        dense_chain,
        grid,
        tree,
        cycle,
        sparse_large,
        dense_large,
        long_chain,
    )
}

LARGE = frozenset({"star", "sparse_large", "dense_large", "long_chain"})  # slow to think about
