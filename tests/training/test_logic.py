"""The logic task: exact depths, true values of every part, and what is graded and how much."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from model.codecs import CodecLimits
from model.codecs.logic import CHARACTERS, LogicCodec, fault_of
from model.perception import BracketInputs
from training import checkpoint, run
from training.config import LOGIC, ConfigError, configure, from_json, to_json
from training.parallel import World
from training.start import start
from training.tasks.expressions import (
    DEEP,
    LONGEST,
    LONGEST_BEYOND,
    SHAPES,
    anyhow,
    depth_of,
    guess,
    longest,
    nested,
    parts_of,
    value_of,
)
from training.tasks.logic import LogicTask, inputs_of
from training.trainer import Trainer

TASK = LogicTask()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def by_python(expression: str) -> bool:
    words = {"T": " True ", "F": " False ", "!": " not ", "&": " and ", "|": " or "}
    return bool(eval("".join(words.get(character, character) for character in expression).strip()))


def closing(text: str, place: int) -> int:
    """Where the bracket opened at `place` closes."""
    level = 0
    for here in range(place, len(text)):
        level += (text[here] == "(") - (text[here] == ")")
        if level == 0:
            return here
    raise AssertionError(text)


def part(text: str, place: int) -> str:
    """The expression that a character stands for, cut out of the text: the oracle for parts_of."""
    assert text[place] != ")", "ask at the opening bracket"
    if text[place] in "TF":
        return text[place]
    if text[place] == "(":
        return text[place + 1 : closing(text, place)]
    if text[place] == "!":
        end = place + 1
        while text[end] == "!":
            end += 1
        return text[place : (closing(text, end) if text[end] == "(" else end) + 1]
    # To the left and to the right as far as the group goes; `&` ends at `|` too.
    left = right = place
    for step in (-1, 1):
        here, level = place + step, 0
        while True:
            level += (text[here] == "(") - (text[here] == ")")
            if level == -step or (text[place] == "&" and level == 0 and text[here] == "|"):
                break
            here += step
        left, right = (here, right) if step < 0 else (left, here)
    return text[left + 1 : right]


def drawn(rng: np.random.Generator, count: int = 40) -> list[str]:
    expressions = [nested(rng, depth) for depth in range(9) for _ in range(count)]
    expressions += [anyhow(rng, depth) for depth in range(6) for _ in range(count)]
    return expressions + [shape(rng) for shape in SHAPES.values() for _ in range(count)]


def texts(inputs: BracketInputs) -> list[str]:
    """The expressions of a batch, without the brackets around the whole."""
    rows = zip(inputs.tokens.tolist(), inputs.mask.sum(dim=1).tolist(), strict=True)
    return ["".join(CHARACTERS[token] for token in row[:size])[1:-1] for row, size in rows]


def test_every_generator_writes_expressions_that_the_codec_reads(rng: np.random.Generator) -> None:
    for expression in drawn(rng):
        assert fault_of(expression) is None, expression


@pytest.mark.parametrize("depth", [0, 1, 2, 5, 8, 14, 20])
def test_nested_expressions_are_exactly_so_deep(rng: np.random.Generator, depth: int) -> None:
    assert {depth_of(nested(rng, depth)) for _ in range(200)} == {depth}
    assert max(depth_of(anyhow(rng, depth)) for _ in range(40)) <= depth


def test_an_expression_without_brackets_is_an_atom_a_negated_one_or_two(rng: np.random.Generator) -> None:
    forms = [len(nested(rng, 0)) for _ in range(4000)]
    shares = [forms.count(length) / 4000 for length in (1, 2, 3)]
    assert shares == pytest.approx([0.5, 0.25, 0.25], abs=0.03)


def test_siblings_are_mostly_shallow(rng: np.random.Generator) -> None:
    """Sibling depth k has weight 2^(depth - 1 - k)."""
    found = [0] * 4
    for _ in range(3000):
        text = nested(rng, 4).removeprefix("!")[1:-1].removeprefix("!")
        end = closing(text, 0) + 1 if text[0] == "(" else 1
        found[min(depth_of(text[:end]), depth_of(text[end:]))] += 1
    assert np.array(found) / 3000 == pytest.approx(np.array([8, 4, 2, 1]) / 15, abs=0.03)


def test_the_value_of_every_part_is_what_python_says(rng: np.random.Generator) -> None:
    for expression in drawn(rng, 12):
        text = f"({expression})"
        parts = parts_of(expression)
        assert len(parts.value) == len(parts.levels) == len(text)
        for place, character in enumerate(text):
            start = opening(text, place) if character == ")" else place
            stands_for = part(text, start)
            assert parts.value[place] == by_python(stands_for), (text, place)
            pairs = stands_for.count("!") // 2 if "!!" in stands_for else 0
            assert depth_of(stands_for) <= parts.levels[place] <= depth_of(stands_for) + pairs, (text, place)
        assert value_of(expression) == by_python(expression)


def test_two_more_nots_are_one_more_level() -> None:
    assert parts_of("!!!!!T").levels == [2, 2, 2, 1, 1, 0, 0, 2]
    assert parts_of("!!(T&!!T)").levels[:3] == [3, 3, 2]


def opening(text: str, place: int) -> int:
    return next(start for start in range(place) if text[start] == "(" and closing(text, start) == place)


def test_deep_nesting_needs_no_deep_recursion() -> None:
    deep = "!(" * 3000 + "T" + ")" * 3000
    assert value_of(deep)
    assert parts_of(deep).levels[0] == 3000


def test_a_guess_looks_at_the_outermost_operator_only() -> None:
    said = {"T|F": True, "T&T": False, "T&F|F": True, "!(T|F)": False, "!!((T&T))": False, "F": False}
    said |= {"!F": True, "(T)": True, "!(T&T)|F&F": True}
    assert {expression: guess(expression) for expression in said} == said


@pytest.mark.parametrize("split", TASK.splits)
@pytest.mark.parametrize("bucket", [0, 1, 8, 14, 20])
def test_evaluation_problems_are_balanced_labelled_and_not_too_long(split: str, bucket: int) -> None:
    problems = TASK.problems(np.random.default_rng(5), split, bucket, 20)
    assert isinstance(problems.inputs, BracketInputs)
    expressions = texts(problems.inputs)
    assert problems.labels.sum() == 10
    assert problems.labels.tolist() == [int(by_python(expression)) for expression in expressions]
    depths = set(map(depth_of, expressions))
    assert depths == {bucket} if split == "paper" else max(depths) <= bucket
    assert max(map(len, expressions)) <= longest(bucket)


def test_problems_are_held_to_the_papers_length_as_far_as_its_depth() -> None:
    assert longest(DEEP) == LONGEST == 128
    assert longest(DEEP + 1) == LONGEST_BEYOND
    assert CodecLimits().max_nodes >= LONGEST_BEYOND, "a server takes them"


def test_deeper_problems_are_not_only_combs(rng: np.random.Generator) -> None:
    """At 128 characters a problem of depth 20 would be a path of single atoms."""
    problems = TASK.problems(rng, "paper", 20, 40)
    assert isinstance(problems.inputs, BracketInputs)
    lengths = list(map(len, texts(problems.inputs)))
    assert max(lengths) > 200
    assert np.median(lengths) > 150


def test_the_codec_makes_of_a_text_what_the_generator_makes(rng: np.random.Generator) -> None:
    """The one description of a problem in tensors that training and serving must share."""
    expressions = [expression for expression in drawn(rng, 2) if len(expression) <= 250]
    inputs = inputs_of(expressions)
    for row, expression in enumerate(expressions):
        coded = LogicCodec(CodecLimits()).encode({"expression": " ".join(expression)}, "input")
        size = len(coded["tokens"])
        for name in ("tokens", "group", "outer"):
            assert getattr(inputs, name)[row, :size].tolist() == coded[name].tolist(), name
        assert inputs.mask[row].tolist() == [True] * size + [False] * (inputs.mask.shape[1] - size)


def test_unusual_shapes_are_labelled_and_both_answers_occur(rng: np.random.Generator) -> None:
    for kind, problems in TASK.unusual(rng, 60).items():
        assert isinstance(problems.inputs, BracketInputs)
        expressions = texts(problems.inputs)
        assert problems.labels.tolist() == [int(by_python(expression)) for expression in expressions], kind
        assert 0.1 < problems.labels.float().mean() < 0.9, kind
        assert problems.difficulty == max(map(depth_of, expressions)), kind
        assert max(map(len, expressions)) <= LONGEST, kind


def test_training_grades_every_part_within_reach_and_no_atom(rng: np.random.Generator) -> None:
    for _ in range(20):
        batch = TASK.sample(rng, 8, 4)
        assert isinstance(batch.inputs, BracketInputs)
        assert batch.weights.sum().item() == pytest.approx(1.0, abs=1e-5)
        assert batch.difficulty <= 4
        for row, expression in enumerate(texts(batch.inputs)):
            text, parts = f"({expression})", parts_of(expression)
            weights = batch.weights[row].tolist()
            for place, character in enumerate(text):
                graded = character not in "TF" and parts.levels[place] <= batch.difficulty
                assert (weights[place] > 0) == graded
                assert not graded or batch.labels[row, place] == parts.value[place]
            assert not any(weights[len(text) :]), "padding is not graded"
        given = batch.weights[batch.weights > 0]
        assert given.min() == given.max(), "parts count alike"


def test_training_never_draws_deeper_than_the_curriculum_has_come(rng: np.random.Generator) -> None:
    for difficulty in (0, 1, 3):
        deepest = 0
        for _ in range(20):
            batch = TASK.sample(rng, 8, difficulty)
            assert isinstance(batch.inputs, BracketInputs)
            deepest = max(deepest, *map(depth_of, texts(batch.inputs)))
        assert deepest == difficulty


def test_asking_for_the_whole_grades_the_first_bracket_alone(rng: np.random.Generator) -> None:
    batch = LogicTask(ask="whole").sample(rng, 6, 3)
    assert batch.weights.nonzero().tolist() == [[row, 0] for row in range(6)]
    assert isinstance(batch.inputs, BracketInputs)
    assert batch.labels[:, 0].tolist() == [int(by_python(text)) for text in texts(batch.inputs)]


def test_a_batch_has_rows_of_about_one_length(rng: np.random.Generator) -> None:
    shares = [TASK.sample(rng, 16, 6).inputs.mask.float().mean().item() for _ in range(12)]
    assert np.mean(shares) > 0.7


def test_the_same_numbers_draw_the_same_batches_from_any_point_on() -> None:
    """What resuming rests on: nothing is drawn that is not in the generator's state."""
    whole = np.random.default_rng(4)
    first = [TASK.sample(whole, 4, 3) for _ in range(6)]
    again = np.random.default_rng(4)
    for batch in first:
        later = np.random.default_rng(0)
        later.bit_generator.state = again.bit_generator.state
        for other in (TASK.sample(again, 4, 3), TASK.sample(later, 4, 3)):
            assert all(map(torch.equal, batch.inputs, other.inputs))
            assert torch.equal(batch.labels, other.labels)
            assert torch.equal(batch.weights, other.weights)


def test_random_inputs_fill_the_length_and_pad_at_the_end(rng: np.random.Generator) -> None:
    inputs = TASK.random_inputs(rng, 30, 9)
    assert inputs.mask[0].all()
    assert inputs.mask[:, 0].all()
    assert (inputs.mask[:, 1:] <= inputs.mask[:, :-1]).all()
    assert not inputs.tokens[~inputs.mask].any()


def test_shortcuts_are_measured_and_do_not_solve_deep_problems() -> None:
    said = TASK.heuristics(TASK.problems(np.random.default_rng(7), "paper", 11, 200))
    assert set(said) == {"share of T", "outermost operator"}
    assert 0.5 <= said["share of T"] < 0.75
    assert 0.5 < said["outermost operator"] < 0.95


def test_logic_training_resumes_to_the_same_weights(tmp_path: Path) -> None:
    small = ["network.width=8", "network.heads=2", "network.feed_forward=8", "batch=4", "updates=4"]
    small += ["curriculum.end=2", "curriculum.advance_below=10", "head_updates=2", "device=cpu"]
    quiet = Console(file=io.StringIO())
    start("logic", "default", tmp_path / "whole", None, small, quiet, True)

    config = configure(LOGIC, small)
    run.create(tmp_path / "parts", config, "cpu", 1)
    first = Trainer(config, tmp_path / "parts", World(), "cpu")
    for _ in range(2):
        first._update()
    first.save()
    start("logic", "default", None, tmp_path / "parts", [], quiet, True)
    whole, parts = (checkpoint.load(tmp_path / name).tensors for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(tensor, parts[name]) for name, tensor in whole.items())


def test_the_configuration_survives_json_and_knows_its_task() -> None:
    assert from_json(to_json(LOGIC)) == LOGIC
    assert configure(LOGIC, ["task.ask=whole"]).task == LogicTask(ask="whole")
    with pytest.raises(ConfigError, match=r"task: .*anyhow_share is 2"):
        configure(LOGIC, ["task.anyhow_share=2"])
    with pytest.raises(ConfigError, match="must be brackets or characters for logic"):
        configure(LOGIC, ["network.perception=graph", "network.attention=softmax"])
    with pytest.raises(ConfigError, match="need tokens in a row"):
        configure(LOGIC, ["network.perception=graph"])
    by_character = ["task.interface=characters", "network.perception=characters"]
    with pytest.raises(ConfigError, match="late_share=0"):
        configure(LOGIC, [*by_character, "curriculum.late_share=0.5"])
