"""What is printed when a load test has ended."""

from collections.abc import Iterable, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from loadtest.analyse.capacity import capacity
from loadtest.analyse.findings import Findings
from loadtest.analyse.summaries import Summary
from loadtest.analyse.verdict import Verdict
from loadtest.show.words import capacity_words, fit_cells, probe_words, summary_cells, sweep_words

# Left out first where a terminal is too narrow; the report has them all.
SPARE = (
    "offered/s", "max", "used", "p95", "between", "first step", "p90", "compute", "queue", "cancelled",
    "worst residual", "a, 95 %", "R²", "b, 95 %", "range",
)  # fmt: skip
LEFT = ("load", "condition", "figure", "setting", "latency = a + b·steps", "b is", "")


def print_findings(console: Console, findings: Findings, verdict: Verdict, headline: str) -> None:
    """The tables of a finished run, each named by its loop, and the verdict."""
    loop = findings.plan.loop
    phases = {
        "alone": "Alone: closed loop, one request at a time (ms)",
        "load": f"Under load: {loop} loop (ms)",
        "sweep": "Sweep: open loop (ms)",
        "probe": f"Deep load of the probe: {loop} loop (ms)",
    }
    for phase, title in phases.items():
        summaries = [summary for summary in findings.summaries if summary.phase == phase]
        if summaries:
            console.print(summary_table(title, summaries, console.width))
    if findings.fits:
        console.print(table("", [fit_cells(line) for line in findings.fits], console.width))
    for found in findings.searches:
        console.print(sweep_words(found))
        if findings.plan.plan:
            console.print(f"[bold]{capacity_words(capacity(found, findings.plan.plan))}[/]")
    if findings.probe:
        console.print(probe_words(findings.probe))
    limits = [(health.cell, health.limit) for health in findings.client if health.limit]
    if limits:
        cell, words = limits[0]
        console.print(
            f"[yellow]The client was the limit in {len(limits)} of {len(findings.client)} cells[/]; "
            f"cell {cell}: {words}"
        )
    full = [health.full for health in findings.client if health.full]
    if full:
        console.print(f"[yellow]In {len(full)} of {len(findings.client)} cells[/] {full[0]}")
    for reason in verdict.reasons:
        console.print(f"[red]✗[/] {reason}")
    console.print(f"[green]✓[/] {verdict.words}" if verdict.passed else verdict.words)
    console.print(f"[bold]{headline}[/]")


def summary_table(title: str, summaries: Iterable[Summary], width: int) -> Table:
    """One line a summary, in ms; ~ marks percentiles with too few samples."""
    return table(title, [summary_cells(summary) for summary in summaries], width)


def table(title: str, lines: Sequence[Mapping[str, str]], width: int) -> Table:
    """A table of lines with the same columns; those in which no line has anything to say are left out, and
    so are SPARE ones as long as it is wider than `width` characters.
    """
    made = Table(title=title, title_justify="left", header_style="dim", box=SIMPLE_HEAD, pad_edge=False)
    names = [name for name in (lines[0] if lines else ()) if any(line[name] for line in lines)]
    widths = {name: max(len(name), *(len(line[name]) for line in lines)) + 3 for name in names}
    for spare in SPARE:
        if sum(widths[name] for name in names) > width and spare in names:
            names.remove(spare)
    for name in names:
        made.add_column(name, justify="left" if name in LEFT else "right")
    for line in lines:
        made.add_row(*(line[name] for name in names))
    return made
