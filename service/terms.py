"""Terms: how long a caller lets each problem think, worked out from what was asked and from the manifest.

Every protocol fills an Asked with what it found in a request. Errors name fields as /v1 has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from model.calibration import CalibrationPoint
from model.errors import RequestError
from model.halting import CRITERIA, HaltingRule
from model.manifest import Manifest
from model.spelling import did_you_mean

NEAR_CHANCE = 0.75  # what a rule keeps of the hardest problems; below that, whoever chooses it is warned


@dataclass(frozen=True)
class RequestedRule:
    """When a caller wants to stop: a criterion and what goes with it, or an accuracy to keep."""

    criterion: str | None = None
    threshold: float | None = None
    patience: int | None = None
    target_accuracy: float | None = None


@dataclass(frozen=True)
class RequestedTerms:
    """What a caller said; None for what was left out."""

    max_steps: int | None = None
    min_steps: int | None = None
    rule: RequestedRule | None = None
    deadline_ms: float | None = None


@dataclass(frozen=True)
class Terms:
    """What holds for every problem of a request."""

    max_steps: int
    min_steps: int
    rule: HaltingRule
    deadline: float | None  # on the engine's clock, seconds
    floor: int = 1  # min_steps, before a smaller max_steps lowered it
    warnings: tuple[str, ...] = ()  # what the caller should know of the rule


@dataclass(frozen=True)
class Before:
    """What a thought that goes on brings along: its rule and its floor hold unless others are asked for."""

    rule: HaltingRule
    floor: int
    taken: int  # the most steps that one of its rows has taken


def terms_of(
    asked: RequestedTerms, manifest: Manifest, arrived: float, before: Before | None = None
) -> Terms:
    """The terms of a request that arrived then, in seconds of the engine's clock.

    Raises RequestError where they are out of range, or the bundle cannot offer them.
    """
    if before is not None and asked.rule is None:
        rule, floor, budget = before.rule, before.floor, manifest.steps.default
    else:
        rule, floor, budget = _rule(asked.rule, manifest)
    max_steps, min_steps = _steps(asked, manifest, floor, budget)
    if before is not None and max_steps < before.taken:
        raise RequestError(
            f"max_steps of {max_steps} counts from the beginning, and {before.taken} steps have been taken; "
            "ask for more",
            "max_steps",
        )
    deadline = None if asked.deadline_ms is None else arrived + asked.deadline_ms / 1000
    warning = None
    if asked.rule is not None and asked.rule.criterion is not None:
        warning = _too_early(rule, min_steps, manifest)
    floor = floor if asked.min_steps is None else asked.min_steps
    return Terms(max_steps, min_steps, rule, deadline, floor, (warning,) if warning else ())


def beyond(manifest: Manifest, measured: Mapping[str, int]) -> list[str]:
    """What to tell of a problem that is larger than those the model is known to be right about."""
    if manifest.domain is None:
        return []
    return [
        f"with {measured[name]} {name}, over {most}, the answer may be wrong: {manifest.domain.sentence}"
        for name, most in manifest.domain.limits.items()
        if measured[name] > most
    ]


def _rule(asked: RequestedRule | None, manifest: Manifest) -> tuple[HaltingRule, int, int]:
    """The halting rule, with the min_steps and max_steps that go with it where the caller gives none."""
    default, budget = manifest.halting, manifest.steps.default
    if asked is None:
        return default.rule(), default.min_steps, budget
    if asked.target_accuracy is not None:
        point = _calibrated(asked, asked.target_accuracy, manifest)
        measured = manifest.calibration.max_steps if manifest.calibration else budget
        return point.rule(), default.min_steps, min(measured, manifest.steps.limit)
    if asked.criterion is None:
        raise RequestError("give a criterion, or a target_accuracy instead", "halting.criterion")
    criterion = manifest.criteria.get(asked.criterion)
    if criterion is None:
        what = f"is not computed by {manifest.name}" if asked.criterion in CRITERIA else "is unknown"
        computed = ", ".join(manifest.criteria)
        hint = did_you_mean(asked.criterion, manifest.criteria)
        raise RequestError(
            f"criterion {asked.criterion!r} {what}; {hint}choose one of {computed}", "halting.criterion"
        )
    threshold = criterion.default if asked.threshold is None else asked.threshold
    try:  # the criterion is known and the patience positive: what is left to refuse is the threshold
        return HaltingRule(criterion.name, threshold, asked.patience or 1), 1, budget
    except ValueError as error:
        raise RequestError(str(error), "halting.threshold") from None


def _calibrated(asked: RequestedRule, target: float, manifest: Manifest) -> CalibrationPoint:
    """The cheapest measured threshold whose guarantee is what the caller asks for."""
    field = "halting.target_accuracy"
    for name in ("criterion", "threshold", "patience"):
        if getattr(asked, name) is not None:
            raise RequestError(f"target_accuracy chooses the {name}; give one of the two", f"halting.{name}")
    calibration = manifest.calibration
    if calibration is None or not calibration.points:
        raise RequestError(f"{manifest.name} has no calibration; give a criterion and a threshold", field)
    point = calibration.cheapest(target)
    if point is None:
        best = max(point.guaranteed for point in calibration.points)
        raise RequestError(f"{manifest.name} guarantees {best:.4f} at best; ask for that or less", field)
    return point


def _steps(asked: RequestedTerms, manifest: Manifest, floor: int, budget: int) -> tuple[int, int]:
    """max_steps and min_steps; a floor that is only a default gives way to the caller's budget."""
    limit = manifest.steps.limit
    max_steps = budget if asked.max_steps is None else asked.max_steps
    if max_steps > limit:
        raise RequestError(f"max_steps is over the {limit} steps that {manifest.name} allows", "max_steps")
    if asked.min_steps is None:
        return max_steps, min(floor, max_steps)
    if asked.min_steps > max_steps:
        where = "your max_steps" if asked.max_steps is not None else "the default max_steps"
        raise RequestError(
            f"min_steps is over {where} of {max_steps}; lower one or raise the other", "min_steps"
        )
    return max_steps, asked.min_steps


def _too_early(rule: HaltingRule, min_steps: int, manifest: Manifest) -> str | None:
    """What is known against a rule: it stops no later than one that was measured to be near chance.

    Of the measured thresholds that are no looser, the nearest speaks. A floor that makes rows wait for
    longer than the rule's own patience was not measured.
    """
    if manifest.calibration is None or rule.criterion == "none":
        return None
    sign = -1 if manifest.criteria[rule.criterion].halts_above else 1  # larger is looser
    stricter = [
        point
        for point in manifest.calibration.points
        if point.criterion == rule.criterion
        and sign * point.threshold <= sign * rule.threshold
        and max(min_steps, rule.patience) <= point.patience
    ]
    nearest = max(stricter, key=lambda point: sign * point.threshold, default=None)
    if nearest is None or nearest.hardest_accuracy >= NEAR_CHANCE:
        return None
    default = manifest.halting
    return (
        f"{rule.criterion} at {rule.threshold:g} may stop too early: at {nearest.threshold:g} it was right "
        f"on {nearest.hardest_accuracy:.1%} of the hardest problems that were measured; leave halting out "
        f"for the default rule ({default.criterion} at {default.threshold:g})"
    )
