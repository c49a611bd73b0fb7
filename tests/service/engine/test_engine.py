"""The engine, with a fake runner whose rows halt and fail where their plans say."""

from __future__ import annotations

import numpy as np
import pytest

from model.halting import HaltingRule, HaltReason
from service.engine.engine import Engine, EngineLimits
from service.engine.messages import Finished, Stepped, Submission, Trajectory
from service.runners.runner import View
from tests.service.fakes import FakeClock, FakeObserver, FakeRunner, fake_manifest, plan

SURE = HaltingRule("confidence", 0.5)


class Bench:
    """An engine on a fake runner and a fake clock, and everything it has said."""

    def __init__(self, slots: int = 4, micro_batch: int = 4) -> None:
        self.clock = FakeClock()
        self.runner = FakeRunner(micro_batch)
        self.observer = FakeObserver()
        limits = EngineLimits(slots)
        self.engine = Engine(fake_manifest(), self.runner, limits, self.observer, self.clock)
        self.events: list[tuple[Submission, Finished | Stepped]] = []

    def submit(self, *problems: Trajectory) -> Submission:
        submission = Submission(problems, self.clock())
        self.engine.submit(submission)
        return submission

    def step(self, steps: int = 1) -> None:
        for _ in range(steps):
            self.events += self.engine.step()

    def run(self) -> None:
        for _ in range(10_000):
            if self.engine.idle:
                return
            self.step()
        raise AssertionError("the engine never became idle")

    def finished(self, submission: Submission) -> list[Finished]:
        found = [event for owner, event in self.events if owner is submission and isinstance(event, Finished)]
        return sorted(found, key=lambda event: event.index)


def test_a_row_without_a_criterion_takes_exactly_its_budget() -> None:
    bench = Bench()
    request = bench.submit(Trajectory(plan(1, halt_at=2), max_steps=5))
    bench.run()
    (done,) = bench.finished(request)
    assert (done.steps, done.reason) == (5, HaltReason.BUDGET)
    assert done.logits is not None
    assert done.logits.tolist() == [1, 5]


def test_rows_of_one_batch_halt_at_their_own_depth_and_the_next_step_runs_without_them() -> None:
    bench = Bench()
    requests = [bench.submit(Trajectory(plan(n, halt_at=n), max_steps=9, rule=SURE)) for n in (1, 2, 3)]
    bench.run()
    assert [bench.finished(request)[0].steps for request in requests] == [1, 2, 3]
    assert bench.runner.batches == [[1, 2, 3], [2, 3], [3]]


def test_a_freed_slot_is_taken_at_the_very_next_step_in_order_of_arrival() -> None:
    bench = Bench(slots=2)
    for name, depth in ((1, 1), (2, 3), (3, 1), (4, 1)):
        bench.submit(Trajectory(plan(name), max_steps=depth))
    bench.run()
    assert bench.runner.admissions == [1, 2, 3, 4]
    assert bench.runner.batches == [[1, 2], [3, 2], [4, 2]]


def test_a_criterion_that_holds_and_a_budget_that_ends_at_the_same_step_count_as_halted() -> None:
    bench = Bench()
    request = bench.submit(Trajectory(plan(1, halt_at=4), max_steps=4, rule=SURE))
    bench.run()
    assert bench.finished(request)[0].reason is HaltReason.HALTED


def test_halting_is_not_considered_before_min_steps() -> None:
    bench = Bench()
    request = bench.submit(Trajectory(plan(1, halt_at=1), max_steps=9, min_steps=6, rule=SURE))
    bench.run()
    assert (bench.finished(request)[0].steps, bench.finished(request)[0].reason) == (6, HaltReason.HALTED)


def test_patience_asks_the_criterion_to_hold_for_steps_running() -> None:
    bench = Bench()
    request = bench.submit(
        Trajectory(plan(1, halt_at=3), max_steps=9, rule=HaltingRule("confidence", 0.5, patience=3))
    )
    bench.run()
    assert bench.finished(request)[0].steps == 5


def test_a_score_that_is_not_a_number_never_halts_a_row() -> None:
    bench = Bench()
    request = bench.submit(Trajectory(plan(1), max_steps=4, rule=HaltingRule("entropy", 10.0)))
    bench.run()
    assert (bench.finished(request)[0].steps, bench.finished(request)[0].reason) == (4, HaltReason.BUDGET)


def test_a_deadline_gives_the_best_answer_so_far() -> None:
    bench = Bench()
    request = bench.submit(Trajectory(plan(1), max_steps=100, deadline=10.0))
    bench.step(3)
    bench.clock.now = 10.0
    bench.step()
    (done,) = bench.finished(request)
    assert (done.steps, done.reason) == (4, HaltReason.DEADLINE)
    assert done.logits is not None


def test_at_least_one_step_is_taken_however_late_it_is() -> None:
    bench = Bench()
    request = bench.submit(Trajectory(plan(1), max_steps=100, deadline=-1.0))
    bench.run()
    assert (bench.finished(request)[0].steps, bench.finished(request)[0].reason) == (1, HaltReason.DEADLINE)


def test_a_waiting_row_whose_deadline_passes_goes_before_the_line() -> None:
    bench = Bench(slots=1)
    bench.submit(Trajectory(plan(1), max_steps=2))
    bench.submit(Trajectory(plan(2), max_steps=2))
    bench.submit(Trajectory(plan(3), max_steps=2, deadline=5.0))
    bench.step()
    bench.clock.now = 6.0
    bench.run()
    assert bench.runner.admissions == [1, 3, 2]


def test_cancelling_frees_slots_and_queue_at_the_next_step_and_disturbs_nobody() -> None:
    bench = Bench(slots=3)
    gone = bench.submit(*(Trajectory(plan(n), max_steps=50) for n in (1, 2, 3)))
    stays = bench.submit(Trajectory(plan(4), max_steps=4))
    bench.step(2)
    bench.engine.cancel(gone)
    bench.step()
    assert [event.reason for event in bench.finished(gone)] == [HaltReason.CANCELLED] * 3
    assert [event.steps for event in bench.finished(gone)] == [2, 2, 0]
    assert bench.runner.batches[-1] == [4]
    bench.run()
    assert bench.finished(stays)[0].reason is HaltReason.BUDGET
    assert bench.engine.running == 0
    assert bench.runner.rows == {}


def test_cancelling_what_has_finished_changes_nothing() -> None:
    bench = Bench()
    request = bench.submit(Trajectory(plan(1), max_steps=1))
    bench.run()
    bench.engine.cancel(request)
    bench.run()
    assert len(bench.finished(request)) == 1


def test_a_failing_batch_fails_its_rows_alone_and_says_so() -> None:
    bench = Bench(slots=4, micro_batch=2)
    requests = [
        bench.submit(Trajectory(plan(n, fail_at=2 if n == 1 else 99), max_steps=3)) for n in (1, 2, 3, 4)
    ]
    bench.run()
    ends = [bench.finished(request)[0] for request in requests]
    assert [end.reason for end in ends] == [HaltReason.ERROR] * 2 + [HaltReason.BUDGET] * 2
    assert ends[0].error == "the step failed: row 1 failed"
    assert bench.runner.rows == {}


def test_a_row_that_cannot_be_embedded_gives_its_slot_back() -> None:
    bench = Bench(slots=1)
    bad = bench.submit(Trajectory(plan(1, fail_at=0), max_steps=3))
    good = bench.submit(Trajectory(plan(2), max_steps=3))
    bench.run()
    assert "cannot be embedded" in (bench.finished(bad)[0].error or "")
    assert bench.finished(good)[0].reason is HaltReason.BUDGET


def test_a_readout_that_is_not_finite_fails_its_row_and_not_its_neighbour() -> None:
    bench = Bench()
    bad = bench.submit(Trajectory(plan(1, nan_at=2), max_steps=3))
    good = bench.submit(Trajectory(plan(2), max_steps=3))
    bench.run()
    assert bench.finished(bad)[0].reason is HaltReason.ERROR
    assert bench.finished(good)[0].reason is HaltReason.BUDGET


def test_every_step_is_told_to_who_asked_and_the_last_one_comes_before_the_end() -> None:
    bench = Bench()
    request = bench.submit(Trajectory(plan(7), max_steps=3, every_step=True, view=View("full")))
    quiet = bench.submit(Trajectory(plan(8), max_steps=3))
    bench.run()
    told = [event for owner, event in bench.events if owner is request]
    assert [event.step for event in told[:-1] if isinstance(event, Stepped)] == [1, 2, 3]
    assert isinstance(told[-1], Finished)
    for event in told:
        assert event.state is not None
        assert event.state["state"].shape == (3, 2)
    assert [type(event) for owner, event in bench.events if owner is quiet] == [Finished]


def test_only_rows_of_like_length_share_a_batch() -> None:
    bench = Bench(slots=4)
    for name, tokens in ((1, 3), (2, 40), (3, 5), (4, 33)):
        bench.submit(Trajectory(plan(name, tokens=tokens), max_steps=1))
    bench.run()
    assert sorted(bench.runner.batches) == [[1, 3], [2, 4]]


def test_a_row_ends_the_same_alone_and_in_any_company() -> None:
    draw = np.random.default_rng(0)
    problems = [
        Trajectory(
            plan(n, halt_at=int(draw.integers(1, 20)), tokens=int(draw.integers(1, 60))),
            max_steps=int(draw.integers(3, 16)),
            min_steps=int(draw.integers(1, 4)),
            rule=HaltingRule("confidence", 0.5, int(draw.integers(1, 3)))
            if draw.random() < 0.8
            else HaltingRule(),
        )
        for n in range(300)
    ]
    alone = []
    for problem in problems:
        bench = Bench()
        request = bench.submit(problem)
        bench.run()
        alone.append(bench.finished(request)[0])
    bench = Bench(slots=7, micro_batch=3)
    requests = []
    for problem in problems:
        requests.append(bench.submit(problem))
        bench.step(int(draw.integers(0, 3)))
    bench.run()
    for one, request in zip(alone, requests, strict=True):
        (many,) = bench.finished(request)
        assert (one.steps, one.reason) == (many.steps, many.reason)
        assert one.logits is not None
        assert many.logits is not None
        assert one.logits.tolist() == many.logits.tolist()


def test_the_queue_weighs_steps_and_forgets_what_left() -> None:
    bench = Bench(slots=1)
    bench.submit(Trajectory(plan(1), max_steps=10), Trajectory(plan(2), max_steps=20))
    third = bench.submit(Trajectory(plan(3), max_steps=30))
    assert bench.engine.waiting.steps == 60
    bench.step()
    assert bench.engine.waiting.steps == 50
    bench.engine.cancel(third)
    bench.step()
    assert (bench.engine.waiting.steps, len(bench.engine.waiting)) == (20, 1)
    bench.run()
    assert (bench.engine.waiting.steps, len(bench.engine.waiting)) == (0, 0)


def test_the_observer_hears_of_every_step_and_every_end() -> None:
    bench = Bench()
    bench.submit(Trajectory(plan(1), max_steps=2), Trajectory(plan(2), max_steps=3))
    bench.run()
    assert bench.observer.rows == [2, 2, 1]
    assert bench.observer.reasons == [HaltReason.BUDGET] * 2
    assert bench.observer.loads[-1] == (0, 0)


@pytest.mark.parametrize("steps", [(0, 1), (5, 4)])
def test_a_problem_with_an_impossible_budget_is_refused(steps: tuple[int, int]) -> None:
    low, high = steps
    with pytest.raises(ValueError, match="min_steps"):
        Trajectory(plan(1), max_steps=high, min_steps=low)
