"""The written report: report.json, summary.csv and requests.jsonl. Their fields are explained in
docs/loadtest.md.
"""

import csv
import json
import os
import platform
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from loadtest.analyse.rows import Row
from loadtest.analyse.verdict import Verdict
from loadtest.drive.target import Target
from loadtest.errors import LoadTestError
from loadtest.experiment import Findings, Probe
from loadtest.plan import Plan

SCHEMA_VERSION = 1
PERCENTILE_COLUMNS = ("p50", "p90", "p95", "p99", "max")


def build_report(findings: Findings, target: Target, verdict: Verdict) -> dict[str, Any]:
    """The report as JSON values: milliseconds (`_ms`), seconds (`_s`) and requests per second."""
    plan = findings.plan
    limited = [health.limit for health in findings.client if health.limit]
    return {
        "schema_version": SCHEMA_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "interrupted": findings.interrupted,
        "verdict": {
            "passed": verdict.passed,
            "exit_code": verdict.exit_code,
            "reasons": list(verdict.reasons),
        },
        "target": asdict(target),
        "plan": plan_fields(plan),
        "environment": environment(),
        "rows": [row_fields(row, plan.slo_p99_ms) for row in findings.rows],
        "fits": [asdict(fit) for fit in findings.fits],
        "probe": _probe_fields(findings.probe, plan.slo_p99_ms),
        "sweep": [{"depth": found.depth, **asdict(found.search)} for found in findings.searches],
        "client": {"limited": bool(limited), "cells": [asdict(health) for health in findings.client]},
        "cells": [
            {"cell": m.number, **asdict(m.cell), "requests": len(m.samples), "interrupted": m.interrupted}
            for m in findings.cells
        ],
    }


def plan_fields(plan: Plan) -> dict[str, Any]:
    """The plan as JSON values, without the key."""
    fields = asdict(plan)
    del fields["api_key"]
    fields["problems"] = str(plan.problems) if plan.problems else None
    fields["mix"] = plan.mix.name if plan.mix else None
    fields["loop"] = plan.loop
    return fields


def row_fields(row: Row, slo_p99_ms: float | None) -> dict[str, Any]:
    """A row as JSON values, with what follows from it."""
    fields = asdict(row)
    fields["used_depths"] = {str(steps): count for steps, count in row.used_depths.items()}
    fields["error_rate"] = row.error_rate
    fields["keeps_slo"] = None if slo_p99_ms is None else row.keeps(slo_p99_ms)
    return fields


def _probe_fields(probe: Probe | None, slo_p99_ms: float | None) -> dict[str, Any] | None:
    if probe is None:
        return None
    return {
        "alone": row_fields(probe.alone, slo_p99_ms),
        "among": row_fields(probe.among, slo_p99_ms),
        "deep": row_fields(probe.deep, slo_p99_ms),
        "added_ms": probe.added_ms,
        "added_steps": probe.added_steps,
    }


def environment() -> dict[str, Any]:
    """The client machine, as far as it bears on the figures."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "clock_resolution_s": time.get_clock_info("monotonic").resolution,
        "switch_interval_s": sys.getswitchinterval(),
        "packages": {name: version(name) for name in ("httpx", "numpy")},
    }


def make_folder(out: Path) -> None:
    """Makes the report's folder before anything is measured. Raises LoadTestError when it cannot be written
    to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "report.json").touch()
    except OSError as error:
        raise LoadTestError(f"cannot write the report to {out}: {error}") from error


def write_files(report: dict[str, Any], findings: Findings, out: Path) -> None:
    """Writes the three files into the folder `out`."""
    (out / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    _write_summary(findings, out / "summary.csv")
    _write_requests(findings, out / "requests.jsonl")


def _write_summary(findings: Findings, path: Path) -> None:
    rows = [*findings.rows, *([findings.probe.among] if findings.probe else [])]
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.DictWriter(file, summary_fields(rows[0]).keys() if rows else ["phase"])
        lines.writeheader()
        lines.writerows(summary_fields(row) for row in rows)


def summary_fields(row: Row) -> dict[str, Any]:
    """One line of summary.csv; an unknown figure is an empty cell."""
    fields: dict[str, Any] = {
        "phase": "probe depth 1" if row.probe else row.phase,
        "loop": row.loop,
        "level": row.level,
        "depth_from": row.depth_from,
        "depth_to": row.depth_to,
        **row.outcomes,
    }
    for name in PERCENTILE_COLUMNS:
        fields[f"latency_{name}_ms"] = _figure(getattr(row.latency_ms, name, None))
    spreads = {
        "queue": row.queue_ms,
        "compute": row.compute_ms,
        "outside": row.outside_ms,
        "first_step": row.first_step_ms,
        "between_steps": row.between_steps_ms,
        "late": row.late_ms,
    }
    for name, spread in spreads.items():
        fields[f"{name}_p50_ms"] = _figure(spread.p50 if spread else None)
        fields[f"{name}_p99_ms"] = _figure(spread.p99 if spread else None)
    return {
        **fields,
        "steps_asked_mean": _figure(row.steps_asked),
        "steps_used_mean": _figure(row.steps_used),
        "rate_offered": _figure(row.rates.offered),
        "rate_achieved": _figure(row.rates.achieved),
        "goodput": _figure(row.rates.goodput),
        "accuracy": _figure(row.accuracy.share if row.accuracy else None),
    }


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _write_requests(findings: Findings, path: Path) -> None:
    """One line a request, warm-up included, in the order of the cells and of their intended starts."""
    with path.open("w", encoding="utf-8") as file:
        for measured in findings.cells:
            place = {"cell": measured.number, "phase": measured.cell.phase}
            file.writelines(json.dumps({**place, **sample._asdict()}) + "\n" for sample in measured.samples)
