"""An evaluation as tables in Markdown, ready to be copied into docs/results-tables.md and docs/halting.md."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from model.calibration import Calibration, CalibrationPoint
from model.halting import CRITERIA

Report = Mapping[str, Any]
TARGETS = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
SHOWN = 5  # difficulties in the table of criteria
NONE = "-"


def markdown(report: Report, calibration: Calibration | None) -> str:
    """report.md: every table of an evaluation, and of a bundle's calibration."""
    first = next(iter(report["splits"]))
    parts = [
        f"# {report['subject']}",
        f"## Accuracy\n\n{_accuracy(report, report['splits'][first])}",
        f"## Thinking longer\n\n{_longer(report, report['splits'][first])}",
        f"## Shortcuts\n\n{_shortcuts(report)}",
        f"## Unlike anything trained on\n\n{_unusual(report)}",
        f"## Halting\n\n{_criteria(report, report['splits'][first])}",
        f"## The default rule\n\n{_default(report)}",
    ]
    if calibration is not None:
        parts.append(f"## Calibration\n\n{calibration.description}.\n\n{_calibration(calibration)}")
        parts.append(f"## What can be promised\n\n{_promises(calibration)}")
    return "\n\n".join(parts) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def percent(share: float | None) -> str:
    """1.0 -> "100 %", 0.9932 -> "99.3 %"; never rounded up to 100."""
    if share is None:
        return NONE
    return "100 %" if share == 1 else f"{min(math.floor(share * 1000 + 0.5) / 10, 99.9):.1f} %"


def _unit(report: Report) -> str:
    return str(report["unit"]).capitalize()


def _accuracy(report: Report, split: Report) -> str:
    last = max(int(steps) for facts in split.values() for steps in facts["accuracy"])
    problems = next(iter(split.values()))["problems"]
    header = [_unit(report), "tokens", f"one step per {report['unit'].removesuffix('s')}", "64 steps"]
    header += ["at least (95 %)", f"{last} steps", "oracle: mean, largest"]
    rows = []
    for bucket, facts in split.items():
        accuracy, oracle = facts["accuracy"], facts["oracle_steps"]
        rows.append(
            [
                bucket,
                "-".join(map(str, sorted(set(facts["tokens"])))),
                percent(facts["accuracy_at_one_step_per_unit"]),
                percent(accuracy.get("64")),
                percent(facts["at_least_after_64"]),
                percent(accuracy[str(last)]),
                f"{oracle['mean']:.1f}, {oracle['largest'] or NONE}",
            ]
        )
    return f"{problems} problems a row.\n\n{table(header, rows)}"


def _longer(report: Report, split: Report) -> str:
    trained = str(report["trained_to"])
    facts = split.get(trained) or next(iter(split.values()))
    name = trained if trained in split else next(iter(split))
    accuracy = facts["accuracy"]
    cells = [percent(share) for share in accuracy.values()]
    return table([f"{_unit(report)}: {name}; steps", *accuracy], [["Accuracy", *cells]])


def _shortcuts(report: Report) -> str:
    splits: Report = report["splits"]
    first = next(iter(splits.values()))
    names = list(next(iter(first.values()))["heuristics"])
    joined = " / ".join(splits)
    rows = []
    for bucket in first:
        facts = [split[bucket] for split in splits.values()]
        shares = [[f"{each['heuristics'][name]:.2f}" for each in facts] for name in names]
        reached = " / ".join(percent(each["accuracy_at_one_step_per_unit"]) for each in facts)
        rows.append([bucket, reached, *(" / ".join(each) for each in shares)])
    return table([_unit(report), f"accuracy: {joined}", *(f"{name}: {joined}" for name in names)], rows)


def _unusual(report: Report) -> str:
    header = ["Kind", "problems", "longest", "share of the first class", "accuracy given the steps"]
    rows = [
        [
            kind,
            f"{facts['problems']}",
            f"{facts['longest']}",
            f"{facts['first_class']:.2f}",
            percent(facts["accuracy"]),
            percent(facts["accuracy_halting"]),
            f"{facts['mean_steps']:.1f}",
            f"{facts['most_steps']}",
        ]
        for kind, facts in report["unusual"].items()
    ]
    return table([*header, "halting by itself", "mean steps", "most steps"], rows)


def _criteria(report: Report, split: Report) -> str:
    """Every criterion at its safest, its usual, its loosest and the default's threshold, by difficulty."""
    buckets = list(split)
    chosen = [buckets[round(place * (len(buckets) - 1) / (SHOWN - 1))] for place in range(SHOWN)]
    chosen = list(dict.fromkeys(chosen))
    rows = []
    for name, grouped in groupby(report["halting"], key=lambda entry: entry["criterion"]):
        entries = list(grouped)
        usual = CRITERIA[name].default
        nearest = min(entries, key=lambda entry: abs(entry["threshold"] - usual))
        default = [entry for entry in entries if report["rule"].items() <= entry.items()]
        for entry in [each for each in entries if each in (entries[0], nearest, entries[-1], *default)]:
            cells = [entry["buckets"][bucket] for bucket in chosen]
            figures = [f"{percent(cell['accuracy'])} in {cell['mean_steps']:.1f}" for cell in cells]
            rows.append([f"`{name}`", f"{entry['threshold']:g}", f"{entry['patience']}", *figures])
    oracle = [f"{split[bucket]['oracle_steps']['mean']:.1f}" for bucket in chosen]
    rows.append(["oracle", "", "", *oracle])
    return table(
        ["Criterion", "threshold", "patience", *(f"{bucket} {report['unit']}" for bucket in chosen)], rows
    )


def _default(report: Report) -> str:
    rule, facts = report["rule"], report["against_oracle"]
    rows = [_default_row(bucket, each) for bucket, each in facts["buckets"].items()]
    overall = facts["overall"]
    rows.append(_default_row("all", overall))
    header = [_unit(report), "accuracy", "best budget", "mean steps", "oracle", "over it"]
    header += ["mean steps, waiting", "oracle, waiting", "over it, waiting"]
    return (
        f"`{rule['criterion']}` at {rule['threshold']:g}, patience {rule['patience']}: loses "
        f"{overall['lost'] * 100:.2f} % of accuracy against {overall['best_budget']} steps for everybody, "
        f"and takes {overall['share_of_fixed'] * 100:.0f} % of a fixed budget of {facts['fixed']} steps.\n\n"
        + table(header, rows)
    )


def _default_row(name: str, facts: Report) -> list[str]:
    best = f"{percent(facts['best_budget_accuracy'])} in {facts['best_budget']}"
    cells = [name, percent(facts["accuracy"]), best, f"{facts['mean_steps']:.1f}"]
    for place, part in enumerate((facts["all"], facts["waiting"])):
        steps = [] if place == 0 else [NONE if part is None else f"{part['steps']:.1f}"]
        rest = [NONE, NONE] if part is None else [f"{part['oracle']:.1f}", f"{part['over'] * 100:+.0f} %"]
        cells += [*steps, *rest]
    return cells


def _calibration(calibration: Calibration) -> str:
    """Each criterion at the cheapest of its thresholds with the best guarantee."""
    rows = []
    for _, grouped in groupby(calibration.points, key=lambda point: point.criterion):
        points = list(grouped)
        best = max(point.guaranteed for point in points)
        rows.append(_point(min((p for p in points if p.guaranteed == best), key=lambda p: p.mean_steps)))
    header = ["Criterion", "threshold", "patience", "mean steps", "accuracy", "hardest", "guaranteed"]
    return table(header, rows)


def _promises(calibration: Calibration) -> str:
    header = ["`target_accuracy`", "criterion", "threshold", "patience", "mean steps", "accuracy", "hardest"]
    rows = []
    for target in TARGETS:
        point = calibration.cheapest(target)
        best = max(p.guaranteed for p in calibration.points)
        refused = [f"refused: {best:.4f} at best", *[NONE] * 6]
        rows.append([f"{target:g}", *(refused if point is None else _point(point))])
    return table([*header, "guaranteed"], rows)


def _point(point: CalibrationPoint) -> list[str]:
    return [
        f"`{point.criterion}`",
        f"{point.threshold:g}",
        f"{point.patience}",
        f"{point.mean_steps:.1f}",
        percent(point.accuracy),
        percent(point.hardest_accuracy),
        f"{point.guaranteed * 100:.2f} %",
    ]
