"""What somebody may have meant who wrote a name that is none."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LONGEST = 64  # characters of a name that is compared, for that takes the square of them


def did_you_mean(written: str, known: Iterable[str]) -> str:
    """`did you mean NAME? `, to go before the rest of a sentence; empty where nothing is alike."""
    alike = difflib.get_close_matches(written, list(known), 1) if len(written) <= LONGEST else []
    return f"did you mean {alike[0]}? " if alike else ""
