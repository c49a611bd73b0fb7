"""Batches that are drawn ahead by a process of their own, so that a GPU does not wait for Python.

Each update's numbers then come from a generator of its own, and how hard its problems are from the
curriculum as it stood so many updates before: the same whenever and wherever it is drawn.
"""

from __future__ import annotations

import signal
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context

import numpy as np
import torch

from training.config import TrainConfig
from training.curriculum import Curriculum
from training.task import Batch


@dataclass(frozen=True)
class Drawn:
    """Problems, for how many steps they burn in, and for how many more they are thought about."""

    batch: Batch
    burn_in: int
    steps: int


def draw(config: TrainConfig, curriculum: Curriculum, numbers: np.random.Generator) -> Drawn:
    """One update's problems, and what is graded after their steps."""
    batch = config.task.sample(numbers, config.batch, curriculum.difficulty)
    burn_in = curriculum.draw_burn_in(numbers)
    steps = config.steps(batch.difficulty) + int(numbers.integers(0, config.extra_steps + 1))
    share = config.curriculum.late_share
    late = bool(share) and numbers.random() < share and burn_in > 0 and batch.earlier is not None
    short = bool(config.short_share) and numbers.random() < config.short_share
    if short:
        steps = int(numbers.integers(1, max(2, config.steps(batch.difficulty) + 1)))
    batch = replace(batch.at(steps if late else steps + burn_in), earlier=batch.earlier if late else None)
    if short and batch.watched is not None:  # what is due after a few steps is not what is to be learned
        batch = replace(batch, watched=torch.zeros_like(batch.watched))
    return Drawn(batch, burn_in, steps)


class Ahead:
    """The batches of the next `config.prefetch` updates, on their way."""

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        self._pool = ProcessPoolExecutor(1, get_context("spawn"), _quietly)
        self._coming: deque[tuple[Curriculum, Future[Drawn]]] = deque()

    def next(self, update: int, curriculum: Curriculum) -> Drawn:
        """The batch of this update. Raises what drawing it raised."""
        last = min(update + self._config.prefetch, self._config.updates - 1)
        while update + len(self._coming) <= last:
            self._ask(update + len(self._coming), curriculum)
        return self._coming.popleft()[1].result()

    @property
    def asked(self) -> list[tuple[int, int]]:
        """How hard, and with how much burn-in at most, are those that are on their way: for a checkpoint."""
        return [(curriculum.difficulty, curriculum.burn_in) for curriculum, _ in self._coming]

    def resume(self, update: int, asked: list[tuple[int, int]]) -> None:
        """Ask again for what a checkpoint says was on its way."""
        for place, (difficulty, burn_in) in enumerate(asked):
            self._ask(update + place, Curriculum(self._config.curriculum, difficulty, burn_in))

    def close(self) -> None:
        """End the process. Harmless when repeated."""
        self._pool.shutdown(cancel_futures=True)

    def _ask(self, update: int, curriculum: Curriculum) -> None:
        as_of_now = replace(curriculum)
        self._coming.append((as_of_now, self._pool.submit(_draw, self._config, as_of_now, update)))


def _draw(config: TrainConfig, curriculum: Curriculum, update: int) -> Drawn:
    return draw(config, curriculum, np.random.default_rng((config.data_seed, update)))


def _quietly() -> None:
    """Who stops the training stops it in the main process, which then ends this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
