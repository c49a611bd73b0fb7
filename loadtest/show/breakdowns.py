"""The pictures of what a latency is made of: server and network, steps in a stream, waiting behind others."""

import numpy as np
from matplotlib.figure import Figure

from loadtest.analyse.findings import Findings
from loadtest.show.selection import View, samples_of
from loadtest.show.style import Theme, add_legend, new_figure


def time_spent(view: View, theme: Theme) -> Figure | None:
    """Where the mean time goes: the server's queue, its compute, and everything outside of it."""
    summaries = [one for one in view.summaries if one.queue_ms and one.compute_ms and one.latency_ms]
    if not summaries:
        return None
    figure, axes = new_figure(theme, f"Where the time goes, mean ({view.load})")
    places = np.arange(len(summaries))
    left = np.zeros(len(summaries))
    parts = {
        "compute (server)": [one.compute_ms.mean if one.compute_ms else 0.0 for one in summaries],
        "queue (server)": [one.queue_ms.mean if one.queue_ms else 0.0 for one in summaries],
    }
    totals = np.array([one.latency_ms.mean if one.latency_ms else 0.0 for one in summaries])
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
    axes.set_yticks(places, [one.depth for one in summaries])
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_ylim(len(summaries) - 0.4, -0.6)
    axes.set(xlabel="mean latency (ms)", ylabel="depth asked")
    axes.grid(axis="y", visible=False)
    add_legend(axes, theme)
    return figure


def steps_in_stream(view: View, theme: Theme) -> Figure | None:
    """Time to the first step and between steps, median with the range to p99, for every depth."""
    summaries = [one for one in view.summaries if one.first_step_ms]
    if not summaries:
        return None
    figure, axes = new_figure(theme, f"Steps as they stream in ({view.load})")
    places = np.arange(len(summaries))
    series = {
        "to the first step": [one.first_step_ms for one in summaries],
        "between steps": [one.between_steps_ms for one in summaries],
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
    axes.set_xticks(places, [one.depth for one in summaries])
    axes.set(xlabel="depth asked", ylabel="time (ms)", ylim=(0, None), xlim=(-0.5, len(summaries) - 0.5))
    add_legend(axes, theme)
    return figure


def used_depth(view: View, theme: Theme) -> Figure | None:
    """How many steps requests took, stacked by how many they were allowed.

    Depths that were loaded one after the other weigh the same; those of a mix weigh what they came to.
    """
    summaries = [one for one in view.summaries if one.used_depths]
    if not summaries:
        return None
    figure, axes = new_figure(theme, f"Steps used ({view.load})")
    steps = sorted({used for one in summaries for used in one.used_depths})
    everything = sum(sum(one.used_depths.values()) for one in summaries)
    base = np.zeros(len(steps))
    for one, colour in zip(summaries, theme.colours(len(summaries)), strict=True):
        total = everything if one.mixed else len(summaries) * sum(one.used_depths.values())
        share = np.array([one.used_depths.get(used, 0) / total * 100 for used in steps])
        axes.bar(
            np.arange(len(steps)),
            share,
            bottom=base,
            color=colour,
            width=0.72,
            label=f"asked {one.depth}",
        )
        base += share
    every = max(1, len(steps) // 16)
    axes.set_xticks(np.arange(len(steps))[::every], [str(used) for used in steps[::every]])
    axes.set(xlabel="steps used", ylabel="share of requests (%)", xlim=(-0.7, max(len(steps), 4) - 0.3))
    axes.grid(axis="x", visible=False)
    add_legend(axes, theme)
    return figure


def head_of_line(findings: Findings, theme: Theme) -> Figure | None:
    """The share of the same depth-1 requests answered within a time: by themselves, and among deep ones."""
    probe = findings.probe
    if probe is None or not findings.cells:
        return None
    deep = probe.deep
    figure, axes = new_figure(theme, f"Depth 1 among depth {deep.depth} ({deep.load}; the probe: open loop)")
    for one, colour, name in (
        (probe.control, theme.quiet, "by themselves"),
        (probe.among, theme.scale[2], "among deep requests"),
    ):
        values = np.sort([s.latency_ms for s in samples_of(findings, one)])
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
