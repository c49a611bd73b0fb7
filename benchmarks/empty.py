"""An endpoint that takes and returns bodies shaped like Fathom's and does nothing: what a framework costs.

uvicorn --app-dir benchmarks empty:app
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel


class Halting(BaseModel):
    criterion: str | None = None
    threshold: float | None = None


class InferRequest(BaseModel):
    """The fields that the benchmark sends."""

    model: str | None = None
    input: Any
    max_steps: int = 16
    halting: Halting | None = None


class Result(BaseModel):
    answer: bool = True
    label: str = "reachable"
    steps: int = 1
    max_steps: int = 1
    halt_reason: str = "budget"
    probabilities: dict[str, float] = {"unreachable": 0.0123456789, "reachable": 0.9876543211}


class InferAnswer(BaseModel):
    """As Fathom's, with a result for each problem."""

    id: str = "req_0123456789abcdef01234567"
    model: str = "graph"
    version: str = "1"
    results: list[Result]
    usage: dict[str, int] = {"steps": 1}
    timings_ms: dict[str, float] = {"queue": 0.123, "compute": 0.456, "total": 0.789}


# Without telemetry, as Fathom: the fastest that the framework goes.
app = FastAPI(telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False})


@app.post("/v1/infer")
async def infer(request: InferRequest) -> InferAnswer:
    problems = request.input if isinstance(request.input, list) else [request.input]
    return InferAnswer(results=[Result() for _ in problems])
