"""Where work goes that would keep the event loop from its streams: a few threads, and only what is large."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

T = TypeVar("T")
THREADS = 2  # they hold Python's lock most of the time, so more would gain nothing


class Threads:
    """Made on the event loop, for that loop."""

    def __init__(self) -> None:
        self._limiter = CapacityLimiter(THREADS)

    async def run(self, small: bool, call: Callable[[], T]) -> T:
        """Do what is small here, at once; hand over what may take more than about a millisecond."""
        return call() if small else await to_thread.run_sync(call, limiter=self._limiter)
