"""The halting decision is one: a plain loop, the engine, look-ahead, courses and calibration agree."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from model.halting import HaltingRule, HaltReason
from service.engine.engine import Engine, EngineLimits
from service.engine.messages import Finished, Submission, Trajectory
from service.runners.runner import Landing
from tests.service.fakes import FakeObserver, FakeRunner, Passenger, fake_manifest, plan
from training.judge.traces import Trace

NAMES = ("confidence", "entropy")
STEPS = 12
THRESHOLDS = (0.0, 0.1, 0.25, 0.5, 1.0)  # 0.1 as a float32 is a little over 0.1


class ScriptedRunner(FakeRunner):
    """Shows the scores that a script holds for the row's name and depth: (rows, STEPS, 2)."""

    def __init__(self, script: NDArray[np.float32], ahead: bool, bursts: bool) -> None:
        super().__init__(micro_batch=3, ahead=ahead, bursts=bursts)
        self.script = script

    def _step(self, flight: int, batch: list[int], aboard: list[Passenger]) -> Landing:
        landing = super()._step(flight, batch, aboard)
        scores = [self.script[int(each.row.tensors["plan"][0]), each.depth - 1] for each in aboard]
        return dataclasses.replace(landing, scores=np.array(scores))


def random_scores(draw: np.random.Generator, rows: int) -> NDArray[np.float32]:
    """Steps on which thresholds are often met, missed, hit exactly, or met by no number at all."""
    scores = draw.choice((*THRESHOLDS, np.nan), (rows, STEPS, len(NAMES)))
    stay = draw.random((rows, STEPS, 1)) < 0.6  # what held goes on holding, often enough for patience
    for step in range(1, STEPS):
        scores[:, step] = np.where(stay[:, step], scores[:, step - 1], scores[:, step])
    return scores.astype(np.float32)


def random_rule(draw: np.random.Generator) -> HaltingRule:
    criterion = str(draw.choice(("none", *NAMES)))
    threshold = 0.0 if criterion == "none" else float(draw.choice(THRESHOLDS))
    return HaltingRule(criterion, threshold, int(draw.integers(1, 5)))


def by_hand(
    scores: NDArray[np.float32], rule: HaltingRule, min_steps: int, budget: int
) -> tuple[int, HaltReason]:
    running = 0
    for depth in range(1, budget + 1):
        holds = False
        if rule.criterion == "confidence":
            holds = float(scores[depth - 1, 0]) >= rule.threshold
        elif rule.criterion == "entropy":
            holds = float(scores[depth - 1, 1]) <= rule.threshold
        running = running + 1 if holds and depth >= min_steps else 0
        if running >= rule.patience:
            return depth, HaltReason.HALTED
    return budget, HaltReason.BUDGET


def by_the_engine(runner: FakeRunner, problems: list[Trajectory]) -> list[tuple[int, HaltReason]]:
    """Four slots for all: rows come and go beside each other."""
    engine = Engine(fake_manifest(), runner, EngineLimits(slots=4), FakeObserver())
    engine.submit(Submission(tuple(problems), 0.0))
    ends: dict[int, Finished] = {}
    for _ in range(100 * STEPS):
        ends |= {event.index: event for _, event in engine.step() if isinstance(event, Finished)}
        if engine.idle:
            return [(ends[place].steps, ends[place].reason) for place in range(len(problems))]
    raise AssertionError("the engine does not come to an end")


@pytest.mark.parametrize("seed", range(20))
def test_engine_look_ahead_courses_and_calibration_decide_as_a_plain_loop_does(seed: int) -> None:
    draw = np.random.default_rng(seed)
    rows = 24
    scores = random_scores(draw, rows)
    rules = [random_rule(draw) for _ in range(rows)]
    budgets = draw.integers(1, STEPS + 1, rows).tolist()
    floors = [int(draw.integers(1, budget + 1)) for budget in budgets]
    expected = [by_hand(*terms) for terms in zip(scores, rules, floors, budgets, strict=True)]
    assert {reason for _, reason in expected} == {HaltReason.HALTED, HaltReason.BUDGET}

    for ahead, bursts in ((False, False), (True, False), (False, True)):
        problems = [
            Trajectory(plan(row), budgets[row], min_steps=floors[row], rule=rules[row]) for row in range(rows)
        ]
        assert by_the_engine(ScriptedRunner(scores, ahead, bursts), problems) == expected

    traced = Trace(np.zeros((rows, STEPS), np.bool_), scores, NAMES)
    for row, (steps, _) in enumerate(expected):
        assert traced.until(budgets[row]).depths(rules[row], floors[row])[row] == steps


def test_calibration_halts_on_agreement_where_the_engines_decision_does() -> None:
    names = ("kl", "confidence", "argmax_stability")
    steps = np.arange(STEPS, dtype=np.float32)
    scores = np.stack([0.5 ** (2 * steps), 1 - 0.5 ** (steps + 1), np.maximum(steps - 2, 0)], axis=-1)[None]
    traced = Trace(np.zeros((1, STEPS), np.bool_), scores, names)
    for threshold in (0.5, 0.9, 0.95, 0.99):
        holds = [
            min(confidence, 1 - 2.0**-stable, 1 - (kl / 2) ** 0.5) >= threshold
            for kl, confidence, stable in scores[0].astype(float).tolist()
        ]
        first = holds.index(True) + 1 if True in holds else STEPS
        assert traced.depths(HaltingRule("agreement", threshold)).tolist() == [first]
