"""How long a request may have to wait: by what rows cost, and by how deep they turn out to go."""

from __future__ import annotations

import pytest

from model.halting import HaltingRule, HaltReason
from service.engine.admission import LEAST_PART, Depths, refuse_if_full, weight_of
from service.engine.messages import Finished, Submission, Trajectory
from service.engine.ticket import Budget, Ticket
from service.errors import Overloaded
from service.runners.costs import Costs
from tests.service.fakes import plan

SURE = HaltingRule("confidence", 0.9)


def row(steps: int = 64, rule: HaltingRule = SURE) -> Trajectory:
    return Trajectory(plan(1), max_steps=steps, rule=rule)


def ended(depths: Depths, trajectory: Trajectory, steps: int, reason: HaltReason, times: int = 300) -> None:
    for _ in range(times):
        depths.saw(trajectory, Finished(0, steps, reason, taken=steps))


def weight(depths: Depths, trajectory: Trajectory, rows: int = 1) -> float:
    return weight_of(Submission((trajectory,) * rows, 0.0), lambda _: 0.01, depths)


def test_a_row_is_taken_to_use_all_of_its_budget_until_others_have_shown_otherwise() -> None:
    depths = Depths()
    assert weight(depths, row()) == pytest.approx(0.64)
    ended(depths, row(), 16, HaltReason.HALTED)
    assert weight(depths, row()) == pytest.approx(0.16, rel=0.05)
    assert weight(depths, row(rule=HaltingRule())) == pytest.approx(0.64), "no rule, no halt"


def test_what_was_cut_short_says_nothing_and_nothing_is_taken_to_be_free() -> None:
    depths = Depths()
    for reason in (HaltReason.CANCELLED, HaltReason.DEADLINE, HaltReason.ERROR):
        ended(depths, row(), 1, reason)
    assert weight(depths, row()) == pytest.approx(0.64)
    ended(depths, row(1000), 1, HaltReason.HALTED, times=3000)
    assert weight(depths, row()) == pytest.approx(0.64 * LEAST_PART)
    assert weight(depths, row(2)) == pytest.approx(0.01), "a step at least"


def test_lists_that_halt_early_are_not_refused_as_if_they_did_not() -> None:
    depths = Depths()
    lists = [Submission((row(),) * 256, 0.0) for _ in range(4)]

    def admit() -> None:
        tickets: list[Ticket] = []
        for submission in lists:
            seconds = weight_of(submission, lambda _: 1e-3, depths)
            refuse_if_full(submission, seconds, tickets, slots=64, abreast=2, most=10)
            tickets.append(Ticket(submission, lambda _: None, Budget(1, 1), weight=seconds))

    with pytest.raises(Overloaded):
        admit()
    ended(depths, row(), 3, HaltReason.HALTED)
    admit()


def test_a_first_step_that_warms_up_is_forgotten_with_the_second() -> None:
    costs = Costs()
    costs.measured((8,), 1, 0.02)
    assert costs.of((8,)) == pytest.approx(0.02)
    costs.measured((8,), 1, 0.001)
    assert costs.of((8,)) == pytest.approx(0.001)
    costs.measured((8,), 1, 0.002)
    assert costs.of((8,)) == pytest.approx(0.0012), "from then on each counts a little"
