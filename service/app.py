"""The application: create_app ties settings, models, routes and the error shape together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from service.engine.worker import Worker
from service.fleet import Fleet, open_fleet, title
from service.http.front import Front, Keys, install_error_handlers
from service.http.infer import Service
from service.http.infer import router as inference
from service.http.routes import fathom_version, models, operations
from service.http.schemas import InferRequest, StepEvent
from service.metrics import Metrics
from service.settings import Settings

ABOUT = """Serves models that think for as many steps as the caller asks.

Every error has the same shape: `{"error": {"code", "message", "field"}}`. Every response carries
`X-Request-Id`, which is the caller's own where it sent one.
"""


def create_app(settings: Settings, opener: Callable[[Settings, Metrics], Fleet] = open_fleet) -> FastAPI:
    """An application that opens the bundles when it starts and drains when it stops.

    opener makes the fleet; tests give one of their own. Starting raises BundleError or StartupError.
    """
    metrics = Metrics(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        fleet = opener(settings, metrics)
        app.state.service = Service(settings, metrics, fleet)
        metrics.holding(lambda: fleet.budget.used)
        fleet.start()
        try:
            yield
        finally:
            await fleet.shut_down(settings.drain_seconds)

    app = FastAPI(
        title="Fathom",
        version=fathom_version(),
        description=ABOUT,
        lifespan=lifespan,
        redirect_slashes=False,  # to wherever the caller's Host header says
    )
    app.state.settings = settings
    app.state.keys = Keys(key.get_secret_value() for key in settings.api_keys)
    for router in (inference, models, operations):
        app.include_router(router)
    install_error_handlers(app)
    app.add_middleware(Front, metrics=metrics, logs_access=settings.access_log)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's description, with the bodies that the routes read and write by themselves.

    Made once for the models that are served.
    """
    service: Service = app.state.service
    served = {worker.bundle.manifest.name: worker for worker in service.fleet.workers}  # the newest of each
    titles = [title(worker) for worker in served.values()]
    if app.openapi_schema is None or app.openapi_schema["x-models"] != titles:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        _, own = models_json_schema(
            [(InferRequest, "validation"), (StepEvent, "serialization")],
            ref_template="#/components/schemas/{model}",
        )
        schemas = schema["components"]["schemas"]
        schemas |= own["$defs"]
        # The framework's idea of a validation error, which no route of ours ever answers with.
        del schemas["HTTPValidationError"], schemas["ValidationError"]
        del schema["paths"]["/v1/models/{name}"]["get"]["responses"]["422"]
        _tell_of_the_models(schema, served, app.state.settings)
        if not app.state.settings.api_keys:
            _leave_out_keys(schema)
        app.openapi_schema = schema | {"x-models": titles}
    return app.openapi_schema


def _tell_of_the_models(schema: dict[str, Any], served: dict[str, Worker], settings: Settings) -> None:
    """What a request may hold: the problems that the models' codecs read, and an example for each model."""
    request = schema["components"]["schemas"]["InferRequest"]
    if len(served) > 1:
        request["required"] = ["model", *request["required"]]
    problems: list[dict[str, Any]] = []
    for worker in served.values():
        if worker.codec.schema not in problems:
            problems.append(worker.codec.schema)
    several = {
        "type": "array",
        "minItems": 1,
        "maxItems": settings.max_problems,
        "items": {"anyOf": problems},
    }
    request["properties"]["input"]["anyOf"] = [*problems, several]
    bodies = {name: _example(worker) for name, worker in served.items()}
    request["examples"] = list(bodies.values())
    content = schema["paths"]["/v1/infer"]["post"]["requestBody"]["content"]["application/json"]
    content["examples"] = {name: {"summary": name, "value": body} for name, body in bodies.items()}


def _example(worker: Worker) -> dict[str, Any]:
    """A request for a model that halts by the rule it was measured to be right with."""
    manifest = worker.bundle.manifest
    return {
        "model": manifest.name,
        "input": worker.codec.example,
        "max_steps": manifest.steps.default,
        "halting": manifest.halting.model_dump(include={"criterion", "threshold", "patience"}),
    }


def _leave_out_keys(schema: dict[str, Any]) -> None:
    """For a server that wants none."""
    del schema["components"]["securitySchemes"]
    for path in schema["paths"].values():
        for operation in path.values():
            operation.pop("security", None)
            operation["responses"].pop("401", None)
