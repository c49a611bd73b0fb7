"""The shipped logic bundle keeps what is asked of it, on a sample: far deeper than it was trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from training.judge.evaluate import Subject, read_subject
from training.judge.traces import trace

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "logic" / "2"
LEVELS = [1, 8, 11, 14]
PROBLEMS = 40  # two of them wrong are 95 %: a model that is right 98 times in 100 passes with room to spare


@pytest.fixture(scope="module")
def subject() -> Subject:
    torch.set_num_threads(1)
    return read_subject(BUNDLE)


@pytest.mark.parametrize("split", ["paper", "anyhow"])
@pytest.mark.parametrize("levels", LEVELS)
def test_nested_expressions_are_answered_within_64_steps(subject: Subject, split: str, levels: int) -> None:
    problems = subject.task.problems(np.random.default_rng(8), split, levels, PROBLEMS)
    assert trace(subject.backend, problems, 64).accuracy(64) >= 0.95


def test_thinking_longer_changes_nothing(subject: Subject) -> None:
    problems = subject.task.problems(np.random.default_rng(9), "paper", 8, PROBLEMS)
    traced = trace(subject.backend, problems, 256)
    assert traced.accuracy(256) >= traced.accuracy(64) - 0.01


@pytest.mark.parametrize("levels", LEVELS)
def test_halting_by_itself_is_right_and_soon(subject: Subject, levels: int) -> None:
    problems = subject.task.problems(np.random.default_rng(10), "paper", levels, PROBLEMS)
    traced = trace(subject.backend, problems, 96)
    answers, depths = traced.halted(subject.rule)
    assert answers.mean() >= traced.accuracy(96) - 0.03
    assert depths.mean() < 64


def test_every_unusual_shape_is_answered(subject: Subject) -> None:
    for kind, problems in subject.task.unusual(np.random.default_rng(11), PROBLEMS).items():
        assert trace(subject.backend, problems, 96).accuracy(96) >= 0.95, kind


@pytest.mark.parametrize(("split", "size"), [("towers", 28), ("nots", 40), ("chains", 40)])
def test_a_value_that_must_pass_everything_arrives(subject: Subject, split: str, size: int) -> None:
    problems = subject.task.problems(np.random.default_rng(12), split, size, PROBLEMS)
    assert trace(subject.backend, problems, 128).accuracy(128) >= 0.95


def test_until_the_value_has_arrived_the_answer_is_that_it_is_not_known(subject: Subject) -> None:
    problems = subject.task.problems(np.random.default_rng(13), "towers", 14, PROBLEMS)
    known = trace(subject.backend, problems, 4).scores[:, :, subject.backend.scores.index("known")]
    assert (known > 0.5).mean() > 0.9
