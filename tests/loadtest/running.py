"""Runs a plan against a stub server, as the command does but for the report."""

import io
from typing import Any

from rich.console import Console

from loadtest.analyse.rows import Row
from loadtest.drive.samples import Sample
from loadtest.drive.target import discover, try_once
from loadtest.experiment import Findings
from loadtest.plan import Plan
from loadtest.run import choose_problems, measure
from tests.loadtest.stub import Stub, serving


def measured(stub: Stub, *, trial: bool = True, **changes: Any) -> Findings:
    """The findings of a plan of short cells, without baseline and probe unless asked for.

    `trial`: whether the first request must succeed, as the command wants it.
    """
    fields: dict[str, Any] = {
        "model": "stub",
        "alone_s": 0.0,
        "probe_s": 0.0,
        "processes": 1,
        "warmup_s": 0.3,
    }
    with serving(stub) as url:
        plan = Plan(**{"url": url, **fields, **changes})
        target = discover(plan)
        problems = choose_problems(plan, target)
        if trial:
            try_once(plan, target, problems[0])
        stub.restart()
        return measure(plan, target, problems, Console(file=io.StringIO()))


def loaded(findings: Findings, depth: int) -> Row:
    """The row of one depth under load."""
    return next(row for row in findings.rows if row.phase == "load" and row.depth_to == depth)


def samples(findings: Findings) -> list[Sample]:
    """Every sample past the warm-up."""
    return [sample for cell in findings.cells for sample in cell.samples if sample.measured]
