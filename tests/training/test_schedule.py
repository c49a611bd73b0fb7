"""What is graded when: due, not yet, never; late batches; and a loss that its slices add up to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from model.network.perception import Context, SequenceInputs
from model.network.recurrent import RecurrentTransformer, last
from training.config import TrainConfig, configure
from training.parallel import World
from training.recipes import LOGIC, WORDS
from training.task import NEVER, Batch, Schedule
from training.trainer import Trainer
from training.unroll import Rollout, Unrolled

SMALL = [
    "network.width=16",
    "network.heads=2",
    "network.feed_forward=16",
    "network.reading=16",
    "batch=6",
    "curriculum.start=2",
    "curriculum.end=2",
    "device=cpu",
]
UNREST = 0.3


def small(config: TrainConfig, *more: str) -> TrainConfig:
    return configure(config, [*SMALL, *more])


BOTH = pytest.mark.parametrize("config", [small(LOGIC), small(WORDS)], ids=["characters", "sentences"])


def asked(*questions: tuple[int, int, int, float]) -> Batch:
    """One row of questions: earliest, due, kind and weight of each; every label is 1, unknown is 2."""
    earliest, due, kind, weights = (torch.tensor([column]) for column in zip(*questions, strict=True))
    inputs = SequenceInputs(torch.zeros_like(due), torch.ones_like(due, dtype=torch.bool))
    schedule = Schedule(earliest, due, kind, ((1.0, 0.5, 0.25), (0.1, 0.2, 0.3)), torch.full_like(due, 2))
    return Batch(inputs, torch.ones_like(due), weights.float(), 9, schedule)


def sampled(config: TrainConfig, seed: int = 3, special: bool = False) -> Batch:
    """A batch of the task's; one of which something can come late unless said otherwise."""
    rng = np.random.default_rng(seed)
    while True:
        batch = config.task.sample(rng, config.batch, 2)
        if special or (batch.earlier and bool((batch.earlier.tokens != batch.inputs.tokens).any())):
            return batch


def test_a_question_counts_when_it_is_due_and_as_unknown_while_nothing_can_be_known() -> None:
    batch = asked(
        (1, 3, 0, 2.0),  # due, twice as heavy as
        (4, 4, 0, 1.0),  # another one that is due from this step on
        (5, 9, 0, 5.0),  # not yet
        (2, 7, 0, 5.0),  # may be known, need not
        (NEVER, NEVER, 0, 1.0),
        (NEVER, NEVER, 0, 3.0),
        (0, 0, 1, 7.0),  # due, of another kind
        (9, 9, 1, 7.0),  # not yet
        (0, 0, -1, 7.0),  # not asked
    ).at(4)
    expected = [2 / 3, 1 / 3, 0.5, 0, 0.25 / 4, 0.75 / 4, 0.1, 0.2, 0]
    torch.testing.assert_close(batch.weights, torch.tensor([expected]))
    assert batch.labels.tolist()[0][:3] == [1, 1, 2]
    assert batch.labels.tolist()[0][4:8] == [2, 2, 1, 2]
    assert batch.watched is not None
    torch.testing.assert_close(batch.watched, torch.tensor([[2 / 3, 1 / 3, *[0.0] * 7]]))
    assert batch.schedule is None, "it has been settled"
    assert batch.at(1) is batch


def test_before_anything_is_due_the_curriculum_watches_nothing() -> None:
    batch = asked((1, 3, 0, 1.0), (NEVER, NEVER, 0, 1.0), (0, 0, 1, 1.0)).at(0)
    assert batch.watched is not None
    assert not batch.watched.any()
    torch.testing.assert_close(batch.weights, torch.tensor([[0.5, 0.25, 0.1]]))
    assert batch.labels.tolist() == [[2, 2, 1]]


def test_an_answer_that_may_have_arrived_is_not_graded_until_it_is_due() -> None:
    weights = [float(asked((3, 6, 0, 1.0)).at(steps).weights) for steps in range(9)]
    assert weights == [0.5] * 3 + [0.0] * 3 + [1.0] * 3


def test_what_is_graded_is_settled_before_rows_are_taken() -> None:
    batch = asked((1, 3, 0, 1.0))
    with pytest.raises(AssertionError, match="settled"):
        batch.rows(slice(0, 1))


@BOTH
def test_every_share_of_the_loss_is_given_out_whole(config: TrainConfig) -> None:
    for seed in range(20):
        batch = sampled(config, seed, special=True)
        schedule = batch.schedule
        assert schedule is not None
        for steps in (0, 1, 3, 7):
            now = batch.at(steps)
            states = (steps >= schedule.due, steps < schedule.earliest, schedule.due >= NEVER)
            for kind, shares in enumerate(schedule.shares):
                here = schedule.kind == kind
                parts = (here & states[0], here & states[1] & ~states[2], here & states[2])
                for share, part in zip(shares, parts, strict=True):
                    assert float(now.weights[part].sum()) == pytest.approx(
                        share if part.any() else 0, abs=1e-4
                    )
            assert (now.labels[~states[0]] == schedule.unknown[~states[0]]).all()
            assert torch.equal(now.labels[states[0]], batch.labels[states[0]])
            assert now.watched is not None
            due = (schedule.kind == 0) & states[0]
            assert float(now.watched.sum()) == pytest.approx(1.0 if due.any() else 0.0, abs=1e-4)
            assert not now.watched[~due].any()


@BOTH
@pytest.mark.parametrize("late", [False, True], ids=["told", "late"])
def test_the_shares_of_slices_of_rows_add_up_to_the_loss(config: TrainConfig, late: bool) -> None:
    torch.manual_seed(0)
    network = RecurrentTransformer(config.network)
    batch = sampled(config)
    batch = replace(batch.at(4), earlier=batch.earlier if late else None)

    def share(rows: slice) -> tuple[Tensor, Tensor]:
        noise = torch.Generator().manual_seed(5)
        rollout = Rollout(3, 4, 0.3, rows, UNREST)
        loss, final = Unrolled(network, config.task, noise)(batch.rows(rows), config.batch, rollout)
        return loss, final

    whole = share(slice(0, config.batch))
    parts = [share(rows) for rows in (slice(0, 1), slice(1, 4), slice(4, config.batch))]
    for place in (0, 1):
        total = torch.stack([part[place] for part in parts]).sum()
        torch.testing.assert_close(total, whole[place], atol=1e-5, rtol=1e-4)
    assert network.reader is not None
    assert whole[0] > UNREST * network.reader.unrest() + 0.1, "there is a loss beside the unrest"


class Recorder:
    """A task that remembers the state it is asked about, and says nothing."""

    state: Tensor

    def logits(self, network: RecurrentTransformer, state: Tensor, context: Context) -> Tensor:
        self.state = state
        return torch.zeros(*state.shape[:2], 3)


@BOTH
@torch.no_grad()
def test_a_late_batch_puts_back_what_was_hidden_and_nothing_else(config: TrainConfig) -> None:
    torch.manual_seed(0)
    network, batch, recorder = RecurrentTransformer(config.network), sampled(config), Recorder()
    assert batch.earlier is not None
    tokens = batch.inputs.tokens
    one = Batch(batch.inputs, torch.zeros_like(tokens), torch.ones(tokens.shape), 2, earlier=batch.earlier)
    unrolled = Unrolled(network, recorder, torch.Generator())  # type: ignore[arg-type]
    unrolled(one, config.batch, Rollout(3, 0, 0.0, slice(0, config.batch)))

    known, start = network.embed(batch.earlier)
    waited = last(network.walk(start, known, batch.earlier.mask, 3))
    given = network.embed(batch.inputs)[1]
    hidden = tokens != batch.earlier.tokens
    assert not hidden.all()
    assert torch.equal(recorder.state[hidden], given[hidden])
    assert torch.equal(recorder.state[~hidden], waited[~hidden])
    assert not torch.isclose(waited, given)[~hidden].all(), "the others have waited"


def drawn(config: TrainConfig, folder: Path) -> Iterator[tuple[Batch, Batch, Rollout]]:
    """Batches as the task draws them, as the trainer grades them, and how they are thought about."""
    trainer = Trainer(config, folder, World(), "cpu")
    trainer.curriculum.burn_in = 20
    for seed in range(30):
        trainer.numbers = np.random.default_rng(seed)
        raw = config.task.sample(np.random.default_rng(seed), config.batch, 2)
        yield raw, *trainer.draw()


@BOTH
@pytest.mark.parametrize("late_share", [0, 1])
def test_a_late_batch_is_graded_by_the_steps_since_it_was_told(
    config: TrainConfig, late_share: int, tmp_path: Path
) -> None:
    config = configure(config, [f"curriculum.late_share={late_share}", "short_share=0"])
    late = 0
    for raw, batch, rollout in drawn(config, tmp_path):
        assert (batch.earlier is not None) == (
            late_share == 1 and raw.earlier is not None and rollout.burn_in > 0
        )
        late += batch.earlier is not None
        known_for = rollout.steps if batch.earlier is not None else rollout.steps + rollout.burn_in
        assert (
            config.steps(raw.difficulty) <= rollout.steps <= config.steps(raw.difficulty) + config.extra_steps
        )
        expected = raw.at(known_for)
        assert torch.equal(batch.labels, expected.labels)
        assert torch.equal(batch.weights, expected.weights)
        assert batch.watched is not None
        assert expected.watched is not None
        assert torch.equal(batch.watched, expected.watched)
    assert (late > 15) == (late_share == 1)


@BOTH
def test_a_short_batch_ends_before_all_is_due_and_is_not_what_the_curriculum_goes_by(
    config: TrainConfig, tmp_path: Path
) -> None:
    config = configure(config, ["short_share=1", "curriculum.late_share=0"])
    steps = set()
    for raw, batch, rollout in drawn(config, tmp_path):
        assert 1 <= rollout.steps <= max(1, config.steps(raw.difficulty))
        steps.add(rollout.steps)
        assert batch.watched is not None
        assert not batch.watched.any()
        assert torch.equal(batch.weights, raw.at(rollout.steps + rollout.burn_in).weights)
    assert len(steps) >= 3


def test_a_batch_that_shows_nothing_of_the_answer_leaves_the_curriculum_as_it_is(tmp_path: Path) -> None:
    for share, moved in ((1, False), (0, True)):
        words = [
            "curriculum.late_share=0",
            f"short_share={share}",
            "task.quiet_share=0",
            "task.blank_share=0",
        ]
        trainer = Trainer(small(LOGIC, *words), tmp_path, World(), "cpu")
        before = trainer.curriculum.loss
        trainer.update()
        assert (trainer.curriculum.loss != before) == moved


def test_what_a_token_is_may_be_learned_faster_and_does_not_decay(tmp_path: Path) -> None:
    trainer = Trainer(small(LOGIC, "token_rate=4", "weight_decay=0.1"), tmp_path, World(), "cpu")
    reader = trainer.network.reader
    assert reader is not None
    assert reader.counters is not None
    others, tokens = trainer.optimizer.param_groups
    assert list(map(id, tokens["params"])) == [id(reader.embedding.weight), id(reader.counters.moves.weight)]
    assert tokens["weight_decay"] == 0
    assert others["weight_decay"] == 0.1
    assert len(others["params"]) + 2 == len(list(trainer.network.parameters()))
    trainer.update()
    assert tokens["lr"] == pytest.approx(4 * others["lr"])
    (plain,) = Trainer(
        configure(TrainConfig(), ["device=cpu"]), tmp_path, World(), "cpu"
    ).optimizer.param_groups
    assert plain["weight_decay"] == TrainConfig().weight_decay


def test_counters_are_kept_quiet_in_earnest_only_after_a_while(tmp_path: Path) -> None:
    trainer = Trainer(small(LOGIC, "unrest=0.5", "unrest_from=100"), tmp_path, World(), "cpu")
    weights = []
    for trainer.updates in (0, 100, 250, 370, 900):
        weights.append(trainer.draw()[1].unrest)
    assert weights == pytest.approx([0.05, 0.05, 0.3, 0.5, 0.5])
