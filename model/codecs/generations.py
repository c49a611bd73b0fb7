"""Generations: who stands how far above whom, and the clock on which the model counts them."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from model.codecs.sentences import REACH

# Generations are counted around a clock, on which "one up" is everywhere the same turn: 1..GENERATIONS,
# and 0 for "not known".
GENERATIONS = 60
# Two people this far apart are still told apart from any that a question can name: one more, and REACH
# generations below would be the same place on the clock.
SPAN = GENERATIONS - REACH - 1

Clock = TypeVar("Clock", int, NDArray[np.integer[Any]])


def later(place: Clock, generations: Clock) -> Clock:
    """The place on the clock so many generations up from another: 1..GENERATIONS, numbers or arrays."""
    return (place + generations - 1) % GENERATIONS + 1


class Kin:
    """What facts about pairs say of everybody: a weighted union-find over people 0..N-1.

    Each person points to another of the family and knows how far above they stand; who points to
    nobody else is the family's root.
    """

    def __init__(self, people: int) -> None:
        self._towards = list(range(people))
        self._above = [0] * people  # generations above the one pointed to
        self._size = [1] * people  # of a root's family
        self._reach = [(0, 0)] * people  # the lowest and the highest in it, seen from the root

    def between(self, one: int, other: int) -> int | None:
        """Generations that one stands above the other; None where they are not known to be related."""
        (root, here), (another, there) = self._find(one), self._find(other)
        return here - there if root == another else None

    def join(self, one: int, other: int, generations: int) -> int:
        """Two families are one, for `one` stands so far above `other`; how far apart its ends stand now."""
        (small, here), (large, there) = self._find(one), self._find(other)
        shift = there + generations - here
        if self._size[small] > self._size[large]:
            small, large, shift = large, small, -shift
        self._towards[small], self._above[small] = large, shift
        self._size[large] += self._size[small]
        (low, high), (lowest, highest) = self._reach[small], self._reach[large]
        lowest, highest = min(lowest, low + shift), max(highest, high + shift)
        self._reach[large] = lowest, highest
        return highest - lowest

    def _find(self, person: int) -> tuple[int, int]:
        """The root of a person's family, and how far above it they stand; who was passed points there now."""
        passed = []
        while self._towards[person] != person:
            passed.append(person)
            person = self._towards[person]
        above = 0
        for each in reversed(passed):
            above += self._above[each]
            self._towards[each], self._above[each] = person, above
        return person, above
