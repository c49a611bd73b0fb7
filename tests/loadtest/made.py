"""Findings put together by hand, for tests of what is made of them."""

from typing import Any

from loadtest.analyse.findings import Findings, find
from loadtest.drive.cells import Cell
from loadtest.drive.messages import Health
from loadtest.drive.pool import CellResult
from loadtest.drive.samples import Sample
from loadtest.drive.scrape import Reading
from loadtest.plan import LoadPlan


def sample(number: int, due_s: float, latency_ms: float, asked: int, **more: Any) -> Sample:
    """An answered request, past the warm-up."""
    fields: dict[str, Any] = {
        "number": number, "problem": 0, "asked": asked, "probe": False, "measured": True, "due_s": due_s,
        "late_ms": 0.0, "wait_ms": 0.0, "latency_ms": latency_ms, "outcome": "ok", "status": 200, "error": "",
        "steps": asked, "queue_ms": 0.1, "compute_ms": latency_ms / 2, "server_ms": latency_ms / 2,
    }  # fmt: skip
    return Sample(**{**fields, **more})


def result(
    number: int, cell: Cell, latency_ms: list[float], depth: int | None = None, **more: Any
) -> CellResult:
    """A cell whose requests took `latency_ms`, evenly spaced over its time."""
    asked = depth or cell.depth
    assert asked is not None, "say how deep the requests of a mix were"
    gap = cell.duration_s / len(latency_ms)
    samples = [
        sample(place, cell.warmup_s + place * gap, latency, asked, **more)
        for place, latency in enumerate(latency_ms)
    ]
    health = Health(len(samples), 0, 0.01, cell.duration_s, (0.1,))
    return CellResult(number, cell, 10.0 * number, samples, (health,), False)


def load_cell(
    level: float, depth: int | None, loop: str = "closed", phase: str = "load", **more: Any
) -> Cell:
    """A cell of ten seconds."""
    return Cell(phase, loop, level, depth, 0, 0.0, 10.0, **more)  # type: ignore[arg-type]


def findings(plan: LoadPlan, *cells: CellResult, **more: Any) -> Findings:
    """What is made of the cells; two readings of the server go with them."""
    readings = (Reading(1.0, running=2.0, steps_per_s=40.0), Reading(2.0, running=3.0, steps_per_s=50.0))
    return find(plan, cells, more.get("searches", ()), readings, interrupted=False)
