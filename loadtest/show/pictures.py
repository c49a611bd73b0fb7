"""The pictures of a report. Each function draws one figure, or returns None where there is nothing to draw.

Depths are told apart by one scale of colour, shallow light to deep dark; what was measured alone is grey.
Every title names the loop, every axis its unit.
"""

from collections.abc import Callable
from itertools import groupby

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from loadtest.analyse.rows import load_words, measured_samples
from loadtest.experiment import Findings
from loadtest.show.breakdowns import head_of_line, steps_in_stream, time_spent, used_depth
from loadtest.show.shown import load_of, shown_rows, shown_samples
from loadtest.show.style import Theme, add_legend, depth_ticks, log_ticks, new_figure


def draw_all(findings: Findings, theme: Theme) -> dict[str, Figure]:
    """Every figure there is something to draw for, by file name."""
    pictures: dict[str, Callable[[Findings, Theme], Figure | None]] = {
        "latency_against_depth": latency_against_depth,
        "distribution": distribution,
        "throughput_against_p99": throughput_against_p99,
        "time_spent": time_spent,
        "steps_in_stream": steps_in_stream,
        "used_depth": used_depth,
        "quality_against_latency": quality_against_latency,
        "head_of_line": head_of_line,
        "latency_over_time": latency_over_time,
    }
    drawn = {name: draw(findings, theme) for name, draw in pictures.items()}
    return {name: figure for name, figure in drawn.items() if figure}


def latency_against_depth(findings: Findings, theme: Theme) -> Figure | None:
    """Median latency with its p50-p99 band and the fitted line, for every level and alone."""
    rows = [
        row for row in findings.rows if row.phase in ("alone", "load") and row.latency_ms and row.steps_used
    ]
    if not rows:
        return None
    loaded = any(row.phase == "load" for row in rows)
    loop = f"{findings.plan.loop} loop" if loaded else "closed loop, one user"
    figure, axes = new_figure(theme, f"Latency against depth ({loop})")
    levels = {key: list(group) for key, group in groupby(rows, key=lambda row: (row.phase, row.level))}
    loads = [key for key in levels if key[0] == "load"]
    colours = dict(zip(loads, theme.colours(len(loads)), strict=True))
    for key, group in levels.items():
        colour = colours.get(key, theme.quiet)
        steps = [row.steps_used or 0.0 for row in group]
        p50 = [row.latency_ms.p50 for row in group if row.latency_ms]
        p99 = [row.latency_ms.p99 for row in group if row.latency_ms]
        name = "alone" if key[0] == "alone" else load_words(group[0].loop, group[0].level)
        axes.errorbar(
            steps, p50, yerr=[np.zeros(len(p50)), np.subtract(p99, p50)], fmt="none", ecolor=colour, capsize=3
        )
        axes.fill_between(steps, p50, p99, color=colour, alpha=0.16, linewidth=0)
        axes.plot(steps, p50, "o", color=colour, markersize=6, label=f"{name}: p50, band to p99")
        for line in findings.fits:
            if (line.phase, line.level) == key:
                ends = np.array([0.0, max(steps)])
                axes.plot(
                    ends,
                    line.fit.a_ms + line.fit.b_ms * ends,
                    "--",
                    color=colour,
                    linewidth=1.4,
                    label=f"fit: {line.fit.a_ms:.1f} ms + {line.fit.b_ms:.2f} ms · steps",
                )
    axes.set(xlabel="steps used", ylabel="latency (ms)", xlim=(0, None), ylim=(0, None))
    depth_ticks(axes, sorted({round(row.steps_used or 0, 1) for row in rows}))
    add_legend(axes, theme, columns=2)
    return figure


def distribution(findings: Findings, theme: Theme) -> Figure | None:
    """The latency at every percentile of every depth, at the lowest level, with the tail stretched out."""
    rows = shown_rows(findings)
    if not rows:
        return None
    title = f"Distribution of latency per depth ({load_of(rows)})"
    figure, axes = new_figure(theme, title)
    for row, colour in zip(rows, theme.colours(len(rows)), strict=True):
        values = np.sort([s.latency_ms for s in shown_samples(findings, row)])
        beyond = 1 - (np.arange(len(values)) + 0.5) / len(values)
        axes.step(beyond, values, color=colour, linewidth=1.8, where="mid", label=f"depth {row.depth}")
    axes.set_xscale("log")
    axes.invert_xaxis()
    log_ticks(axes)
    marks = {0.9: "p10", 0.5: "p50", 0.1: "p90", 0.05: "p95", 0.01: "p99", 0.001: "p99.9", 0.0001: "p99.99"}
    least = min(0.5 / max(row.requests for row in rows), 0.05)
    shown = [place for place in marks if place >= least]
    axes.set_xticks(shown, [marks[place] for place in shown])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(xlabel="percentile of requests", ylabel="latency (ms, logarithmic)", xlim=(0.97, least))
    add_legend(axes, theme)
    return figure


def throughput_against_p99(findings: Findings, theme: Theme) -> Figure | None:
    """Answers per second against the 99th percentile, a line for every depth and a point for every level."""
    rows = [row for row in findings.rows if row.phase in ("load", "sweep") and row.latency_ms]
    depths = sorted({(row.depth_from, row.depth_to) for row in rows})
    if not rows:
        return None
    figure, axes = new_figure(theme, f"Throughput against p99 latency ({findings.plan.loop} loop)")
    for depth, colour in zip(depths, theme.colours(len(depths)), strict=True):
        here = sorted((r for r in rows if (r.depth_from, r.depth_to) == depth), key=lambda row: row.level)
        achieved = [row.rates.achieved for row in here]
        p99 = [row.latency_ms.p99 for row in here if row.latency_ms]
        axes.plot(
            achieved, p99, "o-", color=colour, linewidth=1.6, markersize=6, label=f"depth {here[0].depth}"
        )
        for found in findings.searches:
            if found.depth in (depth[1], None) and found.search.best is not None:
                axes.axvline(found.search.best, color=colour, linewidth=1, linestyle=":")
    if findings.plan.slo_p99_ms:
        axes.axhline(findings.plan.slo_p99_ms, color=theme.warn, linewidth=1.4, linestyle="--")
        axes.annotate(
            f"SLO {findings.plan.slo_p99_ms:g} ms", (1, findings.plan.slo_p99_ms), (-4, 4),
            xycoords=("axes fraction", "data"), textcoords="offset points", ha="right", color=theme.warn,
        )  # fmt: skip
    log_ticks(axes)
    axes.set(xlabel="answers per second", ylabel="p99 latency (ms, logarithmic)", xlim=(0, None))
    add_legend(axes, theme)
    return figure


def quality_against_latency(findings: Findings, theme: Theme) -> Figure | None:
    """Accuracy against median latency, a point with its 95 % interval for every depth."""
    rows = [row for row in shown_rows(findings) if row.accuracy and row.latency_ms]
    if not rows:
        return None
    figure, axes = new_figure(theme, f"Quality against latency ({load_of(rows)})")
    points = [(row.latency_ms.p50, row.accuracy, row) for row in rows if row.latency_ms and row.accuracy]
    axes.plot(
        [x for x, _, _ in points], [a.share * 100 for _, a, _ in points], color=theme.faint, linewidth=1.5
    )
    for (x, accuracy, row), colour in zip(points, theme.colours(len(points)), strict=True):
        low, high = accuracy.interval95
        share = accuracy.share
        reach = [[(share - low) * 100], [(high - share) * 100]]
        axes.errorbar(
            [x], [share * 100], yerr=reach, fmt="o", color=colour, markersize=8, capsize=4,
            label=f"depth {row.depth}",
        )  # fmt: skip
    axes.margins(0.15)
    axes.set(xlabel="median latency (ms)", ylabel="right answers (%)")
    axes.set_ylim(top=min(101.5, axes.get_ylim()[1]))
    add_legend(axes, theme)
    return figure


def latency_over_time(findings: Findings, theme: Theme) -> Figure | None:
    """The slowest request due in every fortieth of a cell, so that a stall shows when it happened."""
    rows = shown_rows(findings)
    if not rows:
        return None
    figure, axes = new_figure(theme, f"Slowest request over time ({load_of(rows)}, first repeat)")
    for row, colour in zip(rows, theme.colours(len(rows)), strict=True):
        measured = next(m for m in findings.cells if m.number == row.cells[0])
        samples = measured_samples(measured, row.depth_from, row.depth_to)
        width = measured.cell.duration_s / 40
        buckets: dict[int, float] = {}
        for s in samples:
            place = int((s.due_s - measured.cell.warmup_s) / width)
            buckets[place] = max(buckets.get(place, 0.0), s.latency_ms)
        places = sorted(buckets)
        axes.plot(
            [(place + 0.5) * width for place in places],
            [buckets[place] for place in places],
            color=colour,
            linewidth=1.6,
            label=f"depth {row.depth}",
        )
    axes.set(xlabel="time in the cell (s)", ylabel="latency (ms)", ylim=(0, None), xlim=(0, None))
    add_legend(axes, theme)
    return figure
