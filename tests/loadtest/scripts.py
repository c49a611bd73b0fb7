"""How long a stub server takes for each request."""

import itertools
from collections.abc import Callable

Script = Callable[[int, float], float]  # (steps asked, seconds since the script was set) → seconds to take


def constant(seconds: float) -> Script:
    """Every request takes `seconds`."""
    return lambda _steps, _now: seconds


def linear(a: float, b: float) -> Script:
    """A request of s steps takes a + b·s seconds."""
    return lambda steps, _now: a + b * steps


def listed(seconds: list[float]) -> Script:
    """Requests take these times in turn."""
    turn = itertools.cycle(seconds)
    return lambda _steps, _now: next(turn)


def stall(base: float, begin: float, end: float) -> Script:
    """Requests take `base` seconds, but nothing is answered from `begin` to `end`."""
    return lambda _steps, now: max(base, end - now) if begin <= now < end else base
