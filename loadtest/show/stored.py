"""Findings read back from a report's files, so that they can be drawn again."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from loadtest.analyse.findings import DepthSearch, Findings, LineFit, Probe
from loadtest.analyse.limits import ClientHealth
from loadtest.analyse.summaries import Summary
from loadtest.analyse.sweep import Search
from loadtest.drive.cells import Cell
from loadtest.drive.pool import CellResult
from loadtest.drive.samples import Sample
from loadtest.drive.scrape import Reading
from loadtest.errors import LoadTestError
from loadtest.plan import LoadPlan
from loadtest.show.report import read_report


def read_findings(path: Path) -> tuple[dict[str, Any], Findings]:
    """A report, and what had been found: all of it where requests.jsonl lies beside report.json, and else
    without the single requests.

    Raises LoadTestError for what is no report.
    """
    report = read_report(path)
    folder = path if path.is_dir() else path.parent
    try:
        samples = _samples(folder / "requests.jsonl")
        return report, _findings(report, samples)
    except (ValidationError, KeyError, TypeError, ValueError) as error:
        raise LoadTestError(f"{path} is damaged: {' '.join(str(error).split())[:200]}") from error


def _findings(report: dict[str, Any], samples: dict[int, list[Sample]] | None) -> Findings:
    known = {each.name for each in dataclasses.fields(LoadPlan)}
    plan = TypeAdapter(LoadPlan).validate_python({k: v for k, v in report["plan"].items() if k in known})
    cells = () if samples is None else tuple(_cell(entry, samples) for entry in report["cells"])
    return Findings(
        plan=plan,
        cells=cells,
        summaries=TypeAdapter(tuple[Summary, ...]).validate_python(report["summaries"]),
        fits=TypeAdapter(tuple[LineFit, ...]).validate_python(report["fits"]),
        probe=TypeAdapter(Probe | None).validate_python(report["probe"]),
        searches=tuple(
            DepthSearch(entry["depth"], TypeAdapter(Search).validate_python(entry))
            for entry in report["sweep"]
        ),
        client=TypeAdapter(tuple[ClientHealth, ...]).validate_python(report["client"]["cells"]),
        server=TypeAdapter(tuple[Reading, ...]).validate_python(report["server"]),
        interrupted=report["interrupted"],
    )


def _cell(entry: dict[str, Any], samples: dict[int, list[Sample]]) -> CellResult:
    cell = TypeAdapter(Cell).validate_python(entry)
    number = int(entry["cell"])
    return CellResult(number, cell, entry["start_s"], samples.get(number, []), (), entry["interrupted"])


def _samples(path: Path) -> dict[int, list[Sample]] | None:
    """Samples by cell; None without the file."""
    if not path.exists():
        return None
    found: dict[int, list[Sample]] = {}
    with path.open(encoding="utf-8") as file:
        for line in file:
            entry = json.loads(line)
            cell, _ = entry.pop("cell"), entry.pop("phase")
            found.setdefault(cell, []).append(Sample(**{**entry, "gaps_ms": tuple(entry["gaps_ms"])}))
    return found
