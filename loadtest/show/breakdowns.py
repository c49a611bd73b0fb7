"""The pictures of what a latency is made of: server and network, steps in a stream, waiting behind others."""

import numpy as np
from matplotlib.figure import Figure

from loadtest.experiment import Findings
from loadtest.show.shown import load_of, shown_rows, shown_samples
from loadtest.show.style import Theme, add_legend, new_figure


def time_spent(findings: Findings, theme: Theme) -> Figure | None:
    """Where the mean time goes: the server's queue, its compute, and everything outside of it."""
    rows = [row for row in shown_rows(findings) if row.queue_ms and row.compute_ms and row.latency_ms]
    if not rows:
        return None
    figure, axes = new_figure(theme, f"Where the time goes, mean ({load_of(rows)})")
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
    rows = [row for row in shown_rows(findings) if row.first_step_ms]
    if not rows:
        return None
    figure, axes = new_figure(theme, f"Steps as they stream in ({load_of(rows)})")
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
    rows = [row for row in shown_rows(findings) if row.used_depths]
    if not rows:
        return None
    figure, axes = new_figure(theme, f"Steps used ({load_of(rows)})")
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
        values = np.sort([s.latency_ms for s in shown_samples(findings, row)])
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
