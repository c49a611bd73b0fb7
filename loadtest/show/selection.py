"""Which of the findings a picture shows when it has room for one level only."""

from dataclasses import dataclass

from loadtest.analyse.findings import Findings
from loadtest.analyse.summaries import Summary, measured_samples
from loadtest.drive.samples import Sample


@dataclass(frozen=True)
class View:
    """The summaries of every depth under one load, and that load in words."""

    load: str
    summaries: tuple[Summary, ...]


def views_of(findings: Findings) -> list[View]:
    """A view for each level under load, in the caller's order; of a sweep each depth's highest rate that
    holds; without either what was measured alone.
    """
    kept = [summary for summary in findings.summaries if summary.latency_ms]
    loaded = [summary for summary in kept if summary.phase == "load"]
    if loaded:
        levels = [[s for s in loaded if s.level == level] for level in findings.plan.levels]
        return [View(level[0].load, tuple(level)) for level in levels if level]
    best = {(found.depth, found.search.best) for found in findings.searches}
    swept = [s for s in kept if s.phase == "sweep" and ((None if s.mixed else s.depth_to), s.level) in best]
    if swept:
        loads = {summary.load for summary in swept}
        words = loads.pop() if len(loads) == 1 else "open loop, each at its highest rate that holds"
        return [View(words, tuple(swept))]
    alone = tuple(summary for summary in kept if summary.phase == "alone")
    return [View(alone[0].load, alone)] if alone else []


def samples_of(findings: Findings, summary: Summary) -> list[Sample]:
    """The answered and timed-out requests of a summary; none when only a report.json was read."""
    kept = [cell for cell in findings.cells if cell.number in summary.cells]
    samples = [
        s
        for cell in kept
        for s in measured_samples(cell, summary.depth_from, summary.depth_to, summary.probe)
    ]
    return [s for s in samples if s.outcome in ("ok", "timed_out")]
