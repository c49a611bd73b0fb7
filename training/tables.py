"""What an experiment found, in numbers: means over seeds, as JSON and as Markdown."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from training import checkpoint
from training.experiments import Experiment
from training.figures.look import STYLE
from training.report import table as markdown_table

Facts = dict[str, Any]
Measured = dict[str, list[Facts]]  # by variant, one entry a seed
FIGURES = {  # of a comparison: key and heading
    "in_distribution": "trained on, best budget",
    "out_of_distribution": "beyond, best budget",
    "one_step_each": "beyond, one step per {unit}",
    "overthinking": "beyond, {longest} steps",
}


def write_results(
    experiment: Experiment,
    measured: Measured,
    where: Path,
    table: Callable[[Facts], str],
    draw: Callable[[Facts], Figure],
) -> None:
    """results.json, table.md and figure.png. Raises RunError where they cannot be written."""
    report = report_of(experiment, measured)
    write_files(where, report, table, draw)


def write_files(
    where: Path, report: Facts, table: Callable[[Facts], str], draw: Callable[[Facts], Figure]
) -> None:
    """The three files of an experiment, made of its report."""
    try:
        where.mkdir(parents=True, exist_ok=True)
        report = {"command": shlex.join(["fathom", *sys.argv[1:]]), **report}
        checkpoint.write_durably(where / "results.json", (json.dumps(report, indent=1) + "\n").encode())
        checkpoint.write_durably(where / "table.md", table(report).encode())
        with mpl.rc_context(STYLE):
            draw(report).savefig(where / "figure.png", bbox_inches="tight", metadata={"Software": None})
    except OSError as error:
        raise checkpoint.unwritable(where, error) from error


def report_of(experiment: Experiment, measured: Measured) -> Facts:
    """Everything that was measured, and its mean over seeds with the lowest and the highest."""
    measure, task = experiment.measure, experiment.variants[0].config.task
    return {
        "experiment": experiment.name,
        "title": experiment.title,
        "task": task.name,
        "unit": task.unit,
        "seeds": len(next(iter(measured.values()))),
        "trained_to": experiment.variants[0].config.curriculum.end,
        "splits": list(measure.splits),
        "buckets": list(measure.buckets),
        "budgets": list(measure.budgets),
        "longest": measure.longest,
        "problems": measure.problems,
        "variants": {
            name: {
                "parameters": runs[0]["parameters"],
                "updates": runs[0]["updates"],
                "batch": runs[0]["config"]["batch"],
                "width": runs[0]["config"]["network"]["width"],
                "processor_seconds": round(float(np.mean([one["processor_seconds"] for one in runs])), 1),
                "ponder": {
                    bucket: round(float(np.mean([one["ponder"][bucket] for one in runs])), 2)
                    for bucket in runs[0]["ponder"]
                },
                "figures": _figures(experiment, runs),
                "grids": {split: _grid(experiment, runs, split) for split in measure.splits},
                "runs": runs,
            }
            for name, runs in measured.items()
        },
    }


def _figures(experiment: Experiment, runs: list[Facts]) -> Facts:
    measure = experiment.measure
    trained_to = experiment.variants[0].config.curriculum.end
    beyond = [bucket for bucket in measure.buckets if bucket > trained_to]
    values: dict[str, list[float]] = {name: [] for name in FIGURES}
    for one in runs:
        curves = one["accuracy"][measure.splits[0]]
        layers = one["config"]["network"]["layers"]  # a network of fixed depth takes all of them

        def mean(
            buckets: list[int], at: Callable[[int], int], curves: dict[str, list[float]] = curves
        ) -> float:
            return float(np.mean([curves[str(bucket)][at(bucket) - 1] for bucket in buckets]))

        def best(bucket: int, curves: dict[str, list[float]] = curves) -> int:
            return max(measure.budgets, key=lambda steps: curves[str(bucket)][steps - 1])

        trained = [bucket for bucket in measure.buckets if bucket <= trained_to]
        values["in_distribution"].append(mean(trained, best))
        values["out_of_distribution"].append(mean(beyond, best))
        values["one_step_each"].append(
            mean(beyond, lambda bucket, least=layers: min(max(bucket, least), measure.longest))  # type: ignore[misc]
        )
        values["overthinking"].append(mean(beyond, lambda _: measure.longest))
    return {
        name: {
            "mean": round(float(np.mean(of)), 4),
            "lowest": round(min(of), 4),
            "highest": round(max(of), 4),
        }
        for name, of in values.items()
    }


def _grid(experiment: Experiment, runs: list[Facts], split: str) -> list[list[float]]:
    """Mean accuracy over seeds: a row for each difficulty, a column for each budget."""
    measure = experiment.measure
    return [
        [
            round(float(np.mean([one["accuracy"][split][str(bucket)][steps - 1] for one in runs])), 4)
            for steps in measure.budgets
        ]
        for bucket in measure.buckets
    ]


def comparison_table(report: Facts) -> str:
    """A row for each variant."""
    unit = report["unit"]
    headings = [
        heading.format(unit=unit.removesuffix("s"), longest=report["longest"]) for heading in FIGURES.values()
    ]
    ponder = any(variant["ponder"] for variant in report["variants"].values())
    header = ["Variant", "parameters", *headings]
    header += [*(["mean steps of a token"] if ponder else []), "processor seconds"]
    rows = []
    for name, variant in report["variants"].items():
        figures = [_spread(variant["figures"][figure]) for figure in FIGURES]
        thought = variant["ponder"]
        steps = ", ".join(f"{thought[str(hops)]:.1f} at {hops}" for hops in _ends(report)) if thought else "-"
        cost = f"{variant['processor_seconds']:.0f}"
        rows.append([name, f"{variant['parameters']:,}", *figures, *([steps] if ponder else []), cost])
    beyond = _listed([bucket for bucket in report["buckets"] if bucket > report["trained_to"]])
    return (
        f"{report['title']}. {_size(report)} Trained on 1 to {report['trained_to']} {unit}; beyond: "
        f"{beyond}. Mean over seeds, in brackets the worst and the best; chance is 50 %.\n\n"
        f"{markdown_table(header, rows)}\n"
    )


def frontier_table(report: Facts) -> str:
    """A row for each difficulty, a column for each budget."""
    ((name, variant),) = report["variants"].items()
    lines = [
        f"{report['title']}: `--preset {name}`, {variant['parameters']:,} parameters. {_size(report)} Mean "
        f"over seeds, chance is 50 %; trained on up to {report['trained_to']} {report['unit']}.",
    ]
    header = [report["unit"].capitalize(), *(f"{steps} steps" for steps in report["budgets"]), "best"]
    for split in report["splits"]:
        grid = zip(report["buckets"], variant["grids"][split], strict=True)
        rows = [[str(bucket), *map(_share, (*row, max(row)))] for bucket, row in grid]
        lines += ["", f"Split `{split}`:", "", markdown_table(header, rows)]
    return "\n".join(lines) + "\n"


def shortcut_table(report: Facts) -> str:
    """For each task and split, a row for each difficulty."""
    lines = [
        f"Accuracy of shortcuts on {report['problems']} problems of each difficulty, those with a threshold "
        "at its best in hindsight. Chance is 50 %.",
    ]
    for task, found in report["tasks"].items():
        for split, buckets in found["splits"].items():
            header = [found["unit"].capitalize(), *next(iter(buckets.values()))]
            rows = [[bucket, *map(_share, of.values())] for bucket, of in buckets.items()]
            lines += ["", f"`{task}`, split `{split}`:", "", markdown_table(header, rows)]
    return "\n".join(lines) + "\n"


def _size(report: Facts) -> str:
    variant = next(iter(report["variants"].values()))
    count = report["seeds"]
    return (
        f"{count} seed{'s' if count > 1 else ''}; width {variant['width']}, {variant['updates']:,} updates "
        f"of {variant['batch']}; {report['problems']} held-out problems for each number of {report['unit']}."
    )


def _ends(report: Facts) -> list[int]:
    """The easiest difficulty, the hardest trained on and the hardest."""
    trained_to = report["trained_to"]
    inside = [bucket for bucket in report["buckets"] if bucket <= trained_to]
    return [inside[0], inside[-1], report["buckets"][-1]]


def _spread(figure: dict[str, float]) -> str:
    mean, low, high = (figure[name] for name in ("mean", "lowest", "highest"))
    return _share(mean) if low == high else f"{_share(mean)} ({_share(low)} to {_share(high)})"


def _share(value: float) -> str:
    return f"{value * 100:.1f}".removesuffix(".0") + " %"


def _listed(buckets: list[int]) -> str:
    return ", ".join(map(str, buckets))
