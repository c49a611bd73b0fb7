"""Traces: every backend says the same, in the problems' own order, and what is read off them by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from model.bundle import read_bundle
from model.halting import HaltingRule
from model.network.scores import SCORES
from training.judge.backends import onnx_backend, torch_backend
from training.judge.evaluate import read_subject
from training.judge.oracle import against_oracle
from training.judge.traces import Trace, trace
from training.task import Problems

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"


def two_steps() -> Trace:
    scores = np.zeros((2, 5, len(SCORES)), np.float32)
    scores[:, :, SCORES.index("kl")] = [[0.1, 1.0, 0.1, 0.1, 1.0], [1.0] * 5]
    return Trace(np.array([[False, False, True, True, True], [False, True, False, True, True]]), scores)


def test_a_trace_halts_where_its_rule_has_held_long_enough() -> None:
    traced = two_steps()
    assert traced.depths(HaltingRule("kl", 0.5, 1)).tolist() == [1, 5]
    answers, depths = traced.halted(HaltingRule("kl", 0.5, 2))
    assert depths.tolist() == [4, 5]
    assert answers.tolist() == [True, True]
    assert traced.depths(HaltingRule("none")).tolist() == [5, 5]
    assert traced.oracle().tolist() == [3, 4]
    assert traced.until(3).right.shape == (2, 3)


@pytest.mark.parametrize("name", ["graph", "text"])
def test_the_exported_form_gives_the_trace_of_the_network(name: str) -> None:
    bundle = read_bundle(BUNDLES / name / "1")
    subject = read_subject(bundle.folder)
    problems = subject.task.problems(np.random.default_rng(1), subject.task.splits[0], 5, 40)
    exported = trace(onnx_backend(bundle.manifest, bundle.folder), problems, 12)
    torch.set_num_threads(1)
    ours = trace(subject.network, problems, 12)
    assert exported.names == ours.names
    np.testing.assert_array_equal(exported.right, ours.right)
    np.testing.assert_allclose(exported.scores, ours.scores, atol=1e-4)


def test_problems_of_any_length_come_back_in_their_order() -> None:
    """Long and short ones, together and alone: the same, as padding says nothing."""
    subject = read_subject(BUNDLES / "graph" / "1")
    unusual = subject.task.unusual(np.random.default_rng(2), 12)["tree"]
    together = trace(torch_backend(subject.network), unusual, 6)
    for row in (0, 5, 11):
        inputs = type(unusual.inputs)(*(tensor[row : row + 1] for tensor in unusual.inputs))
        alone = trace(subject.network, Problems(inputs, unusual.labels[row : row + 1], 1), 6)
        np.testing.assert_array_equal(alone.right[0], together.right[row])
        np.testing.assert_allclose(alone.scores[0], together.scores[row], atol=1e-5)


def test_a_rule_is_held_against_the_oracle_and_the_best_budget() -> None:
    """One problem is right from the start, one from step 3 on; the rule stops both after 4 steps."""
    right = np.array([[True] * 6, [False, False, True, True, True, True]])
    scores = np.zeros((2, 6, len(SCORES)), np.float32)
    scores[:, :, SCORES.index("latent_diff")] = [1, 1, 1, 0.1, 0.1, 0.1]
    facts = against_oracle(HaltingRule("latent_diff", 0.5), {1: Trace(right, scores)})
    overall = facts["overall"]
    assert overall["all"] == {"steps": 4.0, "oracle": 2.0, "over": 1.0}
    assert overall["waiting"] == {"steps": 4.0, "oracle": 3.0, "over": pytest.approx(1 / 3, abs=1e-4)}
    assert (overall["best_budget"], overall["lost"]) == (3, 0.0)
    assert overall["share_of_fixed"] == 4 / 32
    early = against_oracle(HaltingRule("latent_diff", 2.0), {1: Trace(right, scores)})["overall"]
    assert early["lost"] == 0.5
