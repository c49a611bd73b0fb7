"""Batches drawn ahead by a process of their own: the same ones, whoever stops and goes on in between."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console

from training import checkpoint, fit, run
from training.ahead import Ahead
from training.config import TrainConfig, configure
from training.curriculum import Curriculum
from training.errors import ConfigError
from training.parallel import World
from training.recipes import LOGIC
from training.trainer import Trainer

# advance_below=10: problems get harder at every update, so that it shows when a batch was asked for.
SMALL = ["network.width=8", "network.heads=2", "network.feed_forward=8", "batch=4", "updates=6"]
SMALL += ["curriculum.end=6", "curriculum.advance_below=10", "head_updates=2", "device=cpu", "prefetch=2"]


def small(*more: str) -> TrainConfig:
    return configure(LOGIC, [*SMALL, *more])


def test_training_with_batches_drawn_ahead_resumes_to_the_same_weights(tmp_path: Path) -> None:
    quiet = Console(file=io.StringIO())
    fit.train("logic", "default", tmp_path / "whole", None, SMALL, quiet, True)

    run.create(tmp_path / "parts", small(), "cpu", 1)
    first = Trainer(small(), tmp_path / "parts", World(), "cpu")
    for _ in range(3):
        first.update()
    first.save()
    first.close()
    fit.train("logic", None, None, tmp_path / "parts", [], quiet, True)
    whole, parts = (checkpoint.load(tmp_path / name).tensors for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(tensor, parts[name]) for name, tensor in whole.items())


def test_a_batch_is_as_hard_as_the_curriculum_was_when_it_was_asked_for() -> None:
    config = small()
    ahead, curriculum = Ahead(config), Curriculum.start(config.curriculum)
    began, asked = curriculum.difficulty, []
    try:
        for update in range(config.updates):
            drawn = ahead.next(update, curriculum)
            asked.append([difficulty for difficulty, _ in ahead.asked])
            assert len(drawn.batch.labels) == config.batch
            curriculum.difficulty += 1
    finally:
        ahead.close()
    assert asked == [
        [began, began],
        [began, began + 1],
        [began + 1, began + 2],
        [began + 2, began + 3],
        [began + 3],  # none beyond the last update
        [],
    ]


def test_without_it_nothing_is_different_and_less_than_nothing_is_refused(tmp_path: Path) -> None:
    assert TrainConfig().prefetch == 0
    assert Trainer(small("prefetch=0"), tmp_path, World(), "cpu").ahead is None
    with pytest.raises(ConfigError, match="prefetch is -1, but must not be negative"):
        small("prefetch=-1")
