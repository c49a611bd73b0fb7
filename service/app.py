"""The application: create_app ties settings, models, routes and the error shape together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from service.bundles.opening import open_fleet
from service.bundles.repository import Repository
from service.engine.served_model import ServedModel
from service.fleet import Fleet, title
from service.http.keys import keys_of
from service.http.limits import Limits
from service.http.middleware import RequestMiddleware, install_error_handlers
from service.http.origins import add_origin_checks, door_of
from service.http.page import add_pages
from service.http.page.examples import add_examples
from service.http.routes import fathom_version, models, operations
from service.http.v1.answer_schemas import StepEvent
from service.http.v1.infer import Service, infer_directly
from service.http.v1.infer import router as inference
from service.http.v1.running import router as running
from service.http.v1.schemas import InferRequest
from service.http.v2.body import OpenInferRequest
from service.http.v2.repository import IndexRequest, LoadRequest, UnloadRequest
from service.http.v2.repository import router as repository_v2
from service.http.v2.routes import health as health_v2
from service.http.v2.routes import router as inference_v2
from service.settings import Settings
from service.telemetry.capture import open_capture
from service.telemetry.metrics import Metrics
from service.telemetry.tracing import open_tracing

ABOUT = """Serves models that think for as many steps as the caller asks.

Every error has the same shape: `{"error": {"code", "message", "field"}}`. Every response carries
`X-Request-Id`, which is the caller's own where it sent one.
"""


BUSY = "`overloaded`: the server is full, or a limit is reached. `Retry-After` says when to come back."
OF_KEYS = {"401": "`unauthorized`: the server wants an API key.", "429": BUSY}
OF_BODIES = {
    "400": "`invalid_json` or `bad_request`: the body is not JSON, or not the gzip it says it is.",
    "408": "`too_slow`: the request did not arrive in time.",
    "413": "`too_large`: the body is over the limit.",
    "415": "`unknown_encoding`: the body is compressed in a way that is not read.",
    "422": "`invalid`: the message says where, and what to do.",
    "429": BUSY,
}


REQUESTS = (InferRequest, OpenInferRequest, IndexRequest, LoadRequest, UnloadRequest)


def create_app(settings: Settings, opener: Callable[[Settings, Metrics], Fleet] = open_fleet) -> FastAPI:
    """An application that opens the bundles when it starts and drains when it stops.

    opener makes the fleet; tests give one of their own. Starting raises BundleError or StartupError.
    """
    metrics = Metrics(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        fleet = opener(settings, metrics)
        capture = open_capture(settings)
        app.state.service = Service(settings, metrics, fleet, app.state.limits, capture)
        metrics.of_server(fathom_version(), lambda: fleet.budget.used, fleet.ready)
        fleet.start()
        app.state.repository = Repository(settings, metrics, fleet)
        try:
            async with app.state.repository.watched():
                yield
        finally:
            await fleet.shut_down(settings.drain_seconds)
            for last in (capture, tracing):
                if last is not None:
                    await asyncio.to_thread(last.close)

    app = FastAPI(
        title="Fathom",
        version=fathom_version(),
        description=ABOUT,
        lifespan=lifespan,
        docs_url=None,  # service/http/page has one that needs no other host
        redoc_url=None,
        redirect_slashes=False,  # to wherever the caller's Host header says
        # We have traces of our own (service/telemetry/tracing.py).
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.settings = settings
    app.state.keys = keys_of(settings)
    app.state.limits = Limits(settings)
    for router in (inference, running, models, operations, inference_v2, health_v2, repository_v2):
        app.include_router(router)
    add_pages(app, settings.page == "on")
    install_error_handlers(app)
    add_origin_checks(app, settings)
    tracing = open_tracing(settings)
    app.add_middleware(
        RequestMiddleware,
        metrics=metrics,
        logs_access=settings.access_log,
        tracing=tracing,
        door=door_of(settings),
        direct={("POST", "/v1/infer"): infer_directly},
    )
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's description, with the bodies that the routes read and write by themselves.

    Made once for the models that are served.
    """
    service: Service = app.state.service
    newest = {served.bundle.manifest.name: served for served in service.fleet.models}  # the newest of each
    titles = [title(served) for served in newest.values()]
    if app.openapi_schema is None or app.openapi_schema["x-models"] != titles:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        _, own = models_json_schema(
            [*((model, "validation") for model in REQUESTS), (StepEvent, "serialization")],
            ref_template="#/components/schemas/{model}",
        )
        schemas = schema["components"]["schemas"]
        schemas |= own["$defs"]
        # The framework's idea of a validation error, which no route of ours ever answers with.
        del schemas["HTTPValidationError"], schemas["ValidationError"]
        for operation in (each for path in schema["paths"].values() for each in path.values()):
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
        _tell_of_common_errors(schema)
        _tell_of_the_models(schema, newest, app.state.settings)
        add_examples(schema, newest)
        if not app.state.keys.wanted:
            _leave_out_keys(schema)
        app.openapi_schema = schema | {"x-models": titles}
    return app.openapi_schema


def _tell_of_common_errors(schema: dict[str, Any]) -> None:
    """What every operation answers that wants a key or reads a body; routes describe what is their own."""
    for path, methods in schema["paths"].items():
        shape = "V2Error" if path.startswith("/v2") else "ErrorBody"
        content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{shape}"}}}
        for operation in methods.values():
            common = OF_KEYS if "security" in operation else {}
            common = common | (OF_BODIES if "requestBody" in operation else {})
            for status, words in common.items():
                operation["responses"].setdefault(status, {"description": words, "content": content})
            operation["responses"] = dict(sorted(operation["responses"].items()))


def _tell_of_the_models(schema: dict[str, Any], newest: dict[str, ServedModel], settings: Settings) -> None:
    """What a request may hold: the problems that the models' codecs read, and an example for each model."""
    request = schema["components"]["schemas"]["InferRequest"]
    if len(newest) > 1:
        request["anyOf"] = [{"required": ["model", "input"]}, {"required": ["continue_from"]}]
    problems: list[dict[str, Any]] = []
    for served in newest.values():
        if served.codec.schema not in problems:
            problems.append(served.codec.schema)
    several = {
        "type": "array",
        "minItems": 1,
        "maxItems": settings.max_problems,
        "items": {"anyOf": problems},
    }
    request["properties"]["input"]["anyOf"] = [*problems, several]
    bodies = {name: _example(served) for name, served in newest.items()}
    request["examples"] = list(bodies.values())
    content = schema["paths"]["/v1/infer"]["post"]["requestBody"]["content"]["application/json"]
    content["examples"] = {name: {"summary": name, "value": body} for name, body in bodies.items()}


def _example(served: ServedModel) -> dict[str, Any]:
    """A request for a model that halts by the rule it was measured to be right with."""
    manifest = served.bundle.manifest
    return {
        "model": manifest.name,
        "input": served.codec.example,
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
