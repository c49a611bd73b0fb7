"""The logic task: balanced problems, what is graded of an expression, when, and how much."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from model.codecs import CodecLimits
from model.codecs.logic import LogicCodec
from model.network.perception import Inputs, SequenceInputs
from tests.training.test_expressions import by_python, drawn
from training import checkpoint, fit, run
from training.config import configure, from_json, to_json
from training.errors import ConfigError
from training.parallel import World
from training.recipes import LOGIC
from training.task import NEVER, Batch, Schedule
from training.tasks.logic.expressions import (
    DEEP,
    LONGEST,
    LONGEST_BEYOND,
    UNKNOWN,
    depth_of,
    longest,
    parts_of,
)
from training.tasks.logic.task import BLANK, QUIET_STEPS, SIGNS, WIDE, LogicTask, inputs_of
from training.trainer import Trainer

TASK = LogicTask()
SETTLED = LogicTask(unknown=False)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def texts(inputs: Inputs) -> list[str]:
    """The expressions of a batch, blanks as `?`, without the brackets around the whole."""
    assert isinstance(inputs, SequenceInputs)
    rows = zip(inputs.tokens.tolist(), inputs.mask.sum(dim=1).tolist(), strict=True)
    return ["".join(SIGNS[token] for token in row[:size])[1:-1] for row, size in rows]


def plan(batch: Batch) -> Schedule:
    assert batch.schedule is not None
    return batch.schedule


@pytest.mark.parametrize("split", ["paper", "anyhow"])
@pytest.mark.parametrize("bucket", [0, 1, 8, 14, 20])
def test_evaluation_problems_are_balanced_labelled_and_not_too_long(split: str, bucket: int) -> None:
    problems = TASK.problems(np.random.default_rng(5), split, bucket, 20)
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
    lengths = list(map(len, texts(TASK.problems(rng, "paper", 20, 40).inputs)))
    assert max(lengths) > 200
    assert np.median(lengths) > 150


def test_the_codec_makes_of_a_text_what_the_generator_makes(rng: np.random.Generator) -> None:
    """The one description of a problem in tensors that training and serving must share."""
    expressions = [expression for expression in drawn(rng, 2) if len(expression) <= 250]
    inputs = inputs_of(expressions)
    for row, expression in enumerate(expressions):
        coded = LogicCodec(CodecLimits()).encode({"expression": " ".join(expression)}, "input")
        size = len(coded["tokens"])
        assert inputs.tokens[row, :size].tolist() == coded["tokens"].tolist()
        assert inputs.mask[row].tolist() == [True] * size + [False] * (inputs.mask.shape[1] - size)
        assert list(coded) == list(SequenceInputs._fields)


def test_unusual_shapes_are_labelled_and_both_answers_occur(rng: np.random.Generator) -> None:
    for kind, problems in TASK.unusual(rng, 60).items():
        expressions = texts(problems.inputs)
        assert problems.labels.tolist() == [int(by_python(expression)) for expression in expressions], kind
        assert 0.1 < problems.labels.float().mean() < 0.9, kind
        assert problems.difficulty == max(map(depth_of, expressions)), kind
        assert max(map(len, expressions)) <= LONGEST, kind


def test_training_grades_every_part_when_it_can_be_known_and_atoms_apart(rng: np.random.Generator) -> None:
    for _ in range(20):
        batch = TASK.sample(rng, 8, 4)
        schedule, latest = plan(batch), []
        for row, expression in enumerate(texts(batch.inputs)):
            text, parts = f"({expression})", parts_of(expression)
            size = len(text)
            assert batch.labels[row, :size].tolist() == parts.value
            assert schedule.earliest[row, :size].tolist() == parts.earliest
            assert schedule.due[row, :size].tolist() == parts.due
            assert schedule.kind[row, :size].tolist() == [int(character in "TF?") for character in text]
            assert (schedule.kind[row, size:] == -1).all(), "padding is not graded"
            columns = zip(text, parts.due, strict=True)
            latest += [due for character, due in columns if character not in "TF?" and due < NEVER]
        assert (schedule.unknown == UNKNOWN).all()
        assert batch.difficulty == (min(20, max(latest)) if latest else QUIET_STEPS)


def test_what_takes_longer_counts_for_more_as_far_as_forty_steps(rng: np.random.Generator) -> None:
    for _ in range(10):
        batch = TASK.sample(rng, 8, 4)
        due = plan(batch).due
        expected = torch.where(due >= NEVER, 1.0, 1.0 + due.clamp(max=40))
        assert torch.equal(batch.weights, expected.float())


def test_atoms_are_blank_in_some_batches_and_all_in_a_few_and_nothing_else_ever_is() -> None:
    rng, shares = np.random.default_rng(8), []
    for _ in range(150):
        batch = TASK.sample(rng, 8, 2)
        joined = "".join(texts(batch.inputs))
        shares.append(joined.count("?") / sum(map(joined.count, "TF?")))
    assert 0.02 < np.mean(np.array(shares) == 1) < 0.2
    assert 0.5 < np.mean(np.array(shares) == 0) < 0.75
    assert 0.1 < np.mean([share for share in shares if 0 < share < 1]) < 0.4


def test_before_an_expression_is_told_all_its_atoms_are_blank(rng: np.random.Generator) -> None:
    for _ in range(10):
        batch = TASK.sample(rng, 8, 3)
        assert batch.earlier is not None
        assert torch.equal(batch.earlier.mask, batch.inputs.mask)
        for told, untold in zip(texts(batch.inputs), texts(batch.earlier), strict=True):
            assert untold == "".join("?" if character in "TF?" else character for character in told)


def test_where_unknown_is_no_answer_every_part_is_graded_alike_and_no_atom(rng: np.random.Generator) -> None:
    assert [spec.label for spec in SETTLED.classes] == ["false", "true"]
    assert [spec.answer for spec in TASK.classes] == [False, True, None]
    for _ in range(20):
        batch = SETTLED.sample(rng, 8, 4)
        assert batch.schedule is None
        assert batch.earlier is None
        assert batch.difficulty <= 4
        assert batch.weights.sum().item() == pytest.approx(1.0, abs=1e-5)
        for row, expression in enumerate(texts(batch.inputs)):
            text, parts = f"({expression})", parts_of(expression)
            weights = batch.weights[row].tolist()
            for place, character in enumerate(text):
                assert (weights[place] > 0) == (character not in "TF")
                assert character in "TF" or batch.labels[row, place] == parts.value[place]
            assert not any(weights[len(text) :]), "padding is not graded"
        given = batch.weights[batch.weights > 0]
        assert given.min() == given.max(), "parts count alike"


def test_training_never_draws_deeper_than_the_curriculum_has_come(rng: np.random.Generator) -> None:
    for task in (TASK, SETTLED):
        for difficulty in (0, 1, 3):
            drawn_ = [texts(task.sample(rng, 8, difficulty).inputs) for _ in range(20)]
            assert max(depth_of(text) for rows in drawn_ for text in rows) == difficulty


def test_training_expressions_are_short_and_wide_ones_a_little_longer(rng: np.random.Generator) -> None:
    plain = LogicTask(anyhow_share=0, longest=30)
    assert max(len(text) for _ in range(20) for text in texts(plain.sample(rng, 8, 4).inputs)) <= 30
    wide = LogicTask(anyhow_share=1, wide_share=1, longest=30)
    lengths = [len(text) for _ in range(20) for text in texts(wide.sample(rng, 8, 6).inputs)]
    assert 60 < max(lengths) <= WIDE


def test_asking_for_the_whole_grades_the_first_bracket_alone(rng: np.random.Generator) -> None:
    batch = LogicTask(ask="whole", unknown=False).sample(rng, 6, 3)
    assert batch.weights.nonzero().tolist() == [[row, 0] for row in range(6)]
    assert batch.labels[:, 0].tolist() == [int(by_python(text)) for text in texts(batch.inputs)]
    for _ in range(10):
        batch = LogicTask(ask="whole").sample(rng, 6, 3)
        assert (plan(batch).kind[:, 0] == 0).all()
        assert (plan(batch).kind[:, 1:] == -1).all()
        assert batch.labels[:, 0].tolist() == [parts_of(text).value[0] for text in texts(batch.inputs)]


def test_a_batch_has_rows_of_about_one_length(rng: np.random.Generator) -> None:
    shares = [TASK.sample(rng, 16, 6).inputs.mask.float().mean().item() for _ in range(12)]
    assert np.mean(shares) > 0.7


@pytest.mark.parametrize("task", [TASK, SETTLED], ids=["with unknown", "settled"])
def test_the_same_numbers_draw_the_same_batches_from_any_point_on(task: LogicTask) -> None:
    """What resuming rests on: nothing is drawn that is not in the generator's state."""
    whole = np.random.default_rng(4)
    first = [task.sample(whole, 4, 3) for _ in range(6)]
    again = np.random.default_rng(4)
    for batch in first:
        later = np.random.default_rng(0)
        later.bit_generator.state = again.bit_generator.state
        for other in (task.sample(again, 4, 3), task.sample(later, 4, 3)):
            assert all(map(torch.equal, batch.inputs, other.inputs))
            assert torch.equal(batch.labels, other.labels)
            assert torch.equal(batch.weights, other.weights)
            if batch.schedule is not None:
                assert torch.equal(batch.schedule.due, plan(other).due)


def test_random_inputs_fill_the_length_and_pad_at_the_end(rng: np.random.Generator) -> None:
    inputs = TASK.random_inputs(rng, 30, 9)
    assert inputs.mask[0].all()
    assert inputs.mask[:, 0].all()
    assert (inputs.mask[:, 1:] <= inputs.mask[:, :-1]).all()
    assert not inputs.tokens[~inputs.mask].any()
    assert (inputs.tokens < BLANK).all(), "nobody sends blanks"


def test_shortcuts_are_measured_and_do_not_solve_deep_problems() -> None:
    said = TASK.heuristics(TASK.problems(np.random.default_rng(7), "paper", 11, 200))
    assert set(said) == {"share of T", "outermost operator"}
    assert 0.5 <= said["share of T"] < 0.75
    assert 0.5 < said["outermost operator"] < 0.95


def test_logic_training_resumes_to_the_same_weights(tmp_path: Path) -> None:
    small = ["network.width=8", "network.heads=2", "network.feed_forward=8", "batch=4", "updates=4"]
    small += ["curriculum.end=2", "curriculum.advance_below=10", "head_updates=2", "device=cpu"]
    quiet = Console(file=io.StringIO())
    fit.train("logic", "default", tmp_path / "whole", None, small, quiet, True)

    config = configure(LOGIC, small)
    run.create(tmp_path / "parts", config, "cpu", 1)
    first = Trainer(config, tmp_path / "parts", World(), "cpu")
    for _ in range(2):
        first.update()
    first.save()
    fit.train("logic", None, None, tmp_path / "parts", [], quiet, True)
    whole, parts = (checkpoint.load(tmp_path / name).tensors for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(tensor, parts[name]) for name, tensor in whole.items())


def test_the_configuration_survives_json_and_knows_its_task() -> None:
    assert from_json(to_json(LOGIC)) == LOGIC
    assert configure(LOGIC, ["task.ask=whole"]).task == LogicTask(ask="whole")
    for name in ("anyhow_share", "frontier_share", "wide_share", "blank_share", "quiet_share"):
        with pytest.raises(ConfigError, match=rf"task: .*{name} is 2"):
            configure(LOGIC, [f"task.{name}=2"])
    with pytest.raises(ConfigError, match="blank_share and quiet_share must be at most 1 together"):
        configure(LOGIC, ["task.blank_share=0.7", "task.quiet_share=0.7"])
    with pytest.raises(ConfigError, match="longest is 0"):
        configure(LOGIC, ["task.longest=0"])
    unread = ["network.reading=0", "network.routing=state", "network.counters=0", "network.echo=false"]
    with pytest.raises(ConfigError, match=r"network\.perception must be characters for logic"):
        configure(LOGIC, [*unread, "network.perception=graph", "network.attention=softmax"])
    with pytest.raises(ConfigError, match="need tokens in a row"):
        configure(LOGIC, ["network.perception=graph"])
    with pytest.raises(ConfigError, match=r"network\.classes must be 3, as many as the task has answers"):
        configure(LOGIC, ["network.classes=2"])
    settled = ["task.unknown=false", "short_share=0", "curriculum.late_share=0"]
    with pytest.raises(ConfigError, match=r"network\.classes must be 2, as many as the task has answers"):
        configure(LOGIC, settled)
    assert configure(LOGIC, [*settled, "network.classes=2"]).network.reading
