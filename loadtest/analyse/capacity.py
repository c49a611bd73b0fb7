"""How many servers a rate needs, from the highest rate that one was seen to keep up with."""

import math
from dataclasses import dataclass

from loadtest.analyse.findings import DepthSearch

USE = 0.6  # of what a server can do: at 60 % a queue is short, at 90 % it is not
UPGRADES = 1  # a server that is away while it is replaced
LOSSES = 1  # a server that may fail


@dataclass(frozen=True)
class Capacity:
    """The servers for `rate` requests per second at one depth (None: at the mix).

    `best` is the rate that one server holds, None where none was found, and then there are no counts.
    `working` of them carry the rate at USE, `least` would at their very limit.
    """

    depth: int | None
    rate: float
    best: float | None
    broken: float | None
    working: int | None
    least: int | None

    @property
    def servers(self) -> int | None:
        """With one for upgrades and one to lose."""
        return None if self.working is None else self.working + UPGRADES + LOSSES


def capacity(found: DepthSearch, rate: float) -> Capacity:
    """Servers = rate ÷ (USE · best), rounded up, and the spare ones."""
    best = found.search.best
    return Capacity(
        depth=found.depth,
        rate=rate,
        best=best,
        broken=found.search.broken,
        working=None if best is None else math.ceil(rate / (USE * best) - 1e-9),
        least=None if best is None else math.ceil(rate / best - 1e-9),
    )
