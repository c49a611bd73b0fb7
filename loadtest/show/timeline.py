"""The server's own figures under the client's, over the whole run."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtest.analyse.findings import Findings
from loadtest.show.style import Theme, log_ticks, new_panels

PANELS = (  # (unit, {field of a reading: what it is})
    ("problems", {"running": "in slots", "waiting": "waiting"}),
    ("steps/s", {"steps_per_s": "steps per second"}),
    ("ms", {"row_step_ms": "compute a row-step"}),
    ("MB", {"memory_mb": "memory", "gpu_memory_mb": "GPU memory"}),
    ("of 1", {"cpu_share": "processors in use", "gpu_share": "GPU in use"}),
)
BUCKETS = 120  # of the client's latencies over the run


def server_over_time(findings: Findings, theme: Theme) -> Figure | None:
    """Client latency on top, and under it what the server said of itself at the time; cells are marked."""
    readings = findings.server
    panels = [
        (unit, {field: name for field, name in fields.items() if _known(findings, field)})
        for unit, fields in PANELS
    ]
    panels = [(unit, fields) for unit, fields in panels if fields]
    if len(readings) < 2 or not panels:
        return None
    loop = findings.plan.loop
    figure, axes = new_panels(theme, f"The server on the run's clock ({loop} loop)", 1 + len(panels))
    colours = (theme.scale[2], theme.scale[0])
    _client(findings, axes[0], theme)
    for one, (unit, fields) in zip(axes[1:], panels, strict=True):
        for (field, name), colour in zip(fields.items(), colours, strict=False):
            known = [(r.at_s, getattr(r, field)) for r in readings if getattr(r, field) is not None]
            one.plot(*zip(*known, strict=True), color=colour, linewidth=1.4, label=name)
        one.set_ylabel(unit)
        one.set_ylim(bottom=0)
        _legend(one, theme)
    axes[-1].set_xlabel("time in the run (s)")
    axes[-1].set_xlim(left=0)
    return figure


def _known(findings: Findings, field: str) -> bool:
    return any(getattr(reading, field) is not None for reading in findings.server)


def _client(findings: Findings, axes: Axes, theme: Theme) -> None:
    done, latency = [], []
    for cell in findings.cells:
        answered = [s for s in cell.samples if s.outcome in ("ok", "timed_out")]
        done += [cell.start_s + s.done_s for s in answered]
        latency += [s.latency_ms for s in answered]
    axes.set_ylabel("latency (ms)")
    if done:
        width = max(done) / BUCKETS
        bucket = (np.array(done) / width).astype(int)
        values = np.array(latency)
        places = np.unique(bucket)
        middle = (places + 0.5) * width
        for name, q, colour in (("p50", 0.5, theme.scale[2]), ("p99", 0.99, theme.warn)):
            axes.plot(
                middle, [np.quantile(values[bucket == place], q) for place in places],
                ".-", color=colour, linewidth=1, markersize=3, label=f"{name} of what was answered",
            )  # fmt: skip
        log_ticks(axes)
        _legend(axes, theme)
    last, labelled, height = "", -1.0, 3
    whole = max((cell.start_s + cell.cell.length_s for cell in findings.cells), default=1.0)
    for cell in findings.cells:
        axes.axvline(cell.start_s, color=theme.faint, linewidth=1, zorder=0)
        if cell.cell.phase != last:
            last = cell.cell.phase
            height = 14 if height == 3 and cell.start_s - labelled < 0.1 * whole and labelled >= 0 else 3
            labelled = cell.start_s
            axes.annotate(
                last, (cell.start_s, 1), (2, height), xycoords=("data", "axes fraction"),
                textcoords="offset points", color=theme.quiet, fontsize=8,
            )  # fmt: skip


def _legend(axes: Axes, theme: Theme) -> None:
    legend = axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.02), frameon=False, fontsize=8)
    for text in legend.get_texts():
        text.set_color(theme.ink)
