"""The C library's allocator, told to give back what is free: its defaults keep the most that ever was."""

from __future__ import annotations

import ctypes
import os
import sys

ARENAS = 2  # pools of memory that threads share; by default 8 a core, each of which fragments by itself
OWN_PAGES_BYTES = 2**20  # what is larger gets pages of its own, which go back when it is freed
ARENA_MAX, MMAP_THRESHOLD = -8, -3  # mallopt's names for the two, from malloc.h
OTHERS_SAY = {"MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"}


def limit_allocator() -> None:
    """Once for the process, before its threads start.

    Does nothing where the C library is not glibc, or where the environment sets its allocator already.
    """
    if sys.platform != "linux" or os.environ.keys() & OTHERS_SAY:
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(ARENA_MAX, ARENAS)
        library.mallopt(MMAP_THRESHOLD, OWN_PAGES_BYTES)
