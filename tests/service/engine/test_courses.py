"""Courses: several steps in one launch, of which nobody who asks can tell that they were not single ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model.halting import HaltingRule, HaltReason
from service.engine.engine import Engine, EngineLimits
from service.engine.messages import Finished, Stepped, Submission, Trajectory
from service.engine.steering import StateChange, Steering
from service.runners.runner import COURSE_SECONDS, View
from tests.service.fakes import FakeClock, FakeObserver, FakeRunner, fake_manifest, plan

SURE = HaltingRule("confidence", 0.5)
LONG = 40


class Bench:
    """An engine whose runner takes courses, and everything it has said."""

    def __init__(self, bursts: bool = True, slots: int = 4, micro_batch: int = 4, cost: float = 0.0) -> None:
        self.clock = FakeClock()
        self.runner = FakeRunner(micro_batch, cost=cost, bursts=bursts)
        self.observer = FakeObserver()
        self.engine = Engine(fake_manifest(), self.runner, EngineLimits(slots), self.observer, self.clock)
        self.events: list[tuple[Submission, Finished | Stepped]] = []
        self.launches = 0

    def submit(self, *problems: Trajectory, key: str = "") -> Submission:
        submission = Submission(problems, self.clock(), key)
        self.engine.submit(submission)
        return submission

    def step(self) -> None:
        self.launches += 1
        self.events += self.engine.step()

    def run(self) -> None:
        while not self.engine.idle:
            assert self.launches < 10_000, "the engine never becomes idle"
            self.step()

    def ends(self, submission: Submission) -> list[tuple[int, HaltReason, str | None, list[float] | None]]:
        """What its problems ended with, in order."""
        found = [event for owner, event in self.events if owner is submission and isinstance(event, Finished)]
        return [
            (end.steps, end.reason, end.error, None if end.logits is None else end.logits.tolist())
            for end in sorted(found, key=lambda end: end.index)
        ]


def mixed(draw: np.random.Generator) -> list[Trajectory]:
    """Rows that halt, run out of steps, turn into no number, or fail, in batches of two lengths."""
    return [
        Trajectory(
            plan(
                name,
                halt_at=int(draw.integers(1, LONG)),
                nan_at=int(draw.integers(1, LONG)) if name % 5 == 0 else LONG,
                fail_at=int(draw.integers(1, LONG)) if name % 11 == 0 else LONG,
                tokens=int(draw.choice([3, 12])),
            ),
            max_steps=int(draw.integers(1, LONG)),
            rule=replace(SURE, patience=int(draw.integers(1, 4))) if name % 2 else HaltingRule(),
        )
        for name in range(1, 30)
    ]


@pytest.mark.parametrize("seed", range(10))
def test_every_row_ends_as_with_single_steps_and_alone(seed: int) -> None:
    problems = mixed(np.random.default_rng(seed))
    for problem in problems:
        alone = []
        for bursts in (False, True):
            bench = Bench(bursts)
            request = bench.submit(problem)
            bench.run()
            alone.append((bench.ends(request), bench.engine.steps))
        assert alone[0] == alone[1]
    fails = [problem for problem in problems if problem.row.tensors["plan"][2] < LONG]
    sound = [problem for problem in problems if problem not in fails]  # a step that fails fails its batch
    benches = Bench(False), Bench(True)
    single, course = ([bench.submit(problem) for problem in sound] for bench in benches)
    for bench in benches:
        bench.run()
    assert list(map(benches[0].ends, single)) == list(map(benches[1].ends, course))
    assert benches[1].launches < 0.9 * benches[0].launches
    assert benches[0].engine.steps == benches[1].engine.steps
    assert sum(benches[0].observer.rows) == sum(benches[1].observer.rows)


def test_a_row_that_nobody_watches_takes_all_of_its_steps_in_one_launch() -> None:
    bench = Bench()
    request = bench.submit(Trajectory(plan(1), LONG, view=View("full")))
    bench.step()
    assert bench.ends(request) == [(LONG, HaltReason.BUDGET, None, [1.0, LONG])]
    ((_, end),) = bench.events
    assert end.state is not None
    assert (end.state["state"] == LONG).all(), "what is shown of its state is that after the last step"


def test_what_is_no_number_fails_alone_and_its_neighbours_go_on() -> None:
    bench = Bench()
    request = bench.submit(Trajectory(plan(1, nan_at=7), LONG), Trajectory(plan(2), LONG))
    bench.run()
    broken, sound = bench.ends(request)
    assert broken == (6, HaltReason.ERROR, "the model's readout is not finite", None)
    assert sound == (LONG, HaltReason.BUDGET, None, [2.0, LONG])


def test_a_step_that_fails_counts_those_before_it() -> None:
    bench = Bench()
    request = bench.submit(Trajectory(plan(1, fail_at=9), LONG))
    bench.run()
    ((steps, reason, error, _),) = bench.ends(request)
    assert (steps, reason, error) == (8, HaltReason.ERROR, "the step failed: row 1 failed")
    assert bench.engine.steps == 8


def test_whoever_follows_every_step_is_told_of_every_step() -> None:
    bench = Bench()
    request = bench.submit(
        Trajectory(plan(1), 9, every_step=True), Trajectory(plan(2), 9, tallies=True), Trajectory(plan(3), 9)
    )
    bench.run()
    told = [event.step for owner, event in bench.events if owner is request and isinstance(event, Stepped)]
    assert told == list(range(1, 10))
    tallied = next(event for _, event in bench.events if isinstance(event, Finished) and event.index == 1)
    assert tallied.tally is not None
    assert tallied.tally.steps == 9


def test_a_state_is_changed_before_its_step_and_not_within_a_course() -> None:
    bench = Bench()
    seen: list[int] = []

    class Watching(Steering):
        def applied(self, carry, step, layout):  # type: ignore[no-untyped-def]
            seen.append(carry.depth)
            return carry

    steering = Watching((StateChange(4, "zero"), StateChange(11, "zero")))
    request = bench.submit(Trajectory(plan(1), 20, steering=steering), Trajectory(plan(2), 20))
    bench.run()
    assert seen == [3, 10]
    assert [end[0] for end in bench.ends(request)] == [20, 20]
    assert bench.launches == 3


def test_a_deadline_that_is_near_is_looked_at_after_every_step() -> None:
    bench = Bench()
    near = bench.submit(Trajectory(plan(1), LONG, deadline=COURSE_SECONDS / 2))
    bench.step()
    bench.step()
    bench.clock.now = COURSE_SECONDS
    bench.step()
    assert bench.ends(near) == [(3, HaltReason.DEADLINE, None, [1.0, 3.0])]
    bench.submit(Trajectory(plan(2), LONG, deadline=bench.clock.now + 2 * COURSE_SECONDS))
    bench.step()
    assert bench.engine.idle, "one that is far off may take a course"


def test_a_call_ends_a_course_after_the_step_and_what_it_was_for_comes_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench()
    first = bench.submit(Trajectory(plan(1), LONG))
    monkeypatch.setattr(bench.runner, "wanted", lambda: True)
    bench.step()
    assert bench.runner.batches == [[1]]
    second = bench.submit(Trajectory(plan(2), 2))
    bench.step()
    assert bench.runner.batches == [[1], [1, 2]]
    bench.engine.cancel(second)
    bench.engine.stop(first)
    monkeypatch.undo()
    bench.step()
    assert bench.ends(second) == [(1, HaltReason.CANCELLED, None, None)]
    assert bench.ends(first) == [(3, HaltReason.CANCELLED, None, [1.0, 3.0])], "one step, and no course"


def test_who_is_kept_goes_on_from_where_a_course_has_ended() -> None:
    bench = Bench()
    bench.submit(Trajectory(plan(1), 12, keeps=True))
    bench.run()
    ((_, end),) = bench.events
    assert isinstance(end, Finished)
    assert end.thought is not None
    assert end.thought.carry.depth == 12
    bench.events.clear()
    again = bench.submit(Trajectory(plan(1), 20, before=end.thought))
    bench.run()
    assert bench.ends(again) == [(20, HaltReason.BUDGET, None, [1.0, 20.0])]


def test_courses_are_paid_for_and_two_keys_have_the_same_share_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(slots=2, micro_batch=1, cost=1e-3)
    counts = iter([False, False, False, False, True] * LONG)  # five steps each
    monkeypatch.setattr(bench.runner, "wanted", lambda: next(counts))
    bench.submit(Trajectory(plan(1), 10 * LONG), key="a")
    bench.submit(Trajectory(plan(2), 10 * LONG), key="b")
    monkeypatch.setattr(FakeRunner, "room", 1)
    for _ in range(20):
        bench.step()
    taken = [batch[0] for batch in bench.runner.batches]
    assert abs(taken.count(1) - taken.count(2)) <= 5
    assert bench.engine.steps == len(taken) == sum(bench.observer.rows)
