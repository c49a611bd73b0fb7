"""The pictures of the paper's experiments (training/paper/reproduce.py), from their reports."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import nan as NAN
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.judge.figures.style import BLUE, GREY, INK, ORANGE, difficulty_axis
from training.paper.progression import GIVEN, PROTOCOL, PUBLISHED, RAW

Facts = dict[str, Any]
SERIES = (  # figure of a comparison, its label, colour and marker (Okabe and Ito's colours)
    ("in_distribution", "as trained on, best budget", "#56B4E9", "o"),
    ("out_of_distribution", "beyond, best budget", BLUE, "s"),
    ("one_step_each", "beyond, one step per {unit}", "#E69F00", "D"),
    ("overthinking", "beyond, {longest} steps", ORANGE, "^"),
)
COLOURS = (BLUE, ORANGE, "#009E73")
MARKERS = ("o", "s", "^")
SPLITS: tuple[Facts, ...] = (
    {"linestyle": "-", "linewidth": 2.2, "alpha": 0.45},
    {"linestyle": (0, (4, 1.5)), "linewidth": 0.9},
    {"linestyle": (0, (1, 1.2)), "linewidth": 1.1},
)


def draw_grid(report: Facts) -> Figure:
    """Accuracy over difficulty and steps, one panel for each split."""
    ((name, variant),) = report["variants"].items()
    splits = report["splits"]
    figure = Figure(figsize=(3.6 * len(splits) + 0.6, 3.4))
    panels = figure.subplots(1, len(splits), squeeze=False)[0]
    for axes, (split, buckets) in zip(panels, splits.items(), strict=True):
        _paint(axes, variant["grids"][split], report["budgets"], buckets)
        axes.set_xlabel("steps of thinking")
        axes.set_ylabel(report["unit"] + _line(axes, buckets, variant["trained_to"]))
        what = f"{split} negatives" if len(splits) > 1 else f"preset {name}"
        axes.set_title(f"{report['task']}, {what}")
    _bar(figure, panels.tolist(), variant["seeds"])
    return figure


def draw_cells(report: Facts) -> Figure:
    """A row for each variant, a column for each difficulty of each split: at best, and after all steps."""
    names = list(report["variants"])
    cells = [(split, str(bucket)) for split, buckets in report["splits"].items() for bucket in buckets]
    first = next(iter(report["splits"]))
    columns = [f"{bucket}\n{report['unit'] if split == first else split}" for split, bucket in cells]
    figure = Figure(figsize=(2.4 + 0.9 * len(cells), 0.3 * len(names) + 1.1))
    panels = figure.subplots(1, 2, sharey=True)
    figure.subplots_adjust(wspace=0.06)
    best = f"best of up to {report['budgets'][-1]} steps"
    for axes, kind, title in zip(
        panels, ("best", "longest"), (best, f"after {report['longest']} steps"), strict=True
    ):
        found = [
            [report["variants"][name]["cells"][split][bucket][kind]["mean"] for split, bucket in cells]
            for name in reversed(names)
        ]
        _paint(axes, found, columns, list(reversed(names)))
        axes.tick_params(axis="x", labelsize=6)
        axes.set_title(title)
    _bar(figure, panels.tolist(), next(iter(report["variants"].values()))["seeds"])
    return figure


def draw_progression(report: Facts) -> Figure:
    """Domains from left to right, what is given and by whom it was taught from top to bottom."""
    domains = report["domains"]
    names = [
        name for name in (GIVEN, RAW, PROTOCOL) if any(name in _shown(found) for found in domains.values())
    ]
    figure = Figure(figsize=(3.3 * len(domains) + 0.6, 2.5 * len(names)))
    panels = figure.subplots(len(names), len(domains), squeeze=False)
    figure.subplots_adjust(hspace=0.34, wspace=0.22)
    for (row, name), (column, (domain, found)) in product(enumerate(names), enumerate(domains.items())):
        axes = panels[row][column]
        if name not in _shown(found):
            axes.axis("off")
            continue
        axes.set_title(f"{domain}, {name}")
        ((split, buckets),) = found["splits"].items()
        if name in found["variants"]:
            variant = found["variants"][name]
            columns, grid = list(map(str, found["budgets"])), variant["grids"][split]
            if name == PROTOCOL and PUBLISHED in found["cited"]:  # beside it, after a gap
                columns = [*columns, "", "paper"]
                beside = _cited(found["cited"][PUBLISHED], buckets)
                grid = [[*line, NAN, *numbers] for line, numbers in zip(grid, beside, strict=True)]
            _paint(axes, grid, columns, buckets)
            axes.set_ylabel(found["unit"] + _line(axes, buckets, variant["trained_to"], short=True))
        else:
            _paint(axes, _cited(found["cited"][name], buckets), found["cited"][name]["columns"], buckets)
            axes.set_ylabel(found["unit"])
    for axes in panels[-1]:
        axes.set_xlabel("steps of thinking")
    counts = [variant["seeds"] for found in domains.values() for variant in found["variants"].values()]
    _bar(figure, panels.flatten().tolist(), *counts)
    return figure


def _shown(found: Facts) -> set[str]:
    return {*found["variants"], *found["cited"]}


def _cited(cited: Facts, buckets: list[int]) -> list[list[float]]:
    """A row for each difficulty, NAN where nothing is known of it."""
    nothing = [NAN] * len(cited["columns"])
    return [cited["accuracy"].get(str(bucket), nothing) for bucket in buckets]


def _paint(
    axes: Axes, grid: Sequence[Sequence[float]], columns: Sequence[object], rows: Sequence[object]
) -> None:
    """Shares as colours and numbers; NAN is left blank."""
    values = np.array(grid, dtype=float)
    axes.imshow(
        np.ma.masked_invalid(values), cmap="cividis", vmin=0.5, vmax=1.0, origin="lower", aspect="auto"
    )
    for row, column in np.ndindex(*values.shape):
        if not np.isnan(values[row, column]):
            colour = INK if values[row, column] > 0.8 else "#f0f0f0"
            share = float(values[row, column])
            text = "100" if share == 1 else f"{min(99, round(share * 100))}"  # never rounded up to 100
            axes.text(column, row, text, ha="center", va="center", fontsize=5.5, color=colour)
    axes.set_xticks(range(len(columns)), list(map(str, columns)))
    axes.set_yticks(range(len(rows)), list(map(str, rows)))
    axes.tick_params(length=0, labelsize=6.5 if len(columns) > 12 else None)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _line(axes: Axes, buckets: list[int], trained_to: int, short: bool = False) -> str:
    """Where training ended, as a line; what to say about it."""
    inside = sum(bucket <= trained_to for bucket in buckets)
    if not 0 < inside < len(buckets):
        return ""
    axes.axhline(inside - 0.5, color="white", linewidth=0.9, linestyle=(0, (4, 2)))
    return "; trained below the line" if short else "; above the line: never trained on"


def _bar(figure: Figure, panels: list[Axes], *counts: int) -> None:
    """The scale; counts: of seeds, one for each variant that is drawn."""
    image = next(axes.images[0] for axes in panels if axes.images)
    shares = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    bar = figure.colorbar(image, ax=panels, pad=0.015, aspect=28, ticks=shares)
    bar.ax.set_yticklabels(["50 % (chance)", "60 %", "70 %", "80 %", "90 %", "100 %"])
    bar.outline.set_visible(False)
    seeds = " to ".join(map(str, sorted({min(counts), max(counts)})))
    bar.set_label(f"accuracy, mean of {seeds} seed{'' if seeds == '1' else 's'}")


def draw_comparison(report: Facts) -> Figure:
    """A line for each variant: mean over seeds, and a bar from the worst seed to the best."""
    names = list(report["variants"])
    figure = Figure(figsize=(6.9, 0.36 * len(names) + 1.3))
    axes = figure.add_subplot()
    places = np.arange(len(names))[::-1]
    for turn, (key, label, colour, marker) in enumerate(SERIES):
        found = [report["variants"][name]["figures"][key] for name in names]
        mean, low, high = (np.array([one[part] for one in found]) for part in ("mean", "lowest", "highest"))
        height = places + 0.24 - 0.16 * turn
        axes.hlines(height, low, high, color=colour, linewidth=1.4, alpha=0.6)
        said = label.format(unit=report["unit"].removesuffix("s"), longest=report["longest"])
        axes.plot(mean, height, marker, color=colour, markersize=4.2, label=said)
    for between in places[:-1] - 0.5:
        axes.axhline(between, color="#dddddd", linewidth=0.5)
    axes.axvline(0.5, color=GREY, linewidth=0.8, linestyle=(0, (2, 2)))
    axes.text(0.5, len(names) - 0.45, "chance", ha="center", va="bottom", fontsize=6.5, color="#555555")
    axes.set_title(report["title"], pad=26)
    axes.set_yticks(places, names)
    axes.set_ylim(-0.55, len(names) - 0.45)
    axes.set_xlim(0.4, 1.02)
    axes.set_xticks([0.5, 0.6, 0.7, 0.8, 0.9, 1.0], ["50 %", "60 %", "70 %", "80 %", "90 %", "100 %"])
    count = next(iter(report["variants"].values()))["seeds"]
    axes.set_xlabel(f"accuracy; mean of {count} seed{'s' if count > 1 else ''}, from the worst to the best")
    axes.tick_params(axis="y", length=0)
    axes.legend(loc="lower left", ncols=4, bbox_to_anchor=(-0.02, 1.03), borderaxespad=0, columnspacing=1.2)
    return figure


def draw_shortcuts(report: Facts) -> Figure:
    """A panel for each task: each shortcut over difficulty, the splits by line style.

    The first split's lines are wide and pale, so that they show under others that coincide with them.
    """
    tasks = report["tasks"]
    figure = Figure(figsize=(6.9, 3.1))
    panels = figure.subplots(1, len(tasks), sharey=True)
    figure.subplots_adjust(bottom=0.36, wspace=0.12)
    for axes, (task, found) in zip(panels, tasks.items(), strict=True):
        for turn, (split, buckets) in enumerate(found["splits"].items()):
            along = [int(bucket) for bucket in buckets]
            for kind, shortcut in enumerate(next(iter(buckets.values()))):
                axes.plot(
                    along,
                    [of[shortcut] for of in buckets.values()],
                    marker=MARKERS[kind],
                    markersize=2.2,
                    color=COLOURS[kind],
                    label=shortcut if turn == 0 else None,
                    **SPLITS[turn],
                )
            axes.plot([], [], color="#555555", label=f"split {split}", **SPLITS[turn])
        axes.axhline(0.5, color=GREY, linewidth=0.6, zorder=0)
        difficulty_axis(axes, [int(bucket) for bucket in next(iter(found["splits"].values()))], found["unit"])
        axes.set_title(task)
        axes.tick_params(axis="x", labelsize=7)
        axes.set_ylim(0.45, 1.03)
        axes.legend(
            loc="upper left", bbox_to_anchor=(-0.05, -0.2), fontsize=6, handlelength=2.8, labelspacing=0.25
        )
    panels[0].set_yticks([0.5, 0.6, 0.7, 0.8, 0.9, 1.0], ["50 %", "60 %", "70 %", "80 %", "90 %", "100 %"])
    panels[0].set_ylabel("accuracy of the shortcut")
    return figure
