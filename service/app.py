"""The application: create_app ties settings, models, routes and the error shape together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from service.fleet import Fleet, open_fleet
from service.http.front import Front, Keys, install_error_handlers
from service.http.infer import Service
from service.http.infer import router as inference
from service.http.routes import fathom_version, models, operations
from service.http.schemas import InferRequest, StepEvent, problem_schemas
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
    """FastAPI's description, with the bodies that the routes read and write by themselves."""
    if app.openapi_schema is None:
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
        _tell_of_this_server(schema, app)
        app.openapi_schema = schema
    return app.openapi_schema


def _tell_of_this_server(schema: dict[str, Any], app: FastAPI) -> None:
    """What depends on settings and bundles: limits, whether to name a model, whether keys are wanted."""
    settings: Settings = app.state.settings
    service: Service = app.state.service
    request = schema["components"]["schemas"]["InferRequest"]
    if len({worker.bundle.manifest.name for worker in service.fleet.workers}) > 1:
        request["required"] = ["model", *request["required"]]
    request["properties"]["input"]["anyOf"] = problem_schemas(settings)
    if not settings.api_keys:
        del schema["components"]["securitySchemes"]
        for path in schema["paths"].values():
            for operation in path.values():
                operation.pop("security", None)
                operation["responses"].pop("401", None)
