"""Which of the findings a picture shows when it has room for one level only."""

from loadtest.analyse.rows import Row, measured_samples
from loadtest.drive.samples import Sample
from loadtest.experiment import Findings


def shown_rows(findings: Findings) -> list[Row]:
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


def load_of(rows: list[Row]) -> str:
    """The load that all of `rows` were under, in words."""
    loads = list(dict.fromkeys(row.load for row in rows))
    return loads[0] if len(loads) == 1 else "open loop, each at its highest rate that holds"


def shown_samples(findings: Findings, row: Row) -> list[Sample]:
    kept = [m for m in findings.cells if m.number in row.cells]
    samples = [s for m in kept for s in measured_samples(m, row.depth_from, row.depth_to, row.probe)]
    return [s for s in samples if s.outcome in ("ok", "timed_out")]
