"""What an experiment found, in numbers: means over seeds, as JSON and as Markdown."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from training import checkpoint
from training.judge.figures.style import STYLE
from training.judge.report import NONE, percent
from training.judge.report import table as markdown_table
from training.paper.experiment import Experiment, Progression
from training.paper.figures import draw_cells, draw_comparison, draw_grid, draw_progression
from training.paper.findings import Measured, report_of
from training.paper.progression import GIVEN, PROTOCOL, PUBLISHED, RAW

Facts = dict[str, Any]
FIGURES = {  # of a comparison by means: key and heading
    "in_distribution": "trained on, best budget",
    "out_of_distribution": "beyond, best budget",
    "one_step_each": "beyond, one step per {unit}",
    "overthinking": "beyond, {longest} steps",
}


def write_results(experiment: Experiment | Progression, measured: dict[str, Measured], where: Path) -> None:
    """results.json, table.md and figure.png, of what was measured by experiment.

    Raises RunError where they cannot be written.
    """
    if isinstance(experiment, Progression):
        found = {
            part.name: report_of(part, measured[part.name])
            for part in experiment.domains
            if measured[part.name]
        }
        report = {"experiment": experiment.name, "title": experiment.title, "domains": found}
        write_files(where, report, progression_table, draw_progression)
        return
    table, draw = {
        "grid": (frontier_table, draw_grid),
        "means": (comparison_table, draw_comparison),
        "cells": (cells_table, draw_cells),
    }[experiment.shown]
    write_files(where, report_of(experiment, measured[experiment.name]), table, draw)


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
    trained_to = _trained_to(report)
    beyond = ", ".join(str(bucket) for bucket in _buckets(report) if bucket > trained_to)
    return (
        f"{report['title']}. {_size(report)} Trained on 1 to {trained_to} {unit}; beyond: "
        f"{beyond}. Mean over seeds, in brackets the worst and the best; chance is 50 %.\n\n"
        f"{markdown_table(header, rows)}\n"
    )


def frontier_table(report: Facts) -> str:
    """A row for each difficulty, a column for each budget."""
    ((name, variant),) = report["variants"].items()
    lines = [
        f"{report['title']}: `--preset {name}`, {variant['parameters']:,} parameters. {_size(report)} Mean "
        f"over seeds, chance is 50 %; trained on up to {variant['trained_to']} {report['unit']}.",
    ]
    header = [report["unit"].capitalize(), *(f"{steps} steps" for steps in report["budgets"]), "best"]
    for split, buckets in report["splits"].items():
        grid = zip(buckets, variant["grids"][split], strict=True)
        rows = [[str(bucket), *map(_share, (*row, max(row)))] for bucket, row in grid]
        lines += ["", f"Split `{split}`:", "", markdown_table(header, rows)]
    return "\n".join(lines) + "\n"


def cells_table(report: Facts) -> str:
    """A row for each variant, a column for each difficulty of each split."""
    cells = [(split, str(bucket)) for split, buckets in report["splits"].items() for bucket in buckets]
    first = next(iter(report["splits"]))
    header = ["Variant", "parameters", f"{report['unit']} reached"]
    header += [
        f"{bucket} {report['unit']}" if split == first else f"{split} of {bucket}" for split, bucket in cells
    ]
    rows = []
    for name, variant in report["variants"].items():
        found = [variant["cells"][split][bucket] for split, bucket in cells]
        shares = [f"{_share(one['best']['mean'])} / {_share(one['longest']['mean'])}" for one in found]
        reached = " to ".join(
            str(level) for level in sorted({min(variant["reached"]), max(variant["reached"])})
        )
        cost = f"{variant['processor_seconds']:.0f}"
        rows.append([name, f"{variant['parameters']:,}", reached, *shares, cost])
    return (
        f"{report['title']}. {_size(report)} Trained on up to {_trained_to(report)} {report['unit']}, "
        f"where the curriculum got there. Best budget up to {report['budgets'][-1]} steps / after "
        f"{report['longest']}, mean over seeds; chance is 50 %.\n\n"
        f"{markdown_table([*header, 'processor seconds'], rows)}\n"
    )


def progression_table(report: Facts) -> str:
    """A row for each domain and difficulty, a column for each interface and recipe; then what was trained."""
    columns = (GIVEN, RAW, PROTOCOL, PUBLISHED)
    rows, trained, notes = [], [], []
    for domain, found in report["domains"].items():
        ((split, buckets),) = found["splits"].items()
        for bucket in buckets:
            cells = [_best_of(found, name, split, str(bucket)) for name in columns]
            rows.append([f"{domain}, {bucket} {found['unit']}", *cells])
        for name, variant in found["variants"].items():
            size = f"{variant['updates']:,} of {variant['batch']}"
            far = f"{variant['trained_to']} {found['unit']}"
            facts = [f"{variant['parameters']:,}", size, far, str(variant["seeds"])]
            trained.append([f"{domain}: {name}", *facts, f"{variant['processor_seconds']:.0f}"])
        notes += [f"- {domain}, {name}: {cited['source']}." for name, cited in found["cited"].items()]
    some = next(iter(report["domains"].values()))
    header = ["Network", "parameters", "updates", "trained to", "seeds", "processor seconds"]
    parts = (
        f"{report['title']}. {some['problems']} held-out problems a row, best budget up to "
        f"{some['budgets'][-1]} steps; mean over seeds, in brackets the worst and the best; chance is 50 %. "
        "The paper's protocol is handed a graph's edges, and reads characters and words.",
        markdown_table(["Problems", *columns], rows),
        markdown_table(header, trained),
        "Not trained here:",
        "\n".join(notes),
    )
    return "\n\n".join(parts) + "\n"


def _best_of(found: Facts, name: str, split: str, bucket: str) -> str:
    if name in found["variants"]:
        return _spread(found["variants"][name]["cells"][split][bucket]["best"])
    row = found["cited"].get(name, {"accuracy": {}})["accuracy"].get(bucket)
    return _share(max(row)) if row else NONE


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
    count = variant["seeds"]
    return (
        f"{count} seed{'s' if count > 1 else ''}; width {variant['width']}, {variant['updates']:,} updates "
        f"of {variant['batch']}; {report['problems']} held-out problems for each number of {report['unit']}."
    )


def _trained_to(report: Facts) -> int:
    return int(next(iter(report["variants"].values()))["trained_to"])


def _buckets(report: Facts) -> list[int]:
    """The difficulties of the split that counts."""
    buckets: list[int] = next(iter(report["splits"].values()))
    return buckets


def _ends(report: Facts) -> list[int]:
    """The easiest difficulty, the hardest trained on and the hardest."""
    buckets = _buckets(report)
    inside = [bucket for bucket in buckets if bucket <= _trained_to(report)]
    return [inside[0], inside[-1], buckets[-1]]


def _spread(figure: dict[str, float]) -> str:
    mean, low, high = (figure[name] for name in ("mean", "lowest", "highest"))
    return _share(mean) if low == high else f"{_share(mean)} ({_share(low)} to {_share(high)})"


def _share(value: float) -> str:
    return percent(value).replace(".0 %", " %")
