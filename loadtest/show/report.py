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

from loadtest.analyse.capacity import capacity
from loadtest.analyse.findings import DepthSearch, Findings, Probe
from loadtest.analyse.summaries import Summary
from loadtest.analyse.verdict import Verdict
from loadtest.drive.target import Target
from loadtest.errors import LoadTestError
from loadtest.plan import LoadPlan
from loadtest.show.words import headline

SCHEMA_VERSION = 2
PERCENTILE_COLUMNS = ("p50", "p90", "p95", "p99", "max")


def build_report(findings: Findings, target: Target, verdict: Verdict) -> dict[str, Any]:
    """The report as JSON values: milliseconds (`_ms`), seconds (`_s`) and requests per second."""
    plan = findings.plan
    limited = [health.limit for health in findings.client if health.limit]
    named = f"{target.model} {target.version or ''}".strip()
    return {
        "schema_version": SCHEMA_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "interrupted": findings.interrupted,
        "headline": headline(findings, named),
        "verdict": {
            "passed": verdict.passed,
            "exit_code": verdict.exit_code,
            "words": verdict.words,
            "reasons": list(verdict.reasons),
        },
        "target": asdict(target),
        "plan": plan_json(plan),
        "environment": environment(),
        "summaries": [summary_json(summary, plan.slo_p99_ms) for summary in findings.summaries],
        "fits": [asdict(line) for line in findings.fits],
        "probe": _probe_json(findings.probe, plan.slo_p99_ms),
        "sweep": [{"depth": found.depth, **asdict(found.search)} for found in findings.searches],
        "capacity": [_capacity_json(found, plan.plan) for found in findings.searches if plan.plan],
        "client": {"limited": bool(limited), "cells": [asdict(health) for health in findings.client]},
        "server": [asdict(reading) for reading in findings.server],
        "cells": [
            {
                "cell": result.number,
                **asdict(result.cell),
                "start_s": result.start_s,
                "requests": len(result.samples),
                "interrupted": result.interrupted,
            }
            for result in findings.cells
        ],
    }


def plan_json(plan: LoadPlan) -> dict[str, Any]:
    """The plan as JSON values, without the key and the headers, which may be secret."""
    values = asdict(plan)
    for secret in ("api_key", "header"):
        del values[secret]
    for path in ("problems", "replay"):
        values[path] = None if values[path] is None else str(values[path])
    return {**values, "loop": plan.loop}


def summary_json(summary: Summary, slo_p99_ms: float | None) -> dict[str, Any]:
    """A summary as JSON values, with what follows from it."""
    values = asdict(summary)
    values["used_depths"] = {str(steps): count for steps, count in summary.used_depths.items()}
    values["error_rate"] = summary.error_rate
    values["keeps_slo"] = None if slo_p99_ms is None else summary.keeps(slo_p99_ms)
    return values


def _probe_json(probe: Probe | None, slo_p99_ms: float | None) -> dict[str, Any] | None:
    if probe is None:
        return None
    parts = {"control": probe.control, "among": probe.among, "deep": probe.deep}
    return {**asdict(probe), **{name: summary_json(part, slo_p99_ms) for name, part in parts.items()}}


def _capacity_json(found: DepthSearch, rate: float) -> dict[str, Any]:
    needed = capacity(found, rate)
    return {**asdict(needed), "servers": needed.servers}


def environment() -> dict[str, Any]:
    """The client machine, as far as it bears on the figures."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "clock_resolution_s": time.get_clock_info("monotonic").resolution,
        "switch_interval_s": sys.getswitchinterval(),
        "packages": {name: version(name) for name in ("httptools", "numpy")},
    }


def make_folder(out: Path, report: bool = True) -> None:
    """Makes the report's folder before anything is measured, or a folder to draw a report into. Raises
    LoadTestError when it cannot be written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        if report:
            (out / "report.json").touch()
    except OSError as error:
        raise LoadTestError(f"cannot write the report to {out}: {error}") from error


def write_files(report: dict[str, Any], findings: Findings, out: Path) -> None:
    """Writes the three files into the folder `out`."""
    (out / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    _write_summary(findings, out / "summary.csv")
    _write_requests(findings, out / "requests.jsonl")


def _write_summary(findings: Findings, path: Path) -> None:
    probes = [findings.probe.control, findings.probe.among] if findings.probe else []
    lines = [summary_line(summary) for summary in (*findings.summaries, *probes)]
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, lines[0].keys() if lines else ["phase"])
        table.writeheader()
        table.writerows(lines)


def summary_line(summary: Summary) -> dict[str, Any]:
    """One line of summary.csv; an unknown figure is an empty cell."""
    fields: dict[str, Any] = {
        "phase": f"{summary.phase} depth 1" if summary.probe else summary.phase,
        "loop": summary.loop,
        "level": summary.level,
        "depth_from": summary.depth_from,
        "depth_to": summary.depth_to,
        **summary.outcomes,
    }
    for name in PERCENTILE_COLUMNS:
        fields[f"latency_{name}_ms"] = _figure(getattr(summary.latency_ms, name, None))
    spreads = {
        "queue": summary.queue_ms,
        "compute": summary.compute_ms,
        "outside": summary.outside_ms,
        "first_step": summary.first_step_ms,
        "between_steps": summary.between_steps_ms,
        "late": summary.late_ms,
    }
    for name, spread in spreads.items():
        fields[f"{name}_p50_ms"] = _figure(spread.p50 if spread else None)
        fields[f"{name}_p99_ms"] = _figure(spread.p99 if spread else None)
    return {
        **fields,
        "steps_asked_mean": _figure(summary.steps_asked),
        "steps_used_mean": _figure(summary.steps_used),
        "rate_offered": _figure(summary.rates.offered),
        "rate_achieved": _figure(summary.rates.achieved),
        "goodput": _figure(summary.rates.goodput),
        "accuracy": _figure(summary.accuracy.share if summary.accuracy else None),
    }


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _write_requests(findings: Findings, path: Path) -> None:
    """One line a request, warm-up included, in the order of the cells and of their intended starts."""
    with path.open("w", encoding="utf-8") as file:
        for result in findings.cells:
            place = {"cell": result.number, "phase": result.cell.phase}
            file.writelines(json.dumps({**place, **sample._asdict()}) + "\n" for sample in result.samples)


def read_report(path: Path) -> dict[str, Any]:
    """The report in a folder or a file. Raises LoadTestError when there is none that can be read."""
    file = path / "report.json" if path.is_dir() else path
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LoadTestError(f"{path} is not a load test report: {error}") from error
    if not isinstance(report, dict) or report.get("schema_version") != SCHEMA_VERSION:
        raise LoadTestError(f"{path} is not a report of schema version {SCHEMA_VERSION}")
    return report
