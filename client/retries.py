"""Whether a request that failed is worth sending again, and when."""

from __future__ import annotations

from dataclasses import dataclass

from client.errors import ConnectionFailed, FathomError, Overloaded, Unavailable

FIRST_PAUSE = 0.25  # seconds; doubled each time
LONGEST_PAUSE = 8.0  # seconds, where the server does not say how long
LONGEST_WAIT = 60.0  # seconds; whom a server tells to wait longer is told so instead
JITTER = 0.5  # the share of a pause that is left to chance, so that not all come back at once


@dataclass(frozen=True)
class Retries:
    """At most so many more tries; 0: none."""

    most: int

    def pause(self, failures: int, error: FathomError, chance: float) -> float | None:
        """Seconds until the next try, after so many failures; None: give up.

        Only what certainly did no work is sent again: the server has refused it, or has not heard of it.
        chance is a random number from 0 to 1.
        """
        if failures > self.most:
            return None
        match error:
            case Overloaded(retry_after=float(asked)) | Unavailable(retry_after=float(asked)):
                return asked + chance * JITTER * max(asked, FIRST_PAUSE) if asked <= LONGEST_WAIT else None
            case Overloaded() | Unavailable() | ConnectionFailed(was_sent=False):
                pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (failures - 1))
                return pause * (1 - JITTER * chance)
        return None
