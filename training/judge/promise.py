"""Whether `{"target_accuracy": p}` keeps its word: calibrate again and again, and look at other problems.

A large pool of fresh problems is run once. Each resample calibrates on some of them, takes the point
that the service would take, and looks at the accuracy in the hardest bucket of all the others. At a
confidence of 95 % the promise may be broken in 5 resamples of 100 and is kept in the rest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from model.calibration import Calibration
from model.halting import HaltingRule
from training import checkpoint
from training.errors import RunError
from training.judge.calibrate import (
    CONFIDENCE,
    CalibrationSize,
    Outcomes,
    calibration_points,
    rules_for,
    run_rules,
)
from training.judge.evaluate import Subject
from training.judge.report import NONE, percent
from training.judge.report import table as markdown_table

SEED = 901_007  # of the pool; neither calibration nor evaluation draws from it
RESAMPLES = 100
TARGETS = (0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 0.995)


@dataclass(frozen=True)
class PromiseCheck:
    """How much is measured, per bucket."""

    calibration: int = 1200  # problems that a resample calibrates on
    pool: int = 4800  # problems in all; a resample is checked on those it did not calibrate on
    max_steps: int = 256
    targets: tuple[float, ...] = TARGETS

    def __post_init__(self) -> None:
        if not all(0 < target < 1 for target in self.targets):
            raise RunError("a target is an accuracy between 0 and 1, such as 0.95")
        if not 1 <= self.calibration < self.pool:
            raise RunError(
                f"a pool of {self.pool} problems leaves none to check {self.calibration} on; make it larger"
            )


@dataclass(frozen=True)
class Kept:
    """How one target fared over the resamples that offered it."""

    target: float
    resamples: int
    offered: int
    broken: int
    accuracy: float | None  # hardest bucket, mean over the offers; None where there was none
    worst: float | None  # the same, in the worst of them
    mean_steps: float | None

    @property
    def holds(self) -> bool:
        """Broken no more often than the confidence allows."""
        return self.broken <= (1 - CONFIDENCE) * self.resamples + 1e-9


def promise(subject: Subject, check: PromiseCheck, console: Console) -> dict[str, Any]:
    """The report on every target."""
    rules = rules_for(subject.backend.scores)
    console.print(f"running {check.pool} problems for each of {len(subject.task.calibrated)} difficulties")
    size = CalibrationSize(check.pool, check.max_steps)
    pool = run_rules(subject.backend, subject.task, size, rules, SEED, console)
    kept = resampled(rules, pool, check.calibration, check.targets, np.random.default_rng(SEED))
    return {
        "subject": subject.name,
        "plan": asdict(check),
        "confidence": CONFIDENCE,
        "resamples": RESAMPLES,
        "targets": [{**asdict(each), "holds": each.holds} for each in kept],
    }


def resampled(
    rules: Sequence[HaltingRule],
    pool: Mapping[int, Outcomes],
    calibration: int,
    targets: Sequence[float],
    rng: np.random.Generator,
) -> list[Kept]:
    """Calibrate on `calibration` problems per bucket, check on the others, RESAMPLES times."""
    found: dict[float, list[tuple[float, float]]] = {target: [] for target in targets}
    for _ in range(RESAMPLES):
        drawn = {bucket: rng.permutation(each.right.shape[1]) for bucket, each in pool.items()}
        chosen = {bucket: pool[bucket].of(order[:calibration]) for bucket, order in drawn.items()}
        others = {bucket: pool[bucket].of(order[calibration:]) for bucket, order in drawn.items()}
        points = calibration_points(rules, chosen)
        told = Calibration(
            problems=calibration * len(pool), max_steps=1, confidence=CONFIDENCE, points=points
        )
        for target in targets:
            point = told.cheapest(target)
            if point is not None:
                place = points.index(point)
                hardest = min(float(each.right[place].mean()) for each in others.values())
                steps = float(np.mean([each.steps[place].mean() for each in others.values()]))
                found[target].append((hardest, steps))
    return [_kept(target, offers) for target, offers in found.items()]


def write(report: Mapping[str, Any], out: Path) -> Path:
    """promise.json and promise.md. Raises RunError where the folder cannot be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        path = out / "promise.json"
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        path.with_suffix(".md").write_text(table(report) + "\n", encoding="utf-8")
    except OSError as error:
        raise checkpoint.unwritable(out, error) from error
    return path


def table(report: Mapping[str, Any]) -> str:
    """The report as a Markdown table."""
    header = ["Promised", "offered", "broken", "kept often enough", "hardest, mean", "hardest, worst"]
    rows = [
        [
            f"{each['target']:g}",
            f"{each['offered']} of {each['resamples']}",
            f"{each['broken']}",
            "yes" if each["holds"] else "no",
            percent(each["accuracy"]),
            percent(each["worst"]),
            NONE if each["mean_steps"] is None else f"{each['mean_steps']:.1f}",
        ]
        for each in report["targets"]
    ]
    return markdown_table([*header, "mean steps"], rows)


def _kept(target: float, offers: Sequence[tuple[float, float]]) -> Kept:
    accuracies = [accuracy for accuracy, _ in offers]
    return Kept(
        target,
        RESAMPLES,
        len(offers),
        sum(accuracy < target for accuracy in accuracies),
        round(float(np.mean(accuracies)), 5) if offers else None,
        round(min(accuracies), 5) if offers else None,
        round(float(np.mean([steps for _, steps in offers])), 3) if offers else None,
    )
