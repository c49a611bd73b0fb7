"""Models that come and go: what is in the repository, load and unload, for whoever has an admin key."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from model.errors import RequestError
from service.bundles.repository import Repository
from service.http.keys import check_admin, check_key
from service.http.middleware import json_response
from service.http.v1.infer import Service
from service.http.v1.requests import read_json
from service.http.v2.routes import errors

ADMIN = errors(_403="The key is not for administration, or the server has none that is.")
router = APIRouter(tags=["open inference protocol"])


def _described(**fields: dict[str, Any]) -> dict[str, Any]:
    """A body that may be left out, with these fields."""
    schema = {"type": "object", "properties": fields, "additionalProperties": False}
    return {"requestBody": {"content": {"application/json": {"schema": schema}}}}


def _repository(request: Request) -> Repository:
    repository: Repository = request.app.state.repository
    return repository


@router.post(
    "/v2/repository/index",
    summary="List what could be served",
    dependencies=[Depends(check_key)],
    responses=errors(_409="The repository cannot be read."),
    openapi_extra=_described(ready={"type": "boolean"}),
)
async def index(request: Request) -> Response:
    """Every version on disk or served, with its state; `{"ready": true}` leaves out what is not ready.

    `reason` says why a version is not served, or why the last load of its model failed.
    """
    asked = await _body(request, {"ready": bool})
    entries = await _repository(request).index()
    shown = [entry for entry in entries if entry.state == "READY" or not asked.get("ready")]
    return json_response([vars(entry) for entry in shown])


@router.post(
    "/v2/repository/models/{name}/load",
    summary="Load a model, or load it anew",
    dependencies=[Depends(check_admin)],
    responses=ADMIN
    | errors(
        _404="There is no such model in the repository.",
        _409="A version cannot be served: the message says why. What was served before still is.",
    ),
    openapi_extra=_described(parameters={"type": "object", "maxProperties": 0}),
)
async def load(request: Request, name: str) -> Response:
    """Serves all versions of a model as they lie on disk, at once or not at all.

    Answers when they have taken a step. What runs on the versions of before finishes there.
    """
    parameters = (await _body(request, {"parameters": dict})).get("parameters", {})
    for parameter in parameters:
        raise RequestError(
            "a model is loaded as it lies in the repository: no parameters are taken here",
            f"parameters.{parameter[:100]}",
        )
    await _repository(request).load(name)
    return json_response({"name": name, "load": True})


@router.post(
    "/v2/repository/models/{name}/unload",
    summary="Unload a model",
    dependencies=[Depends(check_admin)],
    responses=ADMIN | errors(_404="No such model is served."),
    openapi_extra=_described(
        parameters={"type": "object", "properties": {"unload_dependents": {}}, "additionalProperties": False}
    ),
)
async def unload(request: Request, name: str) -> Response:
    """Nobody finds the model any more; what runs on it finishes."""
    parameters = (await _body(request, {"parameters": dict})).get("parameters", {})
    for parameter in parameters:
        if parameter != "unload_dependents":  # which no model has
            raise RequestError("is unknown; there is unload_dependents", f"parameters.{parameter[:100]}")
    await _repository(request).unload(name)
    return json_response({"name": name, "unload": True})


async def _body(request: Request, known: dict[str, type]) -> dict[str, Any]:
    """A small JSON object, or nothing, which is an empty one. Raises InvalidJson or RequestError."""
    service: Service = request.app.state.service
    async with service.bodies.read(request) as body:
        content = await service.threads.run(
            len(body) < 2**12, lambda: read_json(body) if body.strip() else {}
        )
    if not isinstance(content, dict):
        raise RequestError("the body must be an object")
    for field, value in content.items():
        if field not in known:
            raise RequestError(f"is unknown; there is {', '.join(known)}", field[:100])
        if type(value) is not known[field]:
            raise RequestError(f"must be of the type {known[field].__name__}", field)
    return content
