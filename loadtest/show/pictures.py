"""The pictures of a report. Each function draws one figure, or returns None where there is nothing to draw.

Depths are told apart by one scale of colour, shallow light to deep dark; what was measured alone is grey.
Every title names the loop, every axis its unit.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from loadtest.analyse.findings import Findings, LineFit
from loadtest.analyse.summaries import load_words, measured_samples
from loadtest.show.breakdowns import head_of_line, steps_in_stream, time_spent, used_depth
from loadtest.show.selection import View, samples_of, views_of
from loadtest.show.style import LIGHT, Theme, add_legend, depth_ticks, log_ticks, new_figure
from loadtest.show.timeline import server_over_time
from loadtest.show.words import depth_words


@dataclass(frozen=True)
class Picture:
    """A figure by name; `load` is the level that it shows, None for one that shows them all."""

    name: str
    load: str | None
    figure: Figure


def draw_all(findings: Findings) -> Iterator[Picture]:
    """Every figure there is something to draw for, one at a time, in the light theme."""
    whole: dict[str, Callable[[Findings, Theme], Figure | None]] = {
        "latency_against_depth": latency_against_depth,
        "throughput_against_p99": throughput_against_p99,
        "server_over_time": server_over_time,
        "head_of_line": head_of_line,
    }
    by_level: dict[str, Callable[[Findings, View, Theme], Figure | None]] = {
        "distribution": distribution,
        "time_spent": lambda _, view, theme: time_spent(view, theme),
        "steps_in_stream": lambda _, view, theme: steps_in_stream(view, theme),
        "used_depth": lambda _, view, theme: used_depth(view, theme),
        "quality_against_latency": lambda _, view, theme: quality_against_latency(view, theme),
        "latency_over_time": latency_over_time,
    }
    for name, draw in whole.items():
        if figure := draw(findings, LIGHT):
            yield Picture(name, None, figure)
    for view in views_of(findings):
        for name, draw_view in by_level.items():
            if figure := draw_view(findings, view, LIGHT):
                yield Picture(name, view.load, figure)


def latency_against_depth(findings: Findings, theme: Theme) -> Figure | None:
    """Median latency with its p50-p99 band and the fitted line, for every level and alone."""
    summaries = [
        one
        for one in findings.summaries
        if one.phase in ("alone", "load") and one.latency_ms and one.steps_used
    ]
    if not summaries:
        return None
    loaded = any(one.phase == "load" for one in summaries)
    loop = f"{findings.plan.loop} loop" if loaded else "closed loop, one user"
    figure, axes = new_figure(theme, f"Latency against depth ({loop})")
    levels = {key: list(group) for key, group in groupby(summaries, key=lambda one: (one.phase, one.level))}
    loads = [key for key in levels if key[0] == "load"]
    colours = dict(zip(loads, theme.colours(len(loads)), strict=True))
    for key, group in levels.items():
        colour = colours.get(key, theme.quiet)
        steps = [one.steps_used or 0.0 for one in group]
        p50 = [one.latency_ms.p50 for one in group if one.latency_ms]
        p99 = [one.latency_ms.p99 for one in group if one.latency_ms]
        name = "alone" if key[0] == "alone" else load_words(group[0].loop, group[0].level)
        axes.errorbar(
            steps, p50, yerr=[np.zeros(len(p50)), np.subtract(p99, p50)], fmt="none", ecolor=colour, capsize=3
        )
        axes.fill_between(steps, p50, p99, color=colour, alpha=0.16, linewidth=0)
        axes.plot(steps, p50, "o", color=colour, markersize=6, label=f"{name}: p50, band to p99")
        for line in findings.fits:
            # A line that the medians do not keep to is not drawn as if they did.
            if (line.phase, line.level) == key and line.fit.linear is not False:
                ends = np.array([0.0, max(steps)])
                axes.plot(
                    ends,
                    line.fit.a_ms + line.fit.b_ms * ends,
                    ":" if line.fit.linear is None else "--",
                    color=colour,
                    linewidth=1.4,
                    label=_line_label(line),
                )
    axes.set(xlabel="steps used", ylabel="latency (ms)", xlim=(0, None), ylim=(0, None))
    depth_ticks(axes, sorted({round(one.steps_used or 0, 1) for one in summaries}))
    add_legend(axes, theme, columns=2)
    return figure


def _line_label(line: LineFit) -> str:
    said = f"{line.fit.a_ms:.1f} ms + {line.fit.b_ms:.2f} ms · steps"
    if line.slope == "queueing":
        said += " (queueing)"
    return f"{said}, not tested" if line.fit.linear is None else f"fit: {said}"


def distribution(findings: Findings, view: View, theme: Theme) -> Figure | None:
    """The latency at every percentile of every depth, with the tail stretched out."""
    summaries = view.summaries
    if not findings.cells:
        return None
    figure, axes = new_figure(theme, f"Distribution of latency per depth ({view.load})")
    for one, colour in zip(summaries, theme.colours(len(summaries)), strict=True):
        values = np.sort([s.latency_ms for s in samples_of(findings, one)])
        beyond = 1 - (np.arange(len(values)) + 0.5) / len(values)
        axes.step(beyond, values, color=colour, linewidth=1.8, where="mid", label=f"depth {one.depth}")
    axes.set_xscale("log")
    axes.invert_xaxis()
    log_ticks(axes)
    marks = {0.9: "p10", 0.5: "p50", 0.1: "p90", 0.05: "p95", 0.01: "p99", 0.001: "p99.9", 0.0001: "p99.99"}
    least = min(0.5 / max(one.requests for one in summaries), 0.05)
    shown = [place for place in marks if place >= least]
    axes.set_xticks(shown, [marks[place] for place in shown])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(xlabel="percentile of requests", ylabel="latency (ms, logarithmic)", xlim=(0.97, least))
    add_legend(axes, theme)
    return figure


def throughput_against_p99(findings: Findings, theme: Theme) -> Figure | None:
    """Answers per second against the 99th percentile, a line for every depth and a point for every level."""
    lines = _swept(findings) or _loaded(findings)
    if not lines:
        return None
    figure, axes = new_figure(theme, f"Throughput against p99 latency ({findings.plan.loop} loop)")
    for (name, points), colour in zip(lines.items(), theme.colours(len(lines)), strict=True):
        axes.plot(*zip(*points, strict=True), "o-", color=colour, linewidth=1.6, markersize=6, label=name)
    for found, colour in zip(findings.searches, theme.colours(len(lines)), strict=False):
        if found.search.best is not None:
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


def _swept(findings: Findings) -> dict[str, list[tuple[float, float]]]:
    """(answers/s, p99 ms) of every rate that was tried, by what was swept."""
    lines = {}
    for found in findings.searches:
        points = [
            (point.achieved, point.p99_ms)
            for point in found.search.points
            if point.achieved is not None and point.p99_ms is not None
        ]
        if points:
            lines[depth_words(found.depth)] = points
    return lines


def _loaded(findings: Findings) -> dict[str, list[tuple[float, float]]]:
    """(answers/s, p99 ms) of every level, by depth."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for one in sorted(findings.summaries, key=lambda one: (one.depth_to, one.level)):
        if one.phase == "load" and one.latency_ms:
            lines.setdefault(f"depth {one.depth}", []).append((one.rates.achieved, one.latency_ms.p99))
    return lines


def quality_against_latency(view: View, theme: Theme) -> Figure | None:
    """Accuracy against median latency, a point with its 95 % interval for every depth."""
    summaries = [one for one in view.summaries if one.accuracy and one.latency_ms]
    if not summaries:
        return None
    figure, axes = new_figure(theme, f"Quality against latency ({view.load})")
    points = [(one.latency_ms.p50, one.accuracy, one) for one in summaries if one.latency_ms and one.accuracy]
    axes.plot(
        [x for x, _, _ in points], [a.share * 100 for _, a, _ in points], color=theme.faint, linewidth=1.5
    )
    for (x, accuracy, one), colour in zip(points, theme.colours(len(points)), strict=True):
        low, high = accuracy.interval95
        share = accuracy.share
        reach = [[(share - low) * 100], [(high - share) * 100]]
        axes.errorbar(
            [x], [share * 100], yerr=reach, fmt="o", color=colour, markersize=8, capsize=4,
            label=f"depth {one.depth}",
        )  # fmt: skip
    axes.margins(0.15)
    axes.set(xlabel="median latency (ms)", ylabel="right answers (%)")
    axes.set_ylim(top=min(101.5, axes.get_ylim()[1]))
    add_legend(axes, theme)
    return figure


def latency_over_time(findings: Findings, view: View, theme: Theme) -> Figure | None:
    """The slowest request due in every fortieth of a cell, so that a stall shows when it happened."""
    summaries = view.summaries
    if not findings.cells:
        return None
    figure, axes = new_figure(theme, f"Slowest request over time ({view.load}, first repeat)")
    for one, colour in zip(summaries, theme.colours(len(summaries)), strict=True):
        measured = next(m for m in findings.cells if m.number == one.cells[0])
        samples = measured_samples(measured, one.depth_from, one.depth_to)
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
            label=f"depth {one.depth}",
        )
    axes.set(xlabel="time in the cell (s)", ylabel="latency (ms)", ylim=(0, None), xlim=(0, None))
    add_legend(axes, theme)
    return figure
