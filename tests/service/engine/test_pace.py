"""Looking ahead is measured in virtual time, on a device that works while the host decides."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from service.engine.engine import Engine, EngineLimits
from service.engine.messages import Submission, Trajectory
from service.engine.pace import LONG_STEP, ahead_pays
from service.errors import StartupError
from service.runners.runner import Batch, Course, Flight, Landing
from tests.service.fakes import FakeClock, FakeObserver, FakeRunner, fake_manifest, plan

SLOTS = 4


class TimedRunner(FakeRunner):
    """A device that takes `step` seconds for what it is given, and a host that takes `host` to give it."""

    def __init__(self, clock: FakeClock, step: float, host: float, lag: float = 0.0) -> None:
        super().__init__(SLOTS, ahead=True)
        self.clock, self.step, self.host, self.lag = clock, step, host, lag
        self.done: list[float] = []

    def launch(
        self, batch: Batch, shown: Sequence[int], lean: bool = False, course: Course | None = None
    ) -> Flight:
        self.clock.now += self.host + (self.lag if self.ahead else 0)
        began = max(self.clock.now, self.done[-1] if self.done else 0.0)
        self.done.append(began + self.step)
        return super().launch(batch, shown, lean, course)

    def land(self) -> list[Landing]:
        landings = super().land()
        self.clock.now = max(self.clock.now, self.done[landings[-1].flight - 1])
        return landings


def pays(step: float, host: float, lag: float = 0.0) -> bool:
    clock = FakeClock()
    runner = TimedRunner(clock, step, host, lag)
    verdict = ahead_pays(fake_manifest(), runner, EngineLimits(SLOTS), plan(1), clock)
    assert runner.ahead, "it is left as it was"
    assert not runner.rows, "nobody is left behind"
    return verdict


def test_a_host_that_takes_as_long_as_the_device_is_hidden_behind_it() -> None:
    assert pays(step=100e-6, host=100e-6)


def test_what_is_hidden_must_be_worth_the_step_that_is_computed_in_vain() -> None:
    in_vain = 1 / fake_manifest().steps.default
    assert not pays(step=1e-3, host=1e-3 * in_vain * 0.5)
    assert pays(step=1e-3, host=1e-3 * in_vain * 2)


def test_where_two_under_way_are_slower_one_is() -> None:
    assert not pays(step=100e-6, host=50e-6, lag=200e-6)


def test_beside_a_long_step_the_host_does_not_matter() -> None:
    clock = FakeClock()
    runner = TimedRunner(clock, step=2 * LONG_STEP, host=LONG_STEP)
    assert not ahead_pays(fake_manifest(), runner, EngineLimits(SLOTS), plan(1), clock)
    assert len(runner.batches) == 2, "nor is it measured for long"


def test_a_model_that_cannot_take_these_steps_says_so() -> None:
    runner = TimedRunner(FakeClock(), step=1e-3, host=1e-3)
    with pytest.raises(StartupError, match=r"fake cannot take a step: .*row 1 failed"):
        ahead_pays(fake_manifest(), runner, EngineLimits(SLOTS), plan(1, fail_at=1))


def test_two_steps_of_a_row_are_under_way_and_no_more() -> None:
    for ahead in (False, True):
        clock = FakeClock()
        runner = TimedRunner(clock, step=1.0, host=0.0)
        runner.ahead = ahead
        engine = Engine(fake_manifest(), runner, EngineLimits(SLOTS), FakeObserver(), clock)
        engine.submit(Submission((Trajectory(plan(1), max_steps=6), Trajectory(plan(2), max_steps=4)), 0.0))
        under_way = []
        while not engine.idle:
            engine.step()
            under_way.append(len(runner._flights))
        assert max(under_way) == int(ahead), "of the two one has landed"
        assert [len(batch) for batch in runner.batches] == [2, 2, 2, 2, 1, 1], "none is past its budget"


def test_who_should_make_room_is_not_launched_ahead_and_yields_in_time() -> None:
    clock = FakeClock()
    runner = TimedRunner(clock, step=1.0, host=0.0)
    runner.seconds = 1.0
    engine = Engine(fake_manifest(), runner, EngineLimits(1, quantum_seconds=2.0), FakeObserver(), clock)
    long, short = (Submission((Trajectory(plan(name), steps),), 0.0) for name, steps in ((1, 40), (2, 1)))
    engine.submit(long)
    ends = [owner for _ in range(5) for owner, _ in engine.step()]
    engine.submit(short)
    ends += [owner for _ in range(10) for owner, _ in engine.step()]
    assert ends == [short], "forty steps later would be late"
