"""What came of an experiment, over its seeds: means, the worst and the best."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from training.paper.experiment import Experiment, HeldOut

Facts = dict[str, Any]
Measured = dict[str, list[Facts]]  # by variant, one entry a seed


def report_of(experiment: Experiment, measured: Measured) -> Facts:
    """Everything that was measured, and its mean over seeds with the lowest and the highest."""
    held_out, task = experiment.held_out, experiment.variants[0].config.task
    return {
        "experiment": experiment.name,
        "title": experiment.title,
        "task": task.name,
        "unit": task.unit,
        "splits": {split: list(buckets) for split, buckets in held_out.splits.items()},
        "budgets": list(held_out.budgets),
        "longest": held_out.longest,
        "problems": held_out.problems,
        "variants": {
            name: {
                "parameters": runs[0]["parameters"],
                "updates": runs[0]["updates"],
                "batch": runs[0]["config"]["batch"],
                "width": runs[0]["config"]["network"]["width"],
                "trained_to": runs[0]["config"]["curriculum"]["end"],
                "seeds": len(runs),
                "reached": [one["reached"] for one in runs],
                "processor_seconds": round(float(np.mean([one["processor_seconds"] for one in runs])), 1),
                "ponder": {
                    bucket: round(float(np.mean([one["ponder"][bucket] for one in runs])), 2)
                    for bucket in runs[0]["ponder"]
                },
                "figures": _figures(held_out, runs) if experiment.shown == "means" else {},
                "grids": {split: _grid(held_out, runs, split) for split in held_out.splits},
                "cells": {split: _cells(held_out, runs, split) for split in held_out.splits},
                "runs": runs,
            }
            for name, runs in measured.items()
        },
        "cited": {
            name: {
                "source": cited.source,
                "columns": list(cited.columns),
                "accuracy": {str(bucket): list(row) for bucket, row in cited.accuracy.items()},
            }
            for name, cited in experiment.cited.items()
        },
    }


def _figures(held_out: HeldOut, runs: list[Facts]) -> Facts:
    split, buckets = next(iter(held_out.splits.items()))
    trained_to = runs[0]["config"]["curriculum"]["end"]
    trained = [bucket for bucket in buckets if bucket <= trained_to]
    beyond = [bucket for bucket in buckets if bucket > trained_to]
    layers = runs[0]["config"]["baseline"]["layers"]  # a network of fixed depth takes all of them

    def mean(buckets: list[int], at: Callable[[int, list[float]], int]) -> dict[str, float]:
        values = []
        for one in runs:
            curves = {bucket: one["accuracy"][split][str(bucket)] for bucket in buckets}
            values.append(float(np.mean([curve[at(bucket, curve) - 1] for bucket, curve in curves.items()])))
        return _spread_of(values)

    def best(_: int, curve: list[float]) -> int:
        return max(held_out.budgets, key=lambda steps: curve[steps - 1])

    return {
        "in_distribution": mean(trained, best),
        "out_of_distribution": mean(beyond, best),
        "one_step_each": mean(beyond, lambda bucket, _: min(max(bucket, layers), held_out.longest)),
        "overthinking": mean(beyond, lambda *_: held_out.longest),
    }


def _grid(held_out: HeldOut, runs: list[Facts], split: str) -> list[list[float]]:
    """Mean accuracy over seeds: a row for each difficulty, a column for each budget."""
    return [
        [
            round(float(np.mean([one["accuracy"][split][str(bucket)][steps - 1] for one in runs])), 4)
            for steps in held_out.budgets
        ]
        for bucket in held_out.splits[split]
    ]


def _cells(held_out: HeldOut, runs: list[Facts], split: str) -> dict[str, dict[str, dict[str, float]]]:
    """By difficulty: each seed's accuracy at its best budget, and after the most steps."""
    found = {}
    for bucket in held_out.splits[split]:
        curves = [one["accuracy"][split][str(bucket)] for one in runs]
        found[str(bucket)] = {
            "best": _spread_of([max(curve[steps - 1] for steps in held_out.budgets) for curve in curves]),
            "longest": _spread_of([curve[held_out.longest - 1] for curve in curves]),
        }
    return found


def _spread_of(values: list[float]) -> dict[str, float]:
    return {
        "mean": round(float(np.mean(values)), 4),
        "lowest": round(min(values), 4),
        "highest": round(max(values), 4),
    }
