"""Runs a plan against a stub server, or the command as a person does."""

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from typer.testing import CliRunner

from loadtest.analyse.findings import Findings
from loadtest.analyse.summaries import Summary
from loadtest.cli import app
from loadtest.drive.samples import Sample
from loadtest.drive.target import discover, try_once
from loadtest.plan import LoadPlan
from loadtest.run import choose_cases, measure
from tests.loadtest.stub import Stub, serving

ROOT = Path(__file__).parents[2]
QUICK = ("--duration", "0.6", "--warmup", "0.2", "--processes", "1")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "loadtest", *arguments],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.output


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
        plan = LoadPlan(**{"url": url, **fields, **changes})
        target = discover(plan)
        plan, cases, recording = choose_cases(plan, target)
        if trial:
            try_once(plan, target, cases[0])
        stub.restart()
        return measure(plan, target, cases, recording, Console(file=io.StringIO()))


def loaded(findings: Findings, depth: int) -> Summary:
    """The summary of one depth under load."""
    return next(one for one in findings.summaries if one.phase == "load" and one.depth_to == depth)


def samples(findings: Findings) -> list[Sample]:
    """Every sample past the warm-up."""
    return [sample for cell in findings.cells for sample in cell.samples if sample.measured]
