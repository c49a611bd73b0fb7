"""Text word by word: what training draws reads back as the sentences that the codec takes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from model.codecs import CodecLimits
from model.codecs.sentences import offset_of
from model.codecs.text import TextCodec
from model.codecs.words import LENGTH, NAMES, ORIGIN, WORDS, WordsCodec
from model.network.perception import WordInputs
from training import fit
from training.config import configure
from training.errors import ConfigError
from training.judge.calibrate import CalibrationSize
from training.judge.evaluate import read_subject
from training.paper.presets import PAPER
from training.recipes import WORDS as WORDS_PRESET
from training.ship.export import export
from training.task import Problems
from training.tasks.text.families import relatives
from training.tasks.text.task import TextTask

TASK = TextTask(interface="words", tree_share=0, frontier_share=0, min_links=2)
COUNTING = TextTask(interface="sentences")
BOTH = pytest.mark.parametrize("task", [TASK, COUNTING], ids=["words", "sentences"])


def sentences(tokens: list[int]) -> list[str]:
    words = [WORDS[token] for token in tokens]
    assert words[0] == "[CLS]"
    parts = [words[start : start + LENGTH] for start in range(1, len(words), LENGTH)]
    return [" ".join(part[:-1]) for part in parts]


def questions(problems: Problems) -> list[tuple[list[str], str]]:
    rows = []
    for tokens, mask in zip(problems.inputs[0], problems.inputs.mask, strict=True):
        *facts, query = sentences(tokens[mask].tolist())
        rows.append((facts, query))
    return rows


@BOTH
@pytest.mark.parametrize("split", TASK.splits)
@pytest.mark.parametrize("links", [2, 9, 15, 20])
def test_the_sentences_tell_the_chain_and_the_label_is_true(task: TextTask, split: str, links: int) -> None:
    problems = task.problems(np.random.default_rng(links), split, links, 30)
    assert problems.labels.float().mean() == 0.5
    for (facts, query), label in zip(questions(problems), problems.labels.tolist(), strict=True):
        coded = TextCodec(CodecLimits()).encode({"facts": facts, "query": query}, "input")
        assert len(coded["mask"]) <= NAMES
        first = int(coded["placed"].argmax())
        offset, distance = (part[0] for part in relatives(coded["parents"][None], np.array([first])))
        last = int(coded["asked"].argmax())
        assert distance[last] == links
        asked = offset_of(query.split()[3])
        assert asked is not None
        off = abs(asked - offset[last])
        assert off == 0 if label else off in {"paper": (2, 4), "near": (1,)}[split]


@BOTH
def test_training_and_serving_agree_on_the_words(task: TextTask) -> None:
    """The names aside, which are drawn anew: the codec numbers them in order of appearance."""
    problems = task.problems(np.random.default_rng(1), "paper", 4, 12)
    codec = WordsCodec(CodecLimits(), counts=task is COUNTING)
    for row, (facts, query) in enumerate(questions(problems)):
        coded = codec.encode({"facts": facts, "query": query}, "input")
        assert tuple(coded) == problems.inputs._fields
        real = problems.inputs.mask[row]
        if isinstance(problems.inputs, WordInputs):
            assert problems.inputs.placed[row][real].tolist() == coded["placed"].tolist()
            assert not problems.inputs.placed[row][~real].any()
        ours = problems.inputs[0][row][real].tolist()
        pairs = set(zip(ours, coded["tokens"].tolist(), strict=True))
        assert len({one for one, _ in pairs}) == len({other for _, other in pairs}) == len(pairs)
        assert all(one == other or WORDS[one][0] == WORDS[other][0] == "[" for one, other in pairs)


def test_training_asks_one_question_of_chains_of_two_to_five() -> None:
    rng = np.random.default_rng(2)
    batches = [TASK.sample(rng, 16, 5) for _ in range(30)]
    assert {batch.difficulty for batch in batches} == {2, 3, 4, 5}
    for batch in batches:
        assert batch.labels.shape == batch.weights.shape == (16, 1)
        assert batch.labels.float().mean() == 0.5
        assert float(batch.weights.sum()) == pytest.approx(1)
    facts = [row for batch in batches for row in sentences(batch.inputs[0][0].tolist())[:-1]]
    assert {fact.split()[3] for fact in facts} == {"parent", "child"}
    assert len({fact.split()[0] for fact in facts}) == NAMES, "names are drawn anew"


@BOTH
def test_shortcuts_are_measured_on_words_as_on_people(task: TextTask) -> None:
    people = TextTask().problems(np.random.default_rng(3), "paper", 5, 200)
    words = task.problems(np.random.default_rng(3), "paper", 5, 200)
    (one,), (other,) = (task.heuristics(problems).values() for problems in (people, words))
    assert 0.5 <= one < 0.75
    assert one == pytest.approx(other, abs=0.1)
    assert (task.unusual(np.random.default_rng(3), 4) == {}) == (task is TASK)


@BOTH
def test_any_words_fill_the_length_and_are_padded_at_the_end(task: TextTask) -> None:
    inputs = task.random_inputs(np.random.default_rng(3), 12, 9)
    assert inputs.mask.shape == (12, 9)
    assert inputs.mask[0].all()
    assert inputs.mask[:, 0].all()
    assert (inputs.mask[:, 1:] <= inputs.mask[:, :-1]).all()
    assert inputs[0].max() < len(WORDS)
    if isinstance(inputs, WordInputs):
        assert torch.equal(inputs.placed.argmax(dim=1), inputs.mask.sum(dim=1) - 1)
        assert inputs.placed.amax(dim=1).tolist() == inputs.placed.sum(dim=1).tolist() == [ORIGIN] * 12


def test_the_interface_and_the_perception_are_one_choice() -> None:
    with pytest.raises(ValueError, match="interface=words needs tree_share=0"):
        TextTask(interface="words")
    assert PAPER["text"].network.perception == PAPER["text"].task.interface == "words"  # type: ignore[union-attr]
    assert WORDS_PRESET.network.perception == WORDS_PRESET.task.interface == "sentences"  # type: ignore[union-attr]
    for words in (["task.interface=family"], ["task.interface=words", "task.tree_share=0"]):
        settled = [*words, "short_share=0", "curriculum.late_share=0", "network.classes=2"]
        with pytest.raises(ConfigError, match=r"network\.perception must be (family|words) for text"):
            configure(WORDS_PRESET, settled)
    assert [spec.answer for spec in COUNTING.classes] == [False, True, None]
    assert [spec.answer for spec in TASK.classes] == [False, True]


@pytest.mark.slow
def test_a_run_that_reads_words_is_exported_with_its_vocabulary(tmp_path: Path) -> None:
    words = ["updates=1", "batch=4", "network.width=16", "network.heads=2", "network.feed_forward=16"]
    fit.train(
        "text", "paper", tmp_path / "run", None, [*words, "device=cpu"], Console(file=io.StringIO()), True
    )
    torch.set_num_threads(1)
    size = CalibrationSize(problems=4, max_steps=4)
    bundle = export(tmp_path / "run", tmp_path / "text" / "1", size, False, Console(quiet=True))
    assert bundle.manifest.codec.vocabulary["parent"] == WORDS.index("parent")
    subject = read_subject(bundle.folder)
    assert isinstance(subject.task, TextTask)
    assert subject.task.interface == "words"
