"""The shipped text bundle keeps what docs/lab.md says of it, on a sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from training.judge.evaluate import Subject, read_subject
from training.judge.traces import trace

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "text" / "1"


@pytest.fixture(scope="module")
def subject() -> Subject:
    torch.set_num_threads(1)
    return read_subject(BUNDLE)


@pytest.mark.parametrize("split", ["paper", "near"])
@pytest.mark.parametrize("links", [2, 5, 9, 12])
def test_one_step_per_link_is_enough(subject: Subject, split: str, links: int) -> None:
    problems = subject.task.problems(np.random.default_rng(8), split, links, 40)
    traced = trace(subject.network, problems, links)
    assert traced.accuracy(links) >= (0.99 if links < 12 else 0.85)
    assert traced.accuracy(links - 1) < 0.7, "and fewer cannot be"


def test_halting_by_itself_is_right_and_soon(subject: Subject) -> None:
    problems = subject.task.problems(np.random.default_rng(9), "near", 5, 60)
    answers, depths = trace(subject.network, problems, 64).halted(subject.rule)
    assert answers.mean() >= 0.98
    assert depths.mean() < 24
