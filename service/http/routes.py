"""What a server says about itself: its models, its health, its metrics and its versions."""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib import metadata
from typing import Any

from fastapi import APIRouter, Depends, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import PlainTextResponse, Response

from model.halting import Criterion
from model.manifest import Manifest
from service.engine.served_model import ServedModel
from service.errors import Unavailable
from service.fleet import title
from service.http.keys import check_key
from service.http.middleware import json_response
from service.http.v1.answer_schemas import ErrorBody
from service.http.v1.infer import Service
from service.runners.runner import Runner

DISTRIBUTION = "fathom-depth"
RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "torch", "numpy", "fastapi", "uvicorn")
UNKNOWN_MODEL: dict[int | str, dict[str, Any]] = {
    404: {"model": ErrorBody, "description": "`unknown_model`: no such model or version."}
}
NOT_READY: dict[int | str, dict[str, Any]] = {
    503: {"model": ErrorBody, "description": "`unavailable`: the message says why."}
}
models = APIRouter(dependencies=[Depends(check_key)], tags=["models"])
operations = APIRouter(tags=["operations"])


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


@models.get("/v1/models", summary="List the models")
async def list_models(request: Request) -> Response:
    """Every version of every model, with its task, step limits, default halting and where it runs."""
    fleet = _service(request).fleet
    shown = ("name", "version", "versions", "default", "task", "description", "steps", "halting", "criteria")
    described = [_described(served, request) for served in fleet.models]
    rows = [{key: model[key] for key in (*shown, "backend", "device", "status")} for model in described]
    return json_response({"models": [*rows, *map(_shelved, await fleet.shelved())]})


@models.get("/v1/models/{name}", summary="Describe a model", responses=UNKNOWN_MODEL)
async def show_model(request: Request, name: str) -> Response:
    """The manifest of `name` or `name@version`: step limits, calibration, versions, an example input."""
    fleet = _service(request).fleet
    await fleet.fetch(name)
    return json_response(_described(fleet.find(name), request))


@operations.get("/health/live", summary="Is the process alive?", responses=NOT_READY)
async def live(request: Request) -> Response:
    """503 once an engine has failed for good: loading the model anew, or a new process, brings it back."""
    if (reason := _service(request).fleet.failed()) is not None:
        raise Unavailable(f"not alive: {reason}")
    return json_response({"status": "live"})


@operations.get("/health/ready", summary="May traffic be sent here?", responses=NOT_READY)
async def ready(request: Request) -> Response:
    """503 until every model has taken a real step, while draining, and when no model's engine works."""
    if (reason := _service(request).fleet.health()) is not None:
        raise Unavailable(f"not ready: {reason}")
    return json_response({"status": "ready"})


@operations.get("/metrics", summary="Metrics for Prometheus", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    return Response(_service(request).metrics.page(), headers={"content-type": CONTENT_TYPE_LATEST})


@operations.get("/version", summary="What runs here")
async def version(request: Request) -> Response:
    """Versions of Fathom, Python and the runtimes, and what runs each model on which device."""
    models = _service(request).fleet.models
    devices = sorted({served.runner.device for served in models})
    content = {
        "fathom": fathom_version(),
        "python": platform.python_version(),
        "runtimes": {name: found for name in RUNTIMES if (found := _installed(name))},
        "device": ", ".join(devices),
        "models": {
            title(served): {"backend": served.runner.backend, "device": served.runner.device}
            for served in models
        },
    }
    return json_response(content)


def fathom_version() -> str:
    """The installed version of Fathom; "unknown" where it runs from a tree that was never installed."""
    return _installed(DISTRIBUTION) or "unknown"


def _installed(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _rule(criterion: Criterion) -> dict[str, Any]:
    """Which way a criterion's score points, and what it is compared with where a request does not say."""
    return {
        "halts": "above" if criterion.halts_above else "below",
        "default": criterion.default,
        "meaning": criterion.meaning,
    }


def _computing(runner: Runner) -> dict[str, Any]:
    """The device, how exactly it multiplies and what that changes, and whether it is kept a step ahead."""
    about = runner.computing
    return {
        "device_name": about.device_name or None,
        **asdict(about.numerics),
        "ahead": runner.ahead,
        "parity": None if about.parity is None else asdict(about.parity),
    }


def _shelved(manifest: Manifest) -> dict[str, Any]:
    """A row of /v1/models for a model that is opened when it is asked for."""
    whole = manifest.model_dump(mode="json")
    shown = {key: whole[key] for key in ("name", "version", "task", "description", "steps", "halting")}
    return {**shown, "criteria": list(manifest.criteria), "status": "opened when it is asked for"}


def _described(served: ServedModel, request: Request) -> dict[str, Any]:
    service, manifest = _service(request), served.bundle.manifest
    bounds = service.limits.of(request.scope["state"]["caller"])
    versions = service.fleet.versions(manifest.name)
    return {
        **manifest.model_dump(mode="json"),
        "versions": versions,
        "default": manifest.version == versions[-1],
        "criteria": list(manifest.criteria),
        "rules": {name: _rule(criterion) for name, criterion in manifest.criteria.items()},
        "limits": {
            "max_problems": bounds.max_problems,
            "max_body_bytes": bounds.max_body_bytes,
        },
        "example": served.codec.example,
        "schema": served.codec.schema,
        "backend": served.runner.backend,
        "device": served.runner.device,
        "computing": _computing(served.runner),
        "status": served.health() or "ready",
    }
