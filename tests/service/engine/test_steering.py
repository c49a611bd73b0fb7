"""Stopping, going on and steering in the engine: exact, per row, and without a trace on neighbours."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.bundle import Bundle, read_bundle
from model.codecs import CodecLimits, codec_of
from model.halting import HaltingRule, HaltReason
from model.row import Layout, Row
from service.engine.engine import Engine, EngineLimits
from service.engine.messages import Finished, Stepped, Submission, Thought, Trajectory
from service.engine.steering import Noise, StateChange, Steering
from service.runners.open import open_runner
from service.runners.runner import Runner, View
from tests.service.engine.test_engine import SURE, Bench
from tests.service.fakes import FakeObserver, FakeRunner, fake_manifest, plan
from tests.service.tensor_bundles import GOAL, tokens_bundle

Problems: dict[str, list[Any]] = {
    "graph": [
        {"edges": [[n, n + 1] for n in range(hops)], "source": 0, "target": hops}
        for hops in (1, 3, 6, 11, 30)
    ],
    "logic": [{"expression": text} for text in ("T", "!(T&F)|F", "T & !(F | (T & F))", "!" * 9 + "(T|F)")],
    "text": [
        {
            "facts": [f"P{n} is the parent of P{n + 1}" for n in range(links)],
            "query": f"P0 is the parent of P{links}",
        }
        for links in (1, 4, 9)
    ],
}
RULES = (
    HaltingRule(),
    HaltingRule("latent_diff", 0.2),
    HaltingRule("confidence", 0.9, patience=3),
    HaltingRule("kl", 1e-6, patience=2),
    HaltingRule("agreement", 0.95),
)


@pytest.fixture(
    scope="module", params=[(n, b) for n in Problems for b in ("onnx", "torchscript")], ids="-".join
)
def model(request: pytest.FixtureRequest) -> Iterator[tuple[Bundle, Runner, list[Row]]]:
    name, backend = request.param
    bundle = read_bundle(max((Path("bundles") / name).iterdir()))
    runner = open_runner(bundle, "cpu", backend)
    codec, layout = codec_of(bundle.manifest, CodecLimits()), Layout(bundle.manifest)
    yield bundle, runner, [layout.row(codec.encode(problem, "input")) for problem in Problems[name]]
    runner.close()


def run(bundle: Bundle, runner: Runner, problems: list[Trajectory], slots: int = 8) -> list[Finished]:
    """All problems, each a request of its own; their ends in order."""
    engine = Engine(bundle.manifest, runner, EngineLimits(slots), FakeObserver())
    submissions = [Submission((problem,), time.monotonic()) for problem in problems]
    for submission in submissions:
        engine.submit(submission)
    ends: dict[Submission, Finished] = {}
    for _ in range(100_000):
        ends |= {owner: event for owner, event in engine.step() if isinstance(event, Finished)}
        if engine.idle:
            return [ends[submission] for submission in submissions]
    raise AssertionError("the engine does not come to an end")


def assert_same(one: Finished, other: Finished) -> None:
    assert (one.error, other.error) == (None, None)
    assert (one.steps, one.reason) == (other.steps, other.reason)
    np.testing.assert_array_equal(one.logits, other.logits)
    np.testing.assert_array_equal(one.scores, other.scores)
    assert (one.state is None) == (other.state is None)
    for name, values in (one.state or {}).items():
        np.testing.assert_array_equal(values, (other.state or {})[name])
    assert (one.tally is None) == (other.tally is None)
    if one.tally is not None and other.tally is not None:
        for what in ("steps", "given", "last", "total"):
            np.testing.assert_array_equal(getattr(one.tally, what), getattr(other.tally, what))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.criterion)
def test_going_on_is_bit_for_bit_as_if_one_had_never_stopped(
    model: tuple[Bundle, Runner, list[Row]], rule: HaltingRule
) -> None:
    bundle, runner, rows = model
    # torch may choose another kernel for another number of rows: there each row goes alone.
    slots = 8 if runner.backend == "onnx" else 1
    whole = [Trajectory(row, 32, rule=rule, view=View("full"), tallies=True) for row in rows]
    ends = run(bundle, runner, whole, slots)
    for first in (1, 2, 7):
        parts = run(
            bundle, runner, [replace(each, max_steps=first, keeps=True, view=None) for each in whole], slots
        )
        assert all(part.steps <= first for part in parts)
        further = [
            replace(each, before=part.thought, max_steps=20, keeps=True)
            for each, part in zip(whole, parts, strict=True)
        ]
        middle = run(bundle, runner, further, slots)
        last = [replace(each, before=part.thought) for each, part in zip(whole, middle, strict=True)]
        for one, other, part in zip(ends, run(bundle, runner, last, slots), middle, strict=True):
            assert_same(one, other)
            assert other.taken == one.steps - part.steps
            assert part.taken <= part.steps


def test_a_row_that_halted_stays_halted_under_its_terms_and_thinks_on_under_others(
    model: tuple[Bundle, Runner, list[Row]],
) -> None:
    bundle, runner, rows = model
    problem = Trajectory(rows[1], 32, rule=HaltingRule("latent_diff", 0.5), keeps=True)
    (halted,) = run(bundle, runner, [problem])
    assert halted.reason is HaltReason.HALTED
    assert halted.thought is not None
    (same,) = run(bundle, runner, [replace(problem, before=halted.thought, max_steps=64)])
    assert (same.reason, same.steps, same.taken) == (HaltReason.HALTED, halted.steps, 0)
    (on,) = run(bundle, runner, [replace(problem, before=halted.thought, rule=HaltingRule())])
    assert (on.reason, on.steps, on.taken) == (HaltReason.BUDGET, 32, 32 - halted.steps)
    (straight,) = run(bundle, runner, [Trajectory(rows[1], 32)])
    np.testing.assert_array_equal(on.logits, straight.logits)


def test_what_has_no_step_left_ends_at_once_with_what_it_showed(
    model: tuple[Bundle, Runner, list[Row]],
) -> None:
    bundle, runner, rows = model
    problem = Trajectory(rows[0], 3, keeps=True, view=View("full"))
    (first,) = run(bundle, runner, [problem])
    (again,) = run(bundle, runner, [replace(problem, before=first.thought)])
    assert_same(first, again)
    assert again.taken == 0


def steered(*interventions: StateChange) -> Steering:
    return Steering(tuple(interventions))


def states(bundle: Bundle, runner: Runner, problem: Trajectory) -> list[Any]:
    """The state after each step of one problem."""
    engine = Engine(bundle.manifest, runner, EngineLimits(2), FakeObserver())
    engine.submit(Submission((replace(problem, every_step=True, view=View("full")),), time.monotonic()))
    found: list[Any] = []
    while not engine.idle:
        found += [
            next(iter(e.state.values())) for _, e in engine.step() if isinstance(e, Stepped) and e.state
        ]
    return found


def test_an_intervention_acts_on_its_row_alone_and_the_same_in_any_company(
    model: tuple[Bundle, Runner, list[Row]],
) -> None:
    bundle, runner, rows = model
    if runner.backend != "onnx":
        pytest.skip("torch may choose another kernel for another number of rows")
    plain = [Trajectory(row, 9, view=View("full")) for row in rows]
    changed = [
        replace(
            each,
            steering=steered(
                StateChange(1, "noise", seed=3),
                StateChange(4, "zero", tokens=(0,)),
                StateChange(4, "scale", value=0.5),
            ),
        )
        for each in plain
    ]
    alone = run(bundle, runner, plain, 1)
    alone_changed = run(bundle, runner, changed, 1)
    together = run(bundle, runner, [*plain, *changed], 3)
    for one, other in zip([*alone, *alone_changed], together, strict=True):
        assert_same(one, other)
    for one, other in zip(alone, alone_changed, strict=True):
        assert not np.array_equal(one.logits, other.logits)


def test_nothing_is_changed_before_the_step_that_is_named(model: tuple[Bundle, Runner, list[Row]]) -> None:
    bundle, runner, rows = model
    problem = Trajectory(rows[1], 6)
    clean = states(bundle, runner, problem)
    zeroed = states(bundle, runner, replace(problem, steering=steered(StateChange(4, "zero"))))
    for step in (1, 2, 3):
        np.testing.assert_array_equal(clean[step - 1], zeroed[step - 1])
    assert not np.array_equal(clean[3], zeroed[3])


def test_to_go_on_from_a_stop_and_then_intervene_is_to_intervene_in_one_go(
    model: tuple[Bundle, Runner, list[Row]],
) -> None:
    bundle, runner, rows = model
    whole = Trajectory(rows[1], 12, steering=steered(StateChange(7, "add", value=0.25)), view=View("full"))
    (one,) = run(bundle, runner, [whole], 1)
    (stopped,) = run(bundle, runner, [Trajectory(rows[1], 6, keeps=True)], 1)
    (other,) = run(bundle, runner, [replace(whole, before=stopped.thought)], 1)
    assert_same(one, other)


@pytest.mark.parametrize(
    ("intervention", "expected"),
    [
        (StateChange(3, "zero"), lambda h: 0 * h),
        (StateChange(3, "mean"), lambda h: 0 * h + h.mean(axis=0)),
        (StateChange(3, "scale", value=-2.0), lambda h: -2 * h),
        (StateChange(3, "set", value=0.5), lambda h: 0 * h + 0.5),
        (StateChange(3, "set", value=np.array([1.0, 2.0])), lambda h: 0 * h + [1, 2]),
        (StateChange(3, "add", value=np.array([1.0, -1.0])), lambda h: h + np.array([1, -1])),
        (StateChange(3, "zero", tokens=(1,)), lambda h: h * [[1], [0], [1]]),
        (StateChange(3, "mean", tokens=(0, 2)), lambda h: np.stack([h.mean(axis=0), h[1], h.mean(axis=0)])),
    ],
    ids=lambda case: getattr(case, "op", ""),
)
def test_an_operation_does_what_it_is_defined_to_do(tmp_path: Path, intervention: Any, expected: Any) -> None:
    bundle = tokens_bundle(tmp_path)  # cells = cells * [1/2, 1/4] + bias
    runner = open_runner(bundle, "cpu", "onnx")
    row = Layout(bundle.manifest).row({"x": np.float32([0.5, -1.0, 2.0]), "goal": np.float32(GOAL)})
    problem = Trajectory(row, 3, view=View("full"))
    (before,) = run(bundle, runner, [replace(problem, max_steps=2)])
    (after,) = run(bundle, runner, [replace(problem, steering=steered(intervention))])
    assert before.state is not None
    assert after.state is not None
    should = expected(before.state["cells"]) * [0.5, 0.25] + np.float32([0.5, -1.0, 2.0])[:, None]
    np.testing.assert_allclose(after.state["cells"], should, rtol=1e-6)
    np.testing.assert_array_equal(after.state["total"], before.state["total"] + 1)


def test_noise_has_the_size_that_the_paper_gives_it() -> None:
    state = np.random.default_rng(0).normal(size=(400, 64)).astype(np.float32)
    changed = state.copy()
    StateChange(2, "noise", seed=5).apply(changed)
    sigma = 0.5 * np.linalg.norm(state, axis=-1).mean() / np.sqrt(64)
    assert (changed - state).std() == pytest.approx(sigma, rel=0.02)
    larger = state.copy()
    StateChange(2, "noise", value=1.0, seed=5).apply(larger)
    np.testing.assert_allclose(larger - state, 2 * (changed - state), atol=1e-5)


def test_noise_of_samples_is_relative_to_the_root_mean_square_and_differs_by_seed_sample_and_step() -> None:
    state = np.full((50, 40), 3.0, np.float32)
    drawn = {}
    for seed, sample, step in ((1, 0, 1), (1, 0, 2), (1, 1, 1), (2, 0, 1)):
        changed = state.copy()
        Noise(0.1, seed, sample).apply(changed, step, 0)
        assert (changed - state).std() == pytest.approx(0.3, rel=0.05)
        drawn[changed.tobytes()] = 1
        again = state.copy()
        Noise(0.1, seed, sample).apply(again, step, 0)
        np.testing.assert_array_equal(again, changed)
    assert len(drawn) == 4


def test_a_row_that_cannot_be_steered_fails_alone() -> None:
    bench = Bench()
    bad = bench.submit(Trajectory(plan(1), max_steps=3, steering=steered(StateChange(2, "zero"))))
    good = bench.submit(Trajectory(plan(2), max_steps=3))
    bench.run()  # the fake's carries have no arrays
    assert "state cannot be changed" in (bench.finished(bad)[0].error or "")
    assert bench.finished(good)[0].reason is HaltReason.BUDGET
    assert bench.runner.rows == {}


def test_stopping_ends_who_has_begun_with_an_answer_and_the_others_without_a_step() -> None:
    bench = Bench(slots=2)
    request = bench.submit(*(Trajectory(plan(n), max_steps=50) for n in (1, 2, 3)))
    bench.step(4)
    bench.engine.stop(request)
    bench.run()
    ends = bench.finished(request)
    assert [end.reason for end in ends] == [HaltReason.CANCELLED] * 3
    assert ends[2].steps == 0
    assert ends[2].logits is None
    for end in ends[:2]:
        assert 4 <= end.steps <= 5
        assert end.logits is not None
        assert end.logits.tolist()[1] == end.steps, "the answer is that of the last step"
    assert bench.runner.rows == {}
    assert bench.engine.running == 0


def test_stopping_what_waits_in_mid_thought_gives_its_answer_in_one_step() -> None:
    bench = Bench(slots=1)
    bench.runner.seconds = 1.0  # every row is over its quantum at once
    long = bench.submit(Trajectory(plan(1), max_steps=50))
    bench.step(3)
    bench.submit(Trajectory(plan(2), max_steps=40))
    for _ in range(9):
        bench.step()
        if waiting := bench.engine.waiting.of(long):
            break
    assert waiting[0].carry.depth >= 3, "the first one should have yielded"
    bench.engine.stop(long)
    bench.step(3)
    (end,) = bench.finished(long)
    assert (end.reason, end.steps) == (HaltReason.CANCELLED, waiting[0].carry.depth + 1)
    assert end.logits is not None


def test_a_row_whose_caller_goes_away_after_stopping_it_is_dropped_in_mid_flight() -> None:
    bench = Bench()
    bench.runner.ahead = True
    request = bench.submit(Trajectory(plan(1), max_steps=50, keeps=True))
    bench.step(2)
    bench.engine.stop(request)
    bench.engine.cancel(request)
    bench.run()
    assert [end.reason for end in bench.finished(request)] == [HaltReason.CANCELLED]
    assert bench.runner.rows == {}


def test_what_is_kept_is_never_launched_ahead_of_its_decision() -> None:
    runner = FakeRunner(ahead=True)
    engine = Engine(fake_manifest(), runner, EngineLimits(4), FakeObserver())
    kept = Submission((Trajectory(plan(1, halt_at=5), max_steps=20, rule=SURE, keeps=True),), 0.0)
    other = Submission((Trajectory(plan(2, halt_at=6), max_steps=20, rule=SURE),), 0.0)
    engine.submit(kept)
    engine.submit(other)
    ends: dict[Submission, Finished] = {}
    while not engine.idle:
        ends |= {owner: event for owner, event in engine.step() if isinstance(event, Finished)}
    assert ends[kept].thought is not None
    assert ends[kept].thought.carry.depth == 5
    assert [ends[kept].steps, ends[other].steps] == [5, 6]


def test_a_problem_that_failed_fails_again_when_it_is_gone_on_from() -> None:
    bench = Bench()
    first = bench.submit(Trajectory(plan(1, fail_at=2), max_steps=4, keeps=True))
    bench.run()
    thought = bench.finished(first)[0].thought
    assert isinstance(thought, Thought)
    again = bench.submit(Trajectory(plan(1), max_steps=9, before=thought))
    bench.run()
    (end,) = bench.finished(again)
    assert (end.reason, end.error, end.taken) == (HaltReason.ERROR, "the step failed: row 1 failed", 0)
    assert bench.engine.idle
