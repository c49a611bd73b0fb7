"""What each halting threshold costs and keeps, with a guarantee, and the default chosen from it.

The guarantee is Learn-then-Test's (arXiv 2110.01052): to promise an accuracy p is to reject the
hypothesis that some bucket's accuracy is below p at that threshold. It is rejected where every
bucket's own exact test rejects (an intersection-union test, Technometrics 24, 1982: nothing to
correct for buckets); the thresholds of a criterion are tested from the safest to the loosest until
one is not rejected (fixed-sequence testing: nothing to correct along it); and only the number of
criteria divides the risk (Bonferroni).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from model.calibration import Calibration, CalibrationPoint, HaltingDefault
from model.halting import HaltingRule
from training.judge.backends import Backend
from training.judge.bounds import lower_bound
from training.judge.traces import Trace, trace
from training.progress import counted
from training.task import Task

CONFIDENCE = 0.95
SEED = 77_003  # of the calibration split; the evaluation draws from another
LOSS = 0.0025  # accuracy, and guarantee, that the default may give away for fewer steps
LEARNED_GAIN = 0.25  # of the steps a learned criterion must save to be the default
SLACK = 0.05  # steps, as a share, that it may spend on a safer threshold

RULES = (  # by criterion, from the safest threshold to the loosest: the order in which they are tested
    HaltingRule("none"),
    *(HaltingRule("confidence", value, 2) for value in (0.99999, 0.9999, 0.999, 0.99, 0.97, 0.9, 0.8)),
    *(HaltingRule("entropy", value, 2) for value in (1e-4, 1e-3, 0.01, 0.03, 0.1, 0.3, 0.5)),
    *(HaltingRule("entropy_diff", value, 2) for value in (1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.03, 0.1)),
    *(HaltingRule("kl", value, 2) for value in (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1)),
    *(
        HaltingRule("latent_diff", value)
        for value in (0.02, 0.03, 0.05, 0.07, 0.1, 0.14, 0.2, 0.3, 0.4, 0.55, 0.75, 1.0, 1.4)
    ),
    *(
        HaltingRule("cosine", value)
        for value in (0.001, 0.002, 0.003, 0.006, 0.01, 0.02, 0.03, 0.06, 0.1, 0.2, 0.3, 0.6, 1.0)
    ),
    *(
        HaltingRule("acceleration", value)
        for value in (0.02, 0.03, 0.05, 0.07, 0.1, 0.14, 0.2, 0.3, 0.4, 0.55, 0.75, 1.0)
    ),
    *(HaltingRule("argmax_stability", value) for value in (64, 48, 32, 24, 16, 12, 8, 6, 4, 3)),
    *(HaltingRule("learned", value) for value in (0.999, 0.997, 0.99, 0.97, 0.9, 0.8, 0.65, 0.5, 0.3, 0.1)),
    *(HaltingRule("known", value) for value in (0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)),
)


@dataclass(frozen=True)
class CalibrationSize:
    """How much is measured: problems per bucket, and the budget in steps."""

    problems: int = 1200
    max_steps: int = 256


@dataclass(frozen=True)
class Outcomes:
    """What R rules did on the P problems of one bucket."""

    right: NDArray[np.bool_]  # (R, P)
    steps: NDArray[np.int64]  # (R, P)

    def of(self, problems: NDArray[np.intp]) -> Outcomes:
        """Those of some of the problems."""
        return Outcomes(self.right[:, problems], self.steps[:, problems])


def rules_for(scores: Sequence[str]) -> tuple[HaltingRule, ...]:
    """The rules that a model with these scores can follow."""
    return tuple(rule for rule in RULES if rule.criterion in ("none", *scores))


def outcomes(rules: Sequence[HaltingRule], traced: Trace) -> Outcomes:
    """What the rules did on problems that were traced."""
    halted = [traced.halted(rule) for rule in rules]
    return Outcomes(np.stack([right for right, _ in halted]), np.stack([depths for _, depths in halted]))


def run_rules(
    backend: Backend,
    task: Task,
    size: CalibrationSize,
    rules: Sequence[HaltingRule],
    seed: int,
    console: Console,
) -> dict[int, Outcomes]:
    """What the rules do on fresh problems of every calibrated bucket of the task's first split.

    The console shows how far it has come, if it is a terminal.
    """
    rng = np.random.default_rng(seed)
    measured = {}
    with counted(console, f"{task.name} problems", size.problems * len(task.calibrated)) as done:
        for bucket in task.calibrated:
            problems = task.problems(rng, task.splits[0], bucket, size.problems)
            measured[bucket] = outcomes(rules, trace(backend, problems, size.max_steps, done))
    return measured


def calibrate(backend: Backend, task: Task, size: CalibrationSize, console: Console) -> Calibration:
    """Measure every rule that the model's scores allow on fresh problems, and bound what each keeps."""
    rules = rules_for(backend.scores)
    measured = run_rules(backend, task, size, rules, SEED, console)
    buckets = ", ".join(map(str, measured))
    return Calibration(
        problems=size.problems * len(measured),
        max_steps=size.max_steps,
        confidence=CONFIDENCE,
        description=(
            f"{size.problems} {task.splits[0]} problems for each of {buckets} {task.unit}; guaranteed: for "
            "the hardest of these, by Learn-then-Test with a fixed sequence per criterion"
        ),
        points=calibration_points(rules, measured),
    )


def calibration_points(
    rules: Sequence[HaltingRule], measured: Mapping[int, Outcomes]
) -> tuple[CalibrationPoint, ...]:
    """What each rule costs, keeps and guarantees. The rules of a criterion come in their testing order."""
    risk = (1 - CONFIDENCE) / len({rule.criterion for rule in rules})
    points = []
    for _, places in itertools.groupby(range(len(rules)), key=lambda place: rules[place].criterion):
        guaranteed = 1.0
        for place in places:
            right = [bucket.right[place] for bucket in measured.values()]
            bound = min(lower_bound(int(each.sum()), len(each), risk) for each in right)
            guaranteed = min(guaranteed, bound)  # of all thresholds up to here
            points.append(_point(rules[place], place, measured, guaranteed))
    return tuple(points)


def choose_default(calibration: Calibration) -> HaltingDefault:
    """The cheapest criterion that loses next to nothing, at the safest threshold that costs next to nothing.

    The loosest sound threshold is one that barely passed; for a few per cent of the steps another one
    keeps a distance from stopping too early on problems unlike the calibration's. For the same reason a
    learned criterion, which knows the problems it was taught on, must save a good deal.
    """
    points = calibration.points
    accuracy = max(point.accuracy for point in points) - LOSS
    guaranteed = max(point.guaranteed for point in points) - LOSS
    sound = [point for point in points if point.accuracy >= accuracy and point.guaranteed >= guaranteed]
    # No point may have both: the best on average can fall behind in the hardest bucket, which counts more.
    sound = sound or [point for point in points if point.guaranteed >= guaranteed]
    cheapest = min(sound, key=lambda point: point.mean_steps)
    free = [point for point in sound if point.criterion != "learned"]
    if free and cheapest.mean_steps > (1 - LEARNED_GAIN) * min(point.mean_steps for point in free):
        sound, cheapest = free, min(free, key=lambda point: point.mean_steps)
    affordable = cheapest.mean_steps * (1 + SLACK)
    chosen = max(
        (p for p in sound if p.criterion == cheapest.criterion and p.mean_steps <= affordable),
        key=lambda point: point.mean_steps,
    )
    return HaltingDefault(criterion=chosen.criterion, threshold=chosen.threshold, patience=chosen.patience)


def _point(
    rule: HaltingRule, place: int, measured: Mapping[int, Outcomes], guaranteed: float
) -> CalibrationPoint:
    accuracies = [float(bucket.right[place].mean()) for bucket in measured.values()]
    steps = [float(bucket.steps[place].mean()) for bucket in measured.values()]
    return CalibrationPoint(
        criterion=rule.criterion,
        threshold=rule.threshold,
        patience=rule.patience,
        accuracy=round(float(np.mean(accuracies)), 6),
        mean_steps=round(float(np.mean(steps)), 3),
        hardest_accuracy=round(min(accuracies), 6),
        guaranteed=math.floor(guaranteed * 1e4) / 1e4,  # rounding up would promise too much
    )
