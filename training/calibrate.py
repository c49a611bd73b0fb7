"""What each halting threshold costs and keeps, with a guarantee, and the default chosen from it.

The guarantee is Learn-then-Test's (arXiv 2110.01052): an exact lower bound on the accuracy for
every point, made simultaneous by Bonferroni over all points. It is stated for the hardest bucket
rather than on average, which the easy ones would flatter, so the correction covers buckets as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from model.halting import HaltingRule
from model.manifest import Calibration, CalibrationPoint, HaltingDefault
from model.recurrent import RecurrentTransformer
from training.measure import Trace, trace
from training.task import Task

CONFIDENCE = 0.95
SEED = 77_003  # of the calibration split; the evaluation draws from another

RULES = (
    HaltingRule("none"),
    *(HaltingRule("confidence", threshold, 2) for threshold in (0.9, 0.99, 0.999, 0.9999)),
    *(HaltingRule("entropy", threshold, 2) for threshold in (0.3, 0.05, 0.01, 0.001)),
    *(HaltingRule("entropy_diff", threshold, 2) for threshold in (1e-2, 1e-3, 1e-4, 1e-5)),
    *(HaltingRule("kl", threshold, 2) for threshold in (1e-3, 1e-4, 1e-5, 1e-6)),
    *(HaltingRule("latent_diff", threshold) for threshold in (1.0, 0.5, 0.3, 0.2, 0.1, 0.05, 0.03, 0.02)),
    *(HaltingRule("cosine", threshold) for threshold in (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)),
    *(HaltingRule("acceleration", threshold) for threshold in (0.5, 0.3, 0.2, 0.1, 0.05, 0.03)),
    *(HaltingRule("argmax_stability", threshold) for threshold in (3, 5, 10, 20, 40)),
)


@dataclass(frozen=True)
class CalibrationPlan:
    """How much is measured: problems per bucket, and the budget in steps."""

    problems: int = 1200
    max_steps: int = 256


def calibrate(network: RecurrentTransformer, task: Task, plan: CalibrationPlan) -> Calibration:
    """Measure every rule on fresh problems of every bucket of the task's first split."""
    rng = np.random.default_rng(SEED)
    split = task.splits[0]
    traces = {
        bucket: trace(network, task.problems(rng, split, bucket, plan.problems), plan.max_steps)
        for bucket in task.calibrated
    }
    bounds = len(RULES) * len(traces)
    points = tuple(_point(rule, traces, bounds) for rule in RULES)
    return Calibration(
        problems=plan.problems * len(traces),
        max_steps=plan.max_steps,
        confidence=CONFIDENCE,
        description=(
            f"{plan.problems} {split} problems for each of {', '.join(map(str, traces))} {task.unit}; "
            "guaranteed: the smallest Clopper-Pearson lower bound over buckets, jointly over all points"
        ),
        points=points,
    )


def choose_default(calibration: Calibration) -> HaltingDefault:
    """The criterion that is cheapest at the best guarantee, at the middle of its sound thresholds.

    The loosest threshold that passed is one that barely passed; the middle keeps a distance from
    stopping too early on graphs unlike the calibration's, and from never stopping at all.
    """
    best = max(point.guaranteed for point in calibration.points)
    sound = [point for point in calibration.points if point.guaranteed == best]
    cheapest = min(sound, key=lambda point: point.mean_steps)
    same = sorted(
        (point for point in sound if point.criterion == cheapest.criterion),
        key=lambda point: point.mean_steps,
    )
    chosen = same[len(same) // 2]
    return HaltingDefault(criterion=chosen.criterion, threshold=chosen.threshold, patience=chosen.patience)


def lower_bound(right: int, problems: int, risk: float) -> float:
    """Clopper-Pearson: the accuracy under which `right` or more would be this unlikely, at most `risk`.

    Exact for binomial counts (Biometrika 26, 1934). Found by bisection on the binomial tail.
    """
    if right == 0:
        return 0.0
    low, high = 0.0, right / problems
    while high - low > 1e-7:
        middle = (low + high) / 2
        low, high = (middle, high) if _tail(right, problems, middle) <= risk else (low, middle)
    return low


def _tail(right: int, problems: int, accuracy: float) -> float:
    """P(Binomial(problems, accuracy) >= right)."""
    if accuracy <= 0:
        return 0.0
    counts = range(right, problems + 1)
    return min(
        1.0,
        sum(
            math.exp(
                math.lgamma(problems + 1)
                - math.lgamma(count + 1)
                - math.lgamma(problems - count + 1)
                + count * math.log(accuracy)
                + (problems - count) * math.log1p(-accuracy)
            )
            for count in counts
        ),
    )


def _point(rule: HaltingRule, traces: dict[int, Trace], bounds: int) -> CalibrationPoint:
    accuracies, steps, guarantees = [], [], []
    for traced in traces.values():
        right, depths = traced.halted(rule)
        accuracies.append(float(right.mean()))
        steps.append(float(depths.mean()))
        guarantees.append(lower_bound(int(right.sum()), len(right), (1 - CONFIDENCE) / bounds))
    return CalibrationPoint(
        criterion=rule.criterion,
        threshold=rule.threshold,
        patience=rule.patience,
        accuracy=round(float(np.mean(accuracies)), 6),
        mean_steps=round(float(np.mean(steps)), 3),
        hardest_accuracy=round(min(accuracies), 6),
        guaranteed=math.floor(min(guarantees) * 1e4) / 1e4,  # rounding up would promise too much
    )
