"""When open-loop requests are due: schedules drawn up in advance."""

import re
from dataclasses import dataclass
from typing import Literal

from loadtest.errors import LoadTestError

ARRIVALS_HELP = (
    "poisson; constant; gamma:CV, bursts whose gaps vary by CV times their mean; or ramp, from nothing up "
    "to the rate"
)


@dataclass(frozen=True)
class Arrivals:
    """A kind of schedule. `variation` is the gaps' standard deviation over their mean, of a gamma process."""

    kind: Literal["poisson", "constant", "gamma", "ramp"]
    variation: float = 1.0

    def times(self, rate: float, length_s: float, seed: int) -> list[float]:
        """Intended starts in seconds from 0 up to `length_s`, `rate` of them a second.

        A ramp is a Poisson process whose rate climbs evenly from 0 to `rate`: half as many in all.
        """
        import numpy as np  # only here: the command's help reads this file

        if self.kind == "constant":
            return [float(due) for due in np.arange(0.0, length_s, 1.0 / rate)]
        draw = np.random.default_rng(seed)
        spare = 10 * max(1.0, self.variation) * (rate * length_s) ** 0.5  # ten standard deviations
        count = int(rate * length_s + spare + 20)
        shape = 1 / self.variation**2
        gaps = draw.gamma(shape, 1 / shape, count) if self.kind == "gamma" else draw.exponential(1.0, count)
        due = np.cumsum(gaps) / rate
        if self.kind == "ramp":
            # Where a climbing rate has let through as many as a steady one: rate · t² / (2 length) = n.
            due = np.sqrt(2 * length_s * due)
        return [float(value) for value in due[due < length_s]]


def parse_arrivals(text: str) -> Arrivals:
    """Raises LoadTestError for anything but the four kinds."""
    if text in ("poisson", "constant", "ramp"):
        return Arrivals(text)  # type: ignore[arg-type]  # one of the three
    found = re.fullmatch(r"gamma:(\d+(?:\.\d+)?)", text)
    if not found or not 0.01 <= float(found[1]) <= 20:
        raise LoadTestError(f"--arrivals {text!r}: choose {ARRIVALS_HELP}; CV lies within 0.01 and 20")
    return Arrivals("gamma", float(found[1]))
