"""What a halting rule gives away: against the best fixed budget in accuracy, against the oracle in steps.

The oracle stops at the first step from which the answer stays right. It knows what no rule can know:
a problem whose answer is the one the network starts with ("unreachable", say) is right after one step,
long before anything has been found out. So the steps are also compared on the problems that have to
wait, those that are not right from the first step on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from model.halting import HaltingRule
from training.judge.traces import Trace

SPARE = 64  # steps beyond the difficulty for which an answer has to stay right
FIXED = 32  # the fixed budget, in steps, that halting is compared with


def against_oracle(rule: HaltingRule, traces: Mapping[int, Trace]) -> dict[str, Any]:
    """The comparison by bucket, and over all of them with the same weight each."""
    each = {bucket: _bucket(rule, bucket, traced) for bucket, traced in traces.items()}
    shared = min(traced.right.shape[1] for traced in traces.values())
    by_budget = np.mean([traced.right[:, :shared].mean(axis=0) for traced in traces.values()], axis=0)
    accuracy, steps = (
        float(np.mean([b[name] for b in each.values()])) for name in ("accuracy", "mean_steps")
    )
    overall = {
        "accuracy": round(accuracy, 6),
        "best_budget": int(by_budget.argmax()) + 1,
        "best_budget_accuracy": round(float(by_budget.max()), 6),
        "lost": round(float(by_budget.max()) - accuracy, 6),
        "mean_steps": round(steps, 3),
        "share_of_fixed": round(steps / FIXED, 4),
        "all": _ratio([b["all"] for b in each.values()]),
        "waiting": _ratio([b["waiting"] for b in each.values()]),
    }
    return {
        "fixed": FIXED,
        "buckets": {str(bucket): facts for bucket, facts in each.items()},
        "overall": overall,
    }


def _bucket(rule: HaltingRule, bucket: int, traced: Trace) -> dict[str, Any]:
    right, depths = traced.halted(rule)
    by_budget = traced.right.mean(axis=0)
    near = traced.until(bucket + SPARE)
    oracle, comes_right = near.oracle(), near.right[:, -1]
    waiting = comes_right & (oracle > 1)
    return {
        "accuracy": round(float(right.mean()), 6),
        "best_budget": int(by_budget.argmax()) + 1,
        "best_budget_accuracy": round(float(by_budget.max()), 6),
        "mean_steps": round(float(depths.mean()), 3),
        "all": _means(depths[comes_right], oracle[comes_right]),
        "waiting": _means(depths[waiting], oracle[waiting]),
    }


def _means(depths: Any, oracle: Any) -> dict[str, Any] | None:
    """Mean steps of the rule and of the oracle on the problems that come right; None where there are none."""
    if not len(depths):
        return None
    return _over(float(depths.mean()), float(oracle.mean()))


def _ratio(parts: list[dict[str, Any] | None]) -> dict[str, Any] | None:
    known = [part for part in parts if part is not None]
    if not known:
        return None
    return _over(*(float(np.mean([part[name] for part in known])) for name in ("steps", "oracle")))


def _over(ours: float, best: float) -> dict[str, Any]:
    return {"steps": round(ours, 3), "oracle": round(best, 3), "over": round(ours / best - 1, 4)}
