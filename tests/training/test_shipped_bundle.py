"""The shipped graph bundle keeps what docs/results.md says of it, on a sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from model.network.perception import GraphInputs
from training.judge.evaluate import Subject, read_subject
from training.judge.traces import trace
from training.task import Problems
from training.tasks.graph.unusual import LARGE, SHAPES

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "graph" / "1"


@pytest.fixture(scope="module")
def subject() -> Subject:
    torch.set_num_threads(1)
    return read_subject(BUNDLE)


@pytest.mark.parametrize("hops", [1, 5, 16, 64])
def test_one_step_per_hop_is_enough(subject: Subject, hops: int) -> None:
    problems = subject.task.problems(np.random.default_rng(8), "matched", hops, 40)
    traced = trace(subject.network, problems, hops)
    assert traced.accuracy(hops) == 1.0
    assert hops == 1 or traced.accuracy(hops - 1) < 1.0, "and fewer cannot be"


def test_thinking_longer_changes_nothing_and_halting_is_right(subject: Subject) -> None:
    problems = subject.task.problems(np.random.default_rng(9), "matched", 5, 60)
    traced = trace(subject.network, problems, 256)
    assert traced.right[:, 7:].all()
    answers, depths = traced.halted(subject.rule)
    assert answers.all()
    assert depths.mean() < 12


@pytest.mark.parametrize("shape", sorted(SHAPES.keys() - LARGE))
def test_a_source_reaches_itself_at_every_budget(subject: Subject, shape: str) -> None:
    edges, source = SHAPES[shape](np.random.default_rng(4))
    roles = torch.zeros(1, len(edges), dtype=torch.int64)
    roles[0, source] = 3
    mask = torch.ones(1, len(edges), dtype=torch.bool)
    inputs = GraphInputs(roles, torch.from_numpy(edges.T.copy())[None], mask)
    traced = trace(subject.network, Problems(inputs, torch.tensor([1]), 0), 64)
    assert traced.right.all()
    assert traced.halted(subject.rule)[0].all()
