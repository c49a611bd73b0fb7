"""How long one thread holds up the others: a heart that beats beside it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

BEAT_SECONDS = 0.001
TRIES = 5  # the machine is shared: the best of a few is what the work itself costs


def longest_pause(work: Callable[[], object], limit: float) -> float:
    """The longest that `work` computes between two beats, the best of TRIES, in seconds.

    Counted in the processor time of its own thread, which other processes do not add to. Tries no more once
    a pause is under `limit`.
    """
    best = float("inf")
    for _ in range(TRIES):
        best = min(best, _pause(work))
        if best < limit:
            break
    return best


def _pause(work: Callable[[], object]) -> float:
    began, ended, may_end = (threading.Event() for _ in range(3))

    def run() -> None:
        began.wait()
        try:
            work()
        finally:
            ended.set()
            may_end.wait()  # until then its clock can be read

    thread = threading.Thread(target=run)
    thread.start()
    assert thread.ident is not None
    clock = time.pthread_getcpuclockid(thread.ident)
    longest, last = 0.0, time.clock_gettime(clock)
    began.set()
    over = False
    while not over:
        over = ended.wait(BEAT_SECONDS)
        now = time.clock_gettime(clock)
        longest, last = max(longest, now - last), now
    may_end.set()
    thread.join()
    return longest
