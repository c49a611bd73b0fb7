"""The graph task: exact distances, honest negatives."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest

from training.tasks.graph.generator import UNREACHABLE, Bools, Graphs, distances, negatives, positives
from training.tasks.graph.negatives import ancestors, matched_negatives, rewired
from training.tasks.graph.task import GraphTask, inputs_of
from training.tasks.graph.unusual import SHAPES


def search(edges: Bools, source: int) -> list[int]:
    """Breadth-first search, one graph at a time: the oracle for the vectorised one."""
    found = {source: 0}
    queue = deque([source])
    while queue:
        node = queue.popleft()
        for other in np.flatnonzero(edges[node]).tolist():
            if other not in found:
                found[other] = found[node] + 1
                queue.append(other)
    return [found.get(node, UNREACHABLE) for node in range(len(edges))]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def test_distances_are_those_of_a_plain_search(rng: np.random.Generator) -> None:
    for draw in SHAPES.values():
        edges, source = draw(rng)
        assert distances(edges[None], np.array([source]))[0].tolist() == search(edges, source)


@pytest.mark.parametrize(("nodes", "hops"), [(8, 1), (12, 5), (20, 12), (70, 64)])
def test_a_positive_is_exactly_as_far_as_asked(rng: np.random.Generator, nodes: int, hops: int) -> None:
    graphs = positives(rng, 20, nodes, hops)
    assert (graphs.hops() == hops).all()
    assert not graphs.edges[:, np.arange(nodes), np.arange(nodes)].any(), "no loops"


def test_positives_have_more_edges_than_their_path(rng: np.random.Generator) -> None:
    assert positives(rng, 50, 16, 3).edges.sum(axis=(1, 2)).mean() > 3 + 16 // 2


def test_the_papers_negatives_have_no_path(rng: np.random.Generator) -> None:
    graphs = negatives(rng, 100, 12)
    assert len(graphs.source) == 100
    assert (graphs.hops() == UNREACHABLE).all()


def test_rewiring_keeps_every_degree_and_cuts_every_path(rng: np.random.Generator) -> None:
    compared = 0
    for row in range(30):
        before = positives(rng, 1, 24, 8)
        after = rewired(rng, before)
        if len(after.source):  # a few cannot be cut
            assert (after.hops() == UNREACHABLE).all()
            assert (after.edges.sum(axis=1) == before.edges.sum(axis=1)).all(), f"in-degrees of {row}"
            assert (after.edges.sum(axis=2) == before.edges.sum(axis=2)).all(), f"out-degrees of {row}"
            compared += 1
    assert compared > 25


def test_rewired_targets_have_more_ancestors_than_the_papers(rng: np.random.Generator) -> None:
    matched, paper = matched_negatives(rng, 100, 24, 6), negatives(rng, 100, 24)
    wanted = ancestors(positives(rng, 100, 24, 6)).mean()
    assert abs(ancestors(matched).mean() - wanted) < abs(ancestors(paper).mean() - wanted) / 2


def test_a_graph_without_two_edges_to_swap_is_left_out() -> None:
    graphs = Graphs(np.array([[[False, True], [False, False]]]), np.array([0]), np.array([1]))
    assert len(rewired(np.random.default_rng(0), graphs).source) == 0


def test_training_asks_about_nodes_within_reach_of_the_curriculum_only(rng: np.random.Generator) -> None:
    batch = GraphTask().sample(rng, 32, 2)
    edges = batch.inputs.adjacency.numpy().transpose(0, 2, 1)
    distance = distances(edges, (batch.inputs.roles % 2).argmax(1).numpy())
    weights, labels = batch.weights.numpy(), batch.labels.numpy()
    assert (labels == (distance < UNREACHABLE)).all()
    assert ((weights > 0) == ((distance <= 2) | (distance == UNREACHABLE))).all()
    assert weights[labels == 1].sum() == pytest.approx(0.5, abs=1e-4)
    assert weights.sum() == pytest.approx(1.0, abs=1e-4)


def test_the_papers_way_asks_one_question_a_graph(rng: np.random.Generator) -> None:
    batch = GraphTask(ask="target").sample(rng, 32, 5)
    asked = batch.weights.numpy() > 0
    assert (asked.sum(axis=1) == 1).all()
    assert (asked == (batch.inputs.roles.numpy() >= 2)).all()
    assert batch.labels.numpy()[asked].mean() == 0.5


@pytest.mark.parametrize("split", GraphTask.splits)
def test_evaluation_problems_are_balanced_and_of_one_difficulty(rng: np.random.Generator, split: str) -> None:
    problems = GraphTask().problems(rng, split, 6, 40)
    assert problems.labels.float().mean() == 0.5
    rows = [inputs.numpy() for inputs in problems.inputs]
    for roles, adjacency, label in zip(rows[0], rows[1], problems.labels.tolist(), strict=True):
        source, target = int((roles % 2).argmax()), int((roles // 2).argmax())
        assert search(adjacency.T, source)[target] == (6 if label else UNREACHABLE)


def test_heuristics_read_the_papers_negatives_better_than_matched_ones() -> None:
    task = GraphTask()
    scores = {
        split: task.heuristics(task.problems(np.random.default_rng(1), split, 8, 200))
        for split in task.splits
    }
    assert scores["matched"]["target has an incoming edge"] == 0.5
    assert scores["paper"]["target has an incoming edge"] > 0.6
    assert scores["wide"]["target's ancestor count"] < scores["paper"]["target's ancestor count"] - 0.1


def test_padding_is_masked(rng: np.random.Generator) -> None:
    inputs = inputs_of(positives(rng, 4, 9, 3), 14)
    assert inputs.mask.sum(dim=1).tolist() == [9] * 4
    assert not inputs.adjacency[:, 9:].any()
    assert not inputs.adjacency[:, :, 9:].any()
