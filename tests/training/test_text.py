"""The text task: exact generations, honest questions, and the codec's own numbers."""

from __future__ import annotations

import io
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from model.codecs import CodecLimits
from model.codecs.generations import GENERATIONS
from model.codecs.sentences import REACH, relation_of
from model.codecs.text import START, TextCodec
from training import fit, run
from training.config import configure, from_json, to_json
from training.errors import ConfigError
from training.judge.traces import accuracy_at
from training.recipes import TEXT
from training.tasks.text.families import SHAPES, STRANGER, Bools, chains, relatives, trees
from training.tasks.text.task import TextTask, inputs_of

TASK = TextTask()


def search(parents: Bools, first: int) -> dict[int, tuple[int, int]]:
    """(generations above, distance) of every relative, one family at a time: the oracle."""
    found = {first: (0, 0)}
    queue = deque([first])
    while queue:
        person = queue.popleft()
        above, far = found[person]
        kin = [(other, 1) for other in np.flatnonzero(parents[person]).tolist()]
        kin += [(other, -1) for other in np.flatnonzero(parents[:, person]).tolist()]
        for other, step in kin:
            if other not in found:
                found[other] = (above + step, far + 1)
                queue.append(other)
    return found


def expected(parents: Bools, first: int) -> list[tuple[int, int]]:
    found = search(parents, first)
    return [found.get(person, (STRANGER, STRANGER)) for person in range(len(parents))]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def test_relatives_are_those_of_a_plain_search(rng: np.random.Generator) -> None:
    families = [draw(rng) for draw in SHAPES.values()]
    families += [(family, 0) for family in trees(rng, 50, 11).parents]
    for parents, first in families:
        offset, distance = relatives(parents[None], np.array([first]))
        assert list(zip(offset[0].tolist(), distance[0].tolist(), strict=True)) == expected(parents, first)


def test_nobody_of_any_family_is_between_generations(rng: np.random.Generator) -> None:
    families = [(family, 0) for family in trees(rng, 100, 14).parents]
    for parents, first in [*families, *(draw(rng) for draw in SHAPES.values())]:
        found = search(parents, first)
        for child, parent in np.argwhere(parents).tolist():
            if child in found:
                assert found[parent][0] == found[child][0] + 1
        assert parents.sum(axis=1).max() <= 2, "two parents at most"


def test_a_chain_goes_up_and_then_down_and_has_strangers(rng: np.random.Generator) -> None:
    families, last = chains(rng, 60, 5)
    for parents, first, end in zip(families.parents, families.first, last, strict=True):
        found = search(parents, first)
        assert found[end][1] == 5
        assert len(found) == 6
        assert 4 <= len(parents) - len(found) <= 8
        path = sorted(found.values(), key=lambda place: place[1])
        steps = np.diff([above for above, _ in path]).tolist()
        assert steps == sorted(steps, reverse=True), "no way down leads up again"
    assert families.parents.sum(axis=(1, 2)).max() == 5 + (families.parents.shape[1] - 6) // 2


def test_training_grades_true_generations_as_far_as_the_curriculum_has_come(rng: np.random.Generator) -> None:
    for _ in range(10):
        batch = TASK.sample(rng, 16, 2)
        weights, labels = batch.weights.numpy(), batch.labels.numpy()
        placed, parents = batch.inputs[0].numpy(), batch.inputs[2].numpy()
        assert weights.sum() == pytest.approx(1.0, abs=1e-4)
        for row in range(16):
            first = int(placed[row].argmax())
            for person, (above, far) in enumerate(expected(parents[row], first)):
                assert (weights[row, person] > 0) == (far <= 2 or far == STRANGER)
                wanted = 0 if far == STRANGER else (placed[row, first] + above - 1) % GENERATIONS + 1
                assert labels[row, person] == wanted


@pytest.mark.parametrize("split", TASK.splits)
@pytest.mark.parametrize("bucket", [1, 6, 15])
def test_questions_are_balanced_of_one_length_and_off_by_little(
    rng: np.random.Generator, split: str, bucket: int
) -> None:
    problems = TASK.problems(rng, split, bucket, 40)
    assert problems.labels.float().mean() == 0.5
    placed, asked, parents, mask = (part.numpy() for part in problems.inputs)
    assert (placed.max(axis=1) == START).all()
    for row, label in enumerate(problems.labels.tolist()):
        size = int(mask[row].sum())
        above, far = expected(parents[row, :size, :size], int(placed[row].argmax()))[int(asked[row].argmax())]
        question = (int(asked[row].max()) - START + REACH) % GENERATIONS - REACH
        assert far == bucket
        assert abs(question) <= REACH
        off = abs(question - above)
        assert off == 0 if label else off in {"paper": (2, 4), "near": (1,)}[split]


@pytest.mark.parametrize("interface", ["family", "words", "sentences"])
def test_two_problems_are_enough_to_ask_for(rng: np.random.Generator, interface: Any) -> None:
    task = replace(TASK, interface=interface, tree_share=0)
    assert sorted(task.problems(rng, "paper", 3, 2).labels.tolist()) == [0, 1]


def test_unusual_families_are_asked_about_both_ways(rng: np.random.Generator) -> None:
    for kind, problems in TASK.unusual(rng, 40).items():
        assert 0.2 < problems.labels.float().mean() < 0.8, kind
        placed, asked, parents, mask = (part.numpy() for part in problems.inputs)
        for row, label in enumerate(problems.labels.tolist()):
            assert mask[row].any()
            above, _ = expected(parents[row], int(placed[row].argmax()))[int(asked[row].argmax())]
            right = (START + above - 1) % GENERATIONS + 1 if above < STRANGER else 0
            assert (asked[row].max() == right) == bool(label), kind


def test_sentences_become_what_the_generator_makes(rng: np.random.Generator) -> None:
    """The one description of a problem in tensors that training and serving must share."""
    families, last = chains(rng, 20, 4, (2, 2))
    offset = families.relatives()[0][np.arange(20), last]
    inputs = inputs_of(families, np.full(20, START), last, offset)
    for row in range(20):
        links = np.argwhere(families.parents[row]).tolist()
        facts = [
            f"P{child} is the child of P{parent}" if child % 2 else f"P{parent} is the parent of P{child}"
            for child, parent in links
        ]
        query = f"P{last[row]} is the {relation_of(int(offset[row]))} of P{families.first[row]}"
        coded = TextCodec(CodecLimits()).encode({"facts": facts, "query": query}, "input")
        names = list(dict.fromkeys(word for fact in facts for word in fact.split() if word[0] == "P"))
        order = torch.tensor([int(name[1:]) for name in names])
        assert coded["placed"].tolist() == inputs.placed[row][order].tolist()
        assert coded["asked"].tolist() == inputs.asked[row][order].tolist()
        assert (coded["parents"] == inputs.parents[row][order][:, order].numpy()).all()


def test_no_family_of_training_is_one_that_serving_refuses(rng: np.random.Generator) -> None:
    """Told in sentences in any order, every family has generations, and no more than can be told apart."""
    families = [draw(rng)[0] for draw in SHAPES.values() for _ in range(20)]
    families += [*trees(rng, 100, 14).parents, *chains(rng, 50, max(TASK.buckets))[0].parents]
    for parents in families:
        links = rng.permutation(np.argwhere(parents)).tolist()
        facts = [f"P{child} is the child of P{parent}" for child, parent in links]
        if facts:  # a tree may be of people who do not know each other
            TextCodec(CodecLimits()).encode({"facts": facts, "query": facts[0]}, "input")


@pytest.mark.slow
def test_a_few_seconds_teach_two_links(tmp_path: Path) -> None:
    budget = [
        "updates=450",
        "batch=32",
        "network.feed_forward=96",
        "ema=0.97",
        "curriculum.end=2",
        "noise=0.1",
        "curriculum.burn_in=0",
        "learning_rate=0.004",
    ]
    fit.train("text", "default", tmp_path, None, [*budget, "device=cpu"], Console(file=io.StringIO()), True)
    network, _ = run.read_network(tmp_path)
    problems = TASK.problems(np.random.default_rng(5), "near", 2, 100)
    assert accuracy_at(network, problems, 2) > 0.9


def test_the_configuration_survives_json_and_knows_its_task() -> None:
    assert from_json(to_json(TEXT)) == TEXT
    assert configure(TEXT, ["task.tree_share=0"]).task == TextTask(tree_share=0)
    with pytest.raises(ConfigError, match=r"task: .*tree_share is 2"):
        configure(TEXT, ["task.tree_share=2"])
    with pytest.raises(ConfigError, match="unknown setting"):
        configure(TEXT, ["task.name=graph"])
    with pytest.raises(ConfigError, match="must be family for text"):
        configure(TEXT, ["network.perception=graph", "network.echo=false"])
    with pytest.raises(ConfigError, match="there is no preset 'published' for text"):
        fit.train("text", "published", Path("never"), None, [], Console(file=io.StringIO()), True)
