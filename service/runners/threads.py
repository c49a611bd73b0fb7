"""The threads that compute steps on a CPU: one set for the whole process, as many as it may use cores."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
GROUPS, MOUNT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


class StepThreads:
    """So many steps are computed at the same time, whoever they belong to; the others wait in a line.

    An engine's own thread may compute what is short itself, which saves handing it over. It counts like
    the threads here, and does not pass who waits.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="steps")
        self._changed = threading.Condition(threading.Lock())
        self._under_way = 0  # steps that are computed or wait for it
        self._computing = 0

    def submit(self, work: Callable[[], T], then: Callable[[T], None]) -> None:
        """Do work in a thread when its turn comes, and hand what comes of it to `then`. Neither raises."""
        with self._changed:
            self._under_way += 1
        self._pool.submit(self._take_turn, work, then)

    def begin_here(self) -> bool:
        """Whether the thread that asks may compute a step now; if so, it calls `end` after that."""
        with self._changed:
            if self._under_way >= self.count:
                return False
            self._under_way += 1
            self._computing += 1
            return True

    @property
    def crowded(self) -> bool:
        """Whether a step waits for one of the threads."""
        return self._under_way > self.count

    def end(self) -> None:
        """A step has been computed."""
        with self._changed:
            self._under_way -= 1
            self._computing -= 1
            self._changed.notify()

    def _take_turn(self, work: Callable[[], T], then: Callable[[T], None]) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._computing < self.count)
            self._computing += 1
        try:
            result = work()
        finally:
            self.end()  # before anybody hears of it, who would find no thread free
        then(result)


_made = cache(StepThreads)
_making = threading.Lock()  # a cache alone may make two where two models ask at once


def step_threads(count: int = 0) -> StepThreads:
    """The process's threads, made when they are first asked for; 0: as many as it may use cores."""
    with _making:
        return _made(count or cores())


def cores(groups: Path = GROUPS, mount: Path = MOUNT) -> int:
    """How many cores this process may use: those it may run on, or its container's quota, rounded up."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([here, *(math.ceil(share) for share in _quotas(groups, mount))]))


def _quotas(groups: Path, mount: Path) -> Iterator[float]:
    """The limits on CPU time of the control groups that this process is in, as numbers of cores.

    groups lists them, a line each: `0::/path` (version 2) or `4:cpu,cpuacct:/path` (version 1). A limit of
    a group's parents holds for it too. In a container the path may be the host's, of which nothing is
    mounted here but the group itself, at the top.
    """
    for line in _read(groups).splitlines():
        _, controllers, path = line.split(":", 2)
        version_1 = "cpu" in controllers.split(",")
        if controllers and not version_1:
            continue
        group = Path(path.strip("/"))
        for folder in (group, *group.parents):
            if version_1:
                quota = _read(mount / "cpu" / folder / "cpu.cfs_quota_us")
                period = _read(mount / "cpu" / folder / "cpu.cfs_period_us")
            else:
                quota, _, period = _read(mount / folder / "cpu.max").partition(" ")
            if quota.strip().isdecimal() and period.strip().isdecimal() and int(period):  # not `max`, not -1
                yield int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
