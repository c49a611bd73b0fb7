"""Negatives that look like positives: a positive rewired until no path is left.

Swapping the ends of two edges, a -> b and c -> d into a -> d and c -> b, keeps the in-degree and the
out-degree of every node (Maslov and Sneppen, Science 296, 2002). Among the rewirings without a path
from source to target, one is searched whose target has as many ancestors, and whose source as many
descendants, as in the positive: what a shortcut could count. Both can match only where the graph
has room: the two sets of a negative are disjoint, those of a positive overlap in the whole path.
"""

from __future__ import annotations

import numpy as np

from training.tasks.graph.generator import UNREACHABLE, Bools, Graphs, Ints, concatenate, distances, positives

SWAPS = 400  # tried per graph; ten times as many bring the counts no nearer
ATTEMPTS = 100  # nearly every positive can be rewired


def ancestors(graphs: Graphs) -> Ints:
    """From how many nodes the target can be reached, itself included: (B,)."""
    backward = distances(graphs.edges.transpose(0, 2, 1), graphs.target)
    return np.asarray((backward < UNREACHABLE).sum(axis=1))


def matched_negatives(rng: np.random.Generator, count: int, nodes: int, hops: int) -> Graphs:
    """Rewirings of positives of that many nodes and hops."""
    found: list[Graphs] = []
    missing = count
    for _ in range(ATTEMPTS):
        found.append(rewired(rng, positives(rng, missing, nodes, hops)))
        missing -= len(found[-1].source)
        if missing == 0:
            return concatenate(found)
    raise AssertionError(f"positives of {nodes} nodes and {hops} hops cannot be rewired into negatives")


def rewired(rng: np.random.Generator, graphs: Graphs) -> Graphs:
    """The graphs with their edges swapped so that no path is left; degrees stay as they are.

    Those that no swap can cut (of two edges, say) are left out.
    """
    found = [
        _rewire(rng, graphs.edges[row], int(graphs.source[row]), int(graphs.target[row]))
        for row in range(len(graphs.source))
    ]
    cut = np.array([edges is not None for edges in found], np.bool_)
    edges = [edges for edges in found if edges is not None]
    kept = np.stack(edges) if edges else graphs.edges[:0]
    return Graphs(kept, graphs.source[cut], graphs.target[cut])


class _Rewiring:
    """A digraph under edge swaps, neighbours as bits of integers."""

    def __init__(self, edges: Bools) -> None:
        self.edges = [(int(start), int(end)) for start, end in np.argwhere(edges)]
        self.out = [0] * len(edges)
        self.into = [0] * len(edges)
        for start, end in self.edges:
            self._flip(start, end)

    def swap(self, first: int, second: int) -> bool:
        """Exchange the ends of two edges; False where that would make a loop or a double edge.

        Swapping the same two again restores them.
        """
        (a, b), (c, d) = self.edges[first], self.edges[second]
        if a == d or c == b or (self.out[a] >> d) & 1 or (self.out[c] >> b) & 1:
            return False
        for start, end in ((a, b), (c, d), (a, d), (c, b)):
            self._flip(start, end)
        self.edges[first], self.edges[second] = (a, d), (c, b)
        return True

    def matrix(self) -> Bools:
        edges = np.zeros((len(self.out), len(self.out)), np.bool_)
        edges[tuple(np.array(self.edges).T)] = True
        return edges

    def _flip(self, start: int, end: int) -> None:
        self.out[start] ^= 1 << end
        self.into[end] ^= 1 << start


def _closure(node: int, neighbours: list[int]) -> int:
    """The nodes reached from `node`, itself included, as bits."""
    seen = frontier = 1 << node
    while frontier:
        lowest = frontier & -frontier
        entered = neighbours[lowest.bit_length() - 1] & ~seen
        seen |= entered
        frontier = (frontier ^ lowest) | entered
    return seen


def _rewire(rng: np.random.Generator, edges: Bools, source: int, target: int) -> Bools | None:
    graph = _Rewiring(edges)
    if len(graph.edges) < 2:
        return None
    descendants = _closure(source, graph.out).bit_count()
    forebears = _closure(target, graph.into).bit_count()
    best: tuple[bool, int] | None = None
    for first, second in rng.integers(0, len(graph.edges), (SWAPS, 2)).tolist():
        if not graph.swap(first, second):
            continue
        down, up = _closure(source, graph.out), _closure(target, graph.into)
        miss = abs(down.bit_count() - descendants) + abs(up.bit_count() - forebears)
        rated = (bool((down >> target) & 1), miss)
        if best is None or best[0] or rated <= best:  # wander until the path is cut, then only improve
            best = rated
        else:
            graph.swap(first, second)
        if best == (False, 0):
            break
    return graph.matrix() if best is not None and not best[0] else None
