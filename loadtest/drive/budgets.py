"""How many steps a request asks for: a fixed depth, or a draw from a mix."""

import math
import random
import re
from dataclasses import dataclass

from loadtest.errors import LoadTestError

RECORDED = "recorded"  # the mix in which every problem brings its own budget
MIX_HELP = f"geometric:MEAN, uniform:LOW-HIGH, weighted:DEPTH=WEIGHT,… or {RECORDED}"


@dataclass(frozen=True)
class Mix:
    """A distribution over step budgets: `depths[i]` is drawn with probability `shares[i]`."""

    name: str
    depths: tuple[int, ...]
    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        assert len(self.depths) == len(self.shares) > 0, "a mix needs one share for every depth"
        assert math.isclose(sum(self.shares), 1.0), "the shares of a mix add up to one"

    def draw(self, source: random.Random, recorded: int | None = None) -> int:
        """One step budget. recorded: the one that the problem brings, if any."""
        if self.name == RECORDED:
            return min(recorded or self.depths[-1], self.depths[-1])
        return source.choices(self.depths, self.shares)[0]

    @property
    def mean(self) -> float:
        """The mean budget, in steps."""
        return sum(depth * share for depth, share in zip(self.depths, self.shares, strict=True))


def parse_mix(text: str, limit: int) -> Mix:
    """The mix that `text` names, cut off at `limit` steps.

    `geometric:6` has mean 6 before the cut, and what lies beyond the cut goes to `limit` itself, as a
    server's own step limit would have it; so it does with `recorded`. Raises LoadTestError on anything else
    than the four forms.
    """
    if text == RECORDED:
        return Mix(text, (limit,), (1.0,))
    if found := re.fullmatch(r"geometric:(\d+(?:\.\d+)?)", text):
        mean = float(found[1])
        if mean < 1:
            raise LoadTestError(f"--mix {text}: the mean of a geometric mix is at least 1 step")
        stop = 1 / mean
        shares = [stop * (1 - stop) ** (depth - 1) for depth in range(1, limit)]
        shares.append(1 - math.fsum(shares))
        return Mix(text, tuple(range(1, limit + 1)), tuple(shares))
    if found := re.fullmatch(r"uniform:(\d+)-(\d+)", text):
        low, high = int(found[1]), min(int(found[2]), limit)
        if not 1 <= low <= high:
            raise LoadTestError(f"--mix {text}: the range must lie within 1 and {limit} steps")
        return Mix(text, tuple(range(low, high + 1)), (1 / (high - low + 1),) * (high - low + 1))
    if re.fullmatch(r"weighted:\d+=\d+(\.\d+)?(,\d+=\d+(\.\d+)?)*", text):
        weights = {
            int(d): float(w) for d, w in (part.split("=") for part in text[len("weighted:") :].split(","))
        }
        total = sum(weights.values())
        if total <= 0 or not all(1 <= depth <= limit for depth in weights):
            raise LoadTestError(
                f"--mix {text}: depths lie within 1 and {limit} steps, weights are not all zero"
            )
        depths = tuple(sorted(weights))
        return Mix(text, depths, tuple(weights[depth] / total for depth in depths))
    raise LoadTestError(f"--mix {text!r} is not a mix: write {MIX_HELP}")


def parse_depths(text: str) -> tuple[int, ...]:
    """`1,2,4` as sorted, distinct step budgets. Raises LoadTestError unless all are whole numbers of at
    least 1.
    """
    try:
        depths = {int(part) for part in text.split(",")}
    except ValueError:
        depths = {0}
    if min(depths) < 1:
        raise LoadTestError("give whole numbers of steps of at least 1, such as 1,2,4,8")
    return tuple(sorted(depths))


def bins(depths: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """The groups that a mix is reported in: one up to each of `depths`, (1, 1), (2, 2), (3, 4), (5, 8), …"""
    floors = (0, *depths[:-1])
    return tuple((floor + 1, depth) for floor, depth in zip(floors, depths, strict=True))
