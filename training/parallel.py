"""Data parallelism under torchrun: each process takes its rows of every batch.

All processes draw the same problems, noise and plans, so that N of them train the model that one
would: gradients agree up to the order of floating-point sums. The drawing is a few per cent of an
update.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class World:
    """This process among all that train together."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process writes files and talks to the terminal."""
        return self.rank == 0

    def rows(self, whole: int) -> slice:
        """This process's share of a batch."""
        return slice(self.rank * whole // self.size, (self.rank + 1) * whole // self.size)

    def total(self, value: Tensor) -> Tensor:
        """The sum over all processes, the same bits on each."""
        if self.size > 1:
            dist.all_reduce(value)
        return value


@contextmanager
def joined(device: str) -> Iterator[World]:
    """The world torchrun describes in the environment, or the world of one process."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield World()
        return
    world = World(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    if device == "cuda":
        torch.cuda.set_device(world.local_rank)
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield world
    finally:
        dist.destroy_process_group()
