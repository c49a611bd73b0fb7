"""Halting in a manifest: the rule a request follows by itself, and what thresholds were measured to keep."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from model.bounds import MOST_POINTS, MOST_PROBLEMS, Name, Number, Part, Share, Steps, Text
from model.halting import MOST_STEPS, HaltingRule


class RulePart(Part):
    """A halting rule in a manifest."""

    criterion: Name
    threshold: Number
    patience: Steps = 1

    @model_validator(mode="after")
    def _is_a_rule(self) -> Self:
        self.rule()
        return self

    def rule(self) -> HaltingRule:
        """The rule as the engine takes it. Raises ValueError where it is out of range."""
        return HaltingRule(self.criterion, self.threshold, self.patience)


class HaltingDefault(RulePart):
    """The rule a request follows when it names none."""

    min_steps: Steps = 1


class CalibrationPoint(RulePart):
    """One measured threshold: what it costs and what it keeps, on the calibration split.

    guaranteed is the largest accuracy that can be promised for the hardest difficulty bucket.
    """

    accuracy: Share
    mean_steps: Annotated[float, Field(ge=0, le=MOST_STEPS, allow_inf_nan=False)]
    hardest_accuracy: Share
    guaranteed: Share


class Calibration(Part):
    """The threshold curve, and how it was measured."""

    problems: Annotated[int, Field(ge=0, le=MOST_PROBLEMS)]
    max_steps: Steps  # the budget the points were measured under
    confidence: Share  # of a promise, jointly over all points that could be chosen for it
    description: Text = ""
    points: Annotated[tuple[CalibrationPoint, ...], Field(max_length=MOST_POINTS)] = ()

    def cheapest(self, target: float) -> CalibrationPoint | None:
        """The point with the fewest steps that guarantees this accuracy, if there is one."""
        sound = [point for point in self.points if point.guaranteed >= target]
        return min(sound, key=lambda point: point.mean_steps, default=None)
