"""What is known of a request beside its body, in every protocol."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Envelope:
    """Whose request it is, and when it came."""

    id: str
    key: str  # on whose account it thinks
    arrived: float  # seconds of time.monotonic(), from which the deadline counts
    streams: bool
    max_problems: int  # that its caller may ask about
