"""The shipped bundle that reads stories word by word keeps what docs/results.md says of it, on a sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from training.judge.evaluate import Subject, read_subject
from training.judge.traces import trace

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "text-words" / "1"
PROBLEMS = 40


@pytest.fixture(scope="module")
def subject() -> Subject:
    torch.set_num_threads(1)
    return read_subject(BUNDLE)


@pytest.mark.parametrize("links", [2, 5, 9, 12])
def test_a_link_takes_a_step_and_the_verdict_two(subject: Subject, links: int) -> None:
    problems = subject.task.problems(np.random.default_rng(8), "paper", links, PROBLEMS)
    traced = trace(subject.backend, problems, links + 2)
    assert traced.accuracy(links + 2) >= 0.95
    known = traced.scores[:, : links - 1, subject.backend.scores.index("known")]
    assert (known > 0.5).mean() > 0.9, "and before that it is not known"


def test_thinking_longer_changes_nothing(subject: Subject) -> None:
    problems = subject.task.problems(np.random.default_rng(9), "paper", 9, PROBLEMS)
    assert trace(subject.backend, problems, 128).accuracy(128) >= 0.97


def test_a_story_that_leaves_the_question_open_is_not_answered(subject: Subject) -> None:
    untold = subject.task.unusual(np.random.default_rng(11), PROBLEMS)["untold"]
    assert trace(subject.backend, untold, 32).accuracy(32) >= 0.9
