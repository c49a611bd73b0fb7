"""Families: who is whose parent, many at once, in the numbers that the text codec makes of sentences.

The chains are those of "Thinking Deeper, Not Longer" (arXiv 2603.21676, section 4.3): up so many
generations, then down so many, with facts about strangers beside them. Whether a fact said "parent"
or "child" leaves no trace in the numbers, and the codec has no order of facts either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

STRANGER = 10_000  # an offset and a distance that no relative has

Bools = NDArray[np.bool_]
Ints = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Families:
    """A batch of families of one size; `first` is whom the others are compared with."""

    parents: Bools  # (B, N, N): [b, i, j] where j is a parent of i
    first: Ints  # (B,)

    def relatives(self) -> tuple[Ints, Ints]:
        """Generations above `first` and distance from them, STRANGER where unrelated: each (B, N)."""
        return relatives(self.parents, self.first)


def relatives(parents: Bools, first: Ints) -> tuple[Ints, Ints]:
    """Breadth-first search over parents and children in each family of a batch."""
    rows = np.arange(len(first))
    offset = np.full(parents.shape[:2], STRANGER, np.int64)
    distance = offset.copy()
    offset[rows, first] = distance[rows, first] = 0
    newest = distance == 0
    for steps in range(1, parents.shape[1]):
        before = np.where(newest, offset, STRANGER)
        # A newcomer's offset is that of a child of theirs plus one, or of a parent of theirs minus one.
        over_children = np.where(parents, before[:, :, None], STRANGER).min(axis=1) + 1
        over_parents = np.where(parents, before[:, None, :], STRANGER).min(axis=2) - 1
        found = np.where(over_children < STRANGER - 1, over_children, over_parents)
        newest = (found < STRANGER - 1) & (distance == STRANGER)
        if not newest.any():
            break
        offset[newest], distance[newest] = found[newest], steps
    return offset, distance


def chains(
    rng: np.random.Generator,
    count: int,
    links: int,
    strangers: tuple[int, int] = (2, 4),
    reach: int = STRANGER,
) -> tuple[Families, Ints]:
    """`links` facts up and then down from `first`, and so many facts about others; and who is at the end,
    at most `reach` generations away.
    """
    pairs = int(rng.integers(strangers[0], strangers[1] + 1))
    size = links + 1 + 2 * pairs
    rows = np.arange(count)
    order = rng.permuted(np.tile(np.arange(size), (count, 1)), axis=1)
    fewest = max(0, (links - reach + 1) // 2)
    ups = rng.integers(fewest, links + 1 - fewest, count)
    parents = np.zeros((count, size, size), np.bool_)
    for link in range(links):
        here, there = order[:, link], order[:, link + 1]
        up = link < ups
        parents[rows, np.where(up, here, there), np.where(up, there, here)] = True
    for pair in range(pairs):
        place = links + 1 + 2 * pair
        parents[rows, order[:, place], order[:, place + 1]] = True
    return Families(parents, order[:, 0]), order[:, links]


def trees(rng: np.random.Generator, count: int, size: int) -> Families:
    """Families of any shape: everyone is a parent or child of somebody before them, or starts anew.

    Some children get a second parent out of the generation of the first.
    """
    rows = np.arange(count)
    order = rng.permuted(np.tile(np.arange(size), (count, 1)), axis=1)
    generation = np.zeros((count, size), np.int64)
    parents = np.zeros((count, size, size), np.bool_)
    # A few sociable people attract most relatives, so that some have many children.
    appeal = rng.random((count, size)) ** rng.choice((0.5, 4.0), (count, 1))
    for place in range(1, size):
        person = order[:, place]
        joins = rng.random(count) > 0.15
        weight = np.take_along_axis(appeal, order[:, :place], axis=1).cumsum(axis=1)
        chosen = (weight < rng.random((count, 1)) * weight[:, -1:]).sum(axis=1)
        kin = order[rows, np.minimum(chosen, place - 1)]
        up = (rng.random(count) < 0.4) & (parents[rows, kin].sum(axis=1) < 2)
        generation[rows, person] = np.where(joins, generation[rows, kin] + np.where(up, 1, -1), 0)
        younger, older = np.where(up, kin, person), np.where(up, person, kin)
        parents[rows[joins], younger[joins], older[joins]] = True
    single = parents.sum(axis=2) == 1
    for child in range(size):
        mate = rng.integers(0, size, count)
        first = parents[rows, child].argmax(axis=1)
        married = single[:, child] & (rng.random(count) < 0.3) & (mate != first)
        married &= generation[rows, mate] == generation[rows, first]
        parents[rows[married], child, mate[married]] = True
    return Families(parents, rng.integers(0, size, count))


Draw = Callable[[np.random.Generator], tuple[Bools, int]]  # parents (N, N), first


def many_children(rng: np.random.Generator) -> tuple[Bools, int]:
    """Three generations, up to seven children each."""
    parents = _tree(int(rng.integers(3, 8)), 2)
    return _shuffled(rng, parents, int(rng.integers(0, len(parents))))


def binary_tree(rng: np.random.Generator) -> tuple[Bools, int]:
    """Everyone has two children, five generations deep: cousins of every degree."""
    parents = _tree(2, 5)
    return _shuffled(rng, parents, int(rng.integers(0, len(parents))))


def ancestors(rng: np.random.Generator) -> tuple[Bools, int]:
    """Everyone has two parents, five generations up."""
    parents = _tree(2, 5).T
    return _shuffled(rng, parents, int(rng.integers(0, len(parents))))


def down_then_up(rng: np.random.Generator) -> tuple[Bools, int]:
    """A chain that leads down to a common descendant and up again: 3 to 12 links."""
    links = int(rng.integers(3, 13))
    downs = int(rng.integers(1, links))
    return _chain(rng, [-1] * downs + [1] * (links - downs))


def zigzag(rng: np.random.Generator) -> tuple[Bools, int]:
    """A chain of parents and children in any order: 3 to 12 links."""
    return _chain(rng, rng.choice((-1, 1), int(rng.integers(3, 13))).tolist())


def long_line(rng: np.random.Generator) -> tuple[Bools, int]:
    """8 to 16 generations in one line, asked from its older or its younger end."""
    return _chain(rng, [int(rng.choice((-1, 1)))] * int(rng.integers(8, 17)))


def several(rng: np.random.Generator) -> tuple[Bools, int]:
    """Three to six families that do not know each other, of any shape."""
    parts = [trees(rng, 1, int(rng.integers(3, 13))).parents[0] for _ in range(int(rng.integers(3, 7)))]
    size = sum(len(part) for part in parts)
    parents = np.zeros((size, size), np.bool_)
    place = 0
    for part in parts:
        parents[place : place + len(part), place : place + len(part)] = part
        place += len(part)
    return _shuffled(rng, parents, int(rng.integers(0, size)))


def clan(rng: np.random.Generator) -> tuple[Bools, int]:
    """40 to 80 people, of any shape."""
    families = trees(rng, 1, int(rng.integers(40, 81)))
    return families.parents[0], int(families.first[0])


SHAPES: dict[str, Draw] = {
    draw.__name__: draw
    for draw in (many_children, binary_tree, ancestors, down_then_up, zigzag, long_line, several, clan)
}


def _tree(children: int, depth: int) -> Bools:
    """Everyone but the youngest has so many children."""
    size = sum(children**level for level in range(depth + 1))
    parents = np.zeros((size, size), np.bool_)
    for person in range(1, size):
        parents[person, (person - 1) // children] = True
    return parents


def _chain(rng: np.random.Generator, steps: list[int]) -> tuple[Bools, int]:
    """A chain from `first`, +1 up and -1 down, with four facts about strangers."""
    size = len(steps) + 1 + 8
    parents = np.zeros((size, size), np.bool_)
    for here, step in enumerate(steps):
        younger, older = (here, here + 1) if step > 0 else (here + 1, here)
        parents[younger, older] = True
    for stranger in range(len(steps) + 1, size, 2):
        parents[stranger, stranger + 1] = True
    return _shuffled(rng, parents, 0)


def _shuffled(rng: np.random.Generator, parents: Bools, first: int) -> tuple[Bools, int]:
    order = rng.permutation(len(parents))
    return parents[order][:, order], int(np.flatnonzero(order == first)[0])
