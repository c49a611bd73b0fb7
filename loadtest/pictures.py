"""The pictures of a report. Each function draws one figure, or returns None where there is nothing to draw.

Depths are told apart by one scale of colour, shallow light to deep dark; what was measured alone is grey.
Every title names the loop, every axis its unit.
"""

from collections.abc import Callable
from itertools import groupby

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from loadtest.canvas import Theme, add_legend, depth_ticks, log_ticks, new_figure
from loadtest.experiment import Findings
from loadtest.rows import Row, load_words, measured_samples
from loadtest.samples import Sample


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
    rows = _one_level(findings)
    if not rows:
        return None
    title = f"Distribution of latency per depth ({_load_of(rows)})"
    figure, axes = new_figure(theme, title)
    for row, colour in zip(rows, theme.colours(len(rows)), strict=True):
        values = np.sort([s.latency_ms for s in _samples(findings, row)])
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


def time_spent(findings: Findings, theme: Theme) -> Figure | None:
    """Where the mean time goes: the server's queue, its compute, and everything outside of it."""
    rows = [row for row in _one_level(findings) if row.queue_ms and row.compute_ms and row.latency_ms]
    if not rows:
        return None
    figure, axes = new_figure(theme, f"Where the time goes, mean ({_load_of(rows)})")
    places = np.arange(len(rows))
    left = np.zeros(len(rows))
    parts = {
        "compute (server)": [row.compute_ms.mean if row.compute_ms else 0.0 for row in rows],
        "queue (server)": [row.queue_ms.mean if row.queue_ms else 0.0 for row in rows],
    }
    totals = np.array([row.latency_ms.mean if row.latency_ms else 0.0 for row in rows])
    parts["outside: network, HTTP, client"] = list(
        np.maximum(totals - np.sum(list(parts.values()), axis=0), 0)
    )
    for (name, values), colour in zip(
        parts.items(), (theme.scale[2], theme.scale[0], theme.quiet), strict=True
    ):
        axes.barh(places, values, left=left, color=colour, height=0.62, label=name)
        left += np.array(values)
    for place, total in zip(places, left, strict=True):
        axes.annotate(
            f"{total:.1f}", (total, place), (4, 0), textcoords="offset points", va="center", color=theme.ink
        )
    axes.set_yticks(places, [row.depth for row in rows])
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set(xlabel="mean latency (ms)", ylabel="depth asked")
    axes.grid(axis="y", visible=False)
    add_legend(axes, theme)
    return figure


def steps_in_stream(findings: Findings, theme: Theme) -> Figure | None:
    """Time to the first step and between steps, median with the range to p99, for every depth."""
    rows = [row for row in _one_level(findings) if row.first_step_ms]
    if not rows:
        return None
    figure, axes = new_figure(theme, f"Steps as they stream in ({_load_of(rows)})")
    places = np.arange(len(rows))
    series = {
        "to the first step": [row.first_step_ms for row in rows],
        "between steps": [row.between_steps_ms for row in rows],
    }
    for (name, spreads), colour, shift in zip(
        series.items(), (theme.scale[2], theme.scale[0]), (-0.1, 0.1), strict=True
    ):
        known = [(place + shift, spread) for place, spread in zip(places, spreads, strict=True) if spread]
        p50 = [spread.p50 for _, spread in known]
        reach = np.array([[0.0, spread.p99 - spread.p50] for _, spread in known]).T
        axes.errorbar(
            [x for x, _ in known],
            p50,
            yerr=reach,
            fmt="o",
            color=colour,
            capsize=4,
            label=f"{name}: p50 to p99",
        )
    axes.set_xticks(places, [row.depth for row in rows])
    axes.set(xlabel="depth asked", ylabel="time (ms)", ylim=(0, None), xlim=(-0.5, len(rows) - 0.5))
    add_legend(axes, theme)
    return figure


def used_depth(findings: Findings, theme: Theme) -> Figure | None:
    """How many steps requests took, stacked by how many they were allowed.

    Depths that were loaded one after the other weigh the same; those of a mix weigh what they came to.
    """
    rows = [row for row in _one_level(findings) if row.used_depths]
    if not rows:
        return None
    figure, axes = new_figure(theme, f"Steps used ({_load_of(rows)})")
    steps = sorted({used for row in rows for used in row.used_depths})
    everything = sum(sum(row.used_depths.values()) for row in rows)
    base = np.zeros(len(steps))
    for row, colour in zip(rows, theme.colours(len(rows)), strict=True):
        total = everything if row.mixed else len(rows) * sum(row.used_depths.values())
        share = np.array([row.used_depths.get(used, 0) / total * 100 for used in steps])
        axes.bar(
            np.arange(len(steps)), share, bottom=base, color=colour, width=0.72, label=f"asked {row.depth}"
        )
        base += share
    every = max(1, len(steps) // 16)
    axes.set_xticks(np.arange(len(steps))[::every], [str(used) for used in steps[::every]])
    axes.set(xlabel="steps used", ylabel="share of requests (%)", xlim=(-0.7, max(len(steps), 4) - 0.3))
    axes.grid(axis="x", visible=False)
    add_legend(axes, theme)
    return figure


def quality_against_latency(findings: Findings, theme: Theme) -> Figure | None:
    """Accuracy against median latency, a point with its 95 % interval for every depth."""
    rows = [row for row in _one_level(findings) if row.accuracy and row.latency_ms]
    if not rows:
        return None
    figure, axes = new_figure(theme, f"Quality against latency ({_load_of(rows)})")
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


def head_of_line(findings: Findings, theme: Theme) -> Figure | None:
    """The share of depth-1 requests answered within a time: alone, and among deep ones."""
    probe = findings.probe
    if probe is None:
        return None
    deep = probe.deep
    figure, axes = new_figure(theme, f"Depth 1 among depth {deep.depth} ({deep.load}; the probe: open loop)")
    for row, colour, name in (
        (probe.alone, theme.quiet, "alone"),
        (probe.among, theme.scale[2], "among deep requests"),
    ):
        values = np.sort([s.latency_ms for s in _samples(findings, row)])
        share = np.arange(1, len(values) + 1) / max(1, len(values)) * 100
        axes.step(values, share, color=colour, linewidth=2, where="post", label=name)
    axes.axhline(50, color=theme.faint, linewidth=1, linestyle=":")
    axes.set(
        xlabel="latency of a depth-1 request (ms)",
        ylabel="answered within (%)",
        ylim=(0, 102),
        xlim=(0, None),
    )
    add_legend(axes, theme)
    return figure


def latency_over_time(findings: Findings, theme: Theme) -> Figure | None:
    """The slowest request due in every fortieth of a cell, so that a stall shows when it happened."""
    rows = _one_level(findings)
    if not rows:
        return None
    figure, axes = new_figure(theme, f"Slowest request over time ({_load_of(rows)}, first repeat)")
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


def _one_level(findings: Findings) -> list[Row]:
    """The rows of every depth at one level under load: the first asked for, or each depth's last good sweep
    rate.
    """
    loaded = [row for row in findings.rows if row.phase == "load" and row.latency_ms]
    if loaded:
        return [row for row in loaded if row.level == findings.plan.levels[0]]
    best = {(found.depth, found.search.best) for found in findings.searches}
    swept = [
        row
        for row in findings.rows
        if row.phase == "sweep"
        and row.latency_ms
        and ((None if row.mixed else row.depth_to), row.level) in best
    ]
    return swept or [row for row in findings.rows if row.phase == "alone" and row.latency_ms]


def _load_of(rows: list[Row]) -> str:
    """The load that all of `rows` were under, in words."""
    loads = list(dict.fromkeys(row.load for row in rows))
    return loads[0] if len(loads) == 1 else "open loop, each at its highest rate that holds"


def _samples(findings: Findings, row: Row) -> list[Sample]:
    kept = [m for m in findings.cells if m.number in row.cells]
    samples = [s for m in kept for s in measured_samples(m, row.depth_from, row.depth_to, row.probe)]
    return [s for s in samples if s.outcome in ("ok", "timed_out")]
