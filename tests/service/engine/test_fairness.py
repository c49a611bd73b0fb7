"""Who gets a slot and who steps: nobody waits for the deepest, the widest or the greediest."""

from __future__ import annotations

import numpy as np
import pytest

from model.halting import HaltingRule, HaltReason
from service.engine.engine import Engine, EngineLimits
from service.engine.messages import Finished, Stepped, Submission, Trajectory
from service.runners.runner import View
from tests.service.fakes import FakeObserver, FakeRunner, fake_manifest, plan

FOREVER = 10**6


class Race:
    """An engine whose steps all cost a second a row, and what it has said."""

    def __init__(self, slots: int, quantum: float = 10.0, micro_batch: int = 1, ahead: bool = False) -> None:
        self.runner = FakeRunner(micro_batch, ahead, cost=1.0)
        limits = EngineLimits(slots, quantum_seconds=quantum)
        self.now = 0.0
        self.observer = FakeObserver()
        self.engine = Engine(fake_manifest(), self.runner, limits, self.observer, lambda: self.now)
        self.ends: dict[tuple[Submission, int], Finished] = {}
        self.events: list[tuple[Submission, Finished | Stepped]] = []

    def submit(self, *problems: Trajectory, key: str = "") -> Submission:
        submission = Submission(problems, self.now, key)
        self.engine.submit(submission)
        return submission

    def run(self, steps: int = FOREVER) -> None:
        for _ in range(steps):
            if self.engine.idle:
                return
            self.now += 1
            for owner, event in self.engine.step():
                self.events.append((owner, event))
                if isinstance(event, Finished):
                    self.ends[owner, event.index] = event

    def steps_until(self, submission: Submission) -> int:
        began = self.now
        while (submission, 0) not in self.ends:
            assert self.now - began < 10_000, "it is never answered"
            self.run(1)
        return int(self.now - began)


def hog(problems: int, steps: int = FOREVER, tokens: int = 3) -> tuple[Trajectory, ...]:
    return tuple(Trajectory(plan(1000 + n, tokens=tokens), steps) for n in range(problems))


def test_a_short_request_passes_one_that_holds_every_slot() -> None:
    race = Race(slots=8)
    race.submit(*hog(64))
    race.run(50)
    for name in range(5):
        short = race.submit(Trajectory(plan(name), max_steps=1))
        assert race.steps_until(short) <= 2
    race.run(1)
    assert race.engine.running == 8, "the slots that were lent go back to who had them"


def test_a_short_request_passes_many_requests_that_hold_a_slot_each() -> None:
    race = Race(slots=8, quantum=2.0)
    for problem in hog(64):
        race.submit(problem)
    race.run(200)  # everybody has had a turn
    for name in range(5):
        assert race.steps_until(race.submit(Trajectory(plan(name), max_steps=1))) <= 2


def test_short_batches_do_not_wait_for_long_ones() -> None:
    race = Race(slots=8)
    race.submit(*hog(4, tokens=60))
    race.run(20)
    assert race.steps_until(race.submit(Trajectory(plan(1), max_steps=1))) <= 2


def test_a_deadline_is_kept_while_every_slot_is_taken() -> None:
    race = Race(slots=4)
    waiting = [race.submit(*hog(1, steps=60)) for _ in range(30)]
    race.run(10)
    late = race.submit(Trajectory(plan(1), max_steps=400, deadline=race.now + 5))
    assert race.steps_until(late) <= 10
    assert race.ends[late, 0].reason is HaltReason.DEADLINE
    assert race.ends[late, 0].steps >= 1
    race.run()
    assert all(race.ends[one, 0].steps == 60 for one in waiting)


def test_a_deadline_that_passes_in_mid_thought_is_kept_outside_of_a_slot_too() -> None:
    race = Race(slots=2, quantum=1.0)
    timed = race.submit(Trajectory(plan(1), max_steps=FOREVER, deadline=60.0))
    for problem in hog(10):
        race.submit(problem)
    race.run(70)
    assert race.ends[timed, 0].reason is HaltReason.DEADLINE


def test_keys_share_the_compute_however_many_requests_each_sends() -> None:
    race = Race(slots=8, quantum=4.0)
    for n in range(30):
        race.submit(Trajectory(plan(n), FOREVER), key="greedy")
    race.submit(Trajectory(plan(500), FOREVER), Trajectory(plan(501), FOREVER), key="modest")
    race.run(600)
    modest = sum(name >= 500 for batch in race.runner.batches[100:] for name in batch)
    assert modest / len(race.runner.batches[100:]) == pytest.approx(0.5, abs=0.05)


def test_requests_of_one_key_share_what_it_has() -> None:
    race = Race(slots=4, quantum=4.0)
    race.submit(*(Trajectory(plan(n), FOREVER) for n in range(12)), key="a")
    race.submit(Trajectory(plan(100), FOREVER), key="a")
    race.run(500)
    alone = sum(name == 100 for batch in race.runner.batches[100:] for name in batch)
    assert alone / len(race.runner.batches[100:]) == pytest.approx(0.5, abs=0.06)


def test_nobody_starves_beside_callers_who_always_have_something_short() -> None:
    race = Race(slots=2, quantum=2.0)
    race.submit(Trajectory(plan(1), max_steps=FOREVER))
    short = {name: race.submit(Trajectory(plan(name), max_steps=1)) for name in (2, 3, 4, 5)}
    for _ in range(600):
        race.run(1)
        for name, request in short.items():
            if (request, 0) in race.ends:
                short[name] = race.submit(Trajectory(plan(name), max_steps=1))
    taken = race.runner.batches[-300:]
    assert taken.count([1]) / len(taken) == pytest.approx(1 / 5, abs=0.05)


def test_whoever_yielded_goes_on_where_it_stood_and_ends_as_if_it_had_been_alone() -> None:
    draw = np.random.default_rng(5)
    problems = [
        Trajectory(
            plan(n, halt_at=int(draw.integers(1, 40)), tokens=int(draw.integers(1, 60))),
            max_steps=int(draw.integers(3, 40)),
            rule=HaltingRule("confidence", 0.5, int(draw.integers(1, 4))),
            every_step=bool(draw.random() < 0.3),
            view=View("pooled") if draw.random() < 0.3 else None,
        )
        for n in range(120)
    ]
    alone = [ended(Race(slots=1), [problem]) for problem in problems]
    for ahead in (False, True):
        race = Race(slots=5, quantum=1.0, micro_batch=2, ahead=ahead)
        together = ended(race, problems)
        assert race.observer.yields > 50, "hardly anybody had to yield: the test shows nothing"
        for (one,), many in zip(alone, together, strict=True):
            assert one == many


def ended(race: Race, problems: list[Trajectory]) -> list[list[object]]:
    """Every problem a request of its own: all that was said of each, without times."""
    owners = []
    for problem in problems:
        owners.append(race.submit(problem))
        race.run(2)
    race.run()
    said: dict[Submission, list[object]] = {owner: [] for owner in owners}
    for owner, event in race.events:
        state = None if event.state is None else event.state["state"].tolist()
        assert event.logits is not None
        steps = event.step if isinstance(event, Stepped) else (event.steps, event.reason)
        said[owner].append((steps, event.logits.tolist(), state))
    return [[tuple(said[owner])] for owner in owners]


def test_a_client_that_leaves_while_its_step_is_under_way_leaves_nothing_behind() -> None:
    for ahead in (False, True):
        race = Race(slots=3, micro_batch=4, ahead=ahead)
        gone = race.submit(*hog(5))
        stays = race.submit(Trajectory(plan(1), max_steps=6))
        race.run(3)
        race.engine.cancel(gone)
        race.run()
        assert race.ends[gone, 0].reason is HaltReason.CANCELLED
        assert race.ends[stays, 0].steps == 6
        assert race.runner.rows == {}


def test_a_row_that_cannot_be_seated_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    race = Race(slots=2)
    rule = HaltingRule("confidence", 0.5)
    object.__setattr__(rule, "patience", 2**63)  # what no schema lets through
    bad, good = race.submit(Trajectory(plan(1), 3, rule=rule)), race.submit(Trajectory(plan(2), 3))
    race.run()
    assert race.ends[bad, 0].reason is HaltReason.ERROR
    assert "cannot be seated" in (race.ends[bad, 0].error or "")
    assert race.ends[good, 0].reason is HaltReason.BUDGET
    assert race.engine.slots.free == 2
