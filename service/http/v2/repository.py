"""Models that come and go: what is in the repository, load and unload, for whoever has an admin key."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request
from pydantic import Field
from starlette.responses import Response

from model.errors import RequestError
from service.bundles.repository import Repository
from service.http.json_body import P, Part, read_json, validated
from service.http.keys import check_admin, check_key
from service.http.middleware import json_response
from service.http.v1.infer import SMALL_BODY, Service
from service.http.v2.routes import errors

ADMIN = errors(_403="The key is not for administration, or the server has none that is.")
router = APIRouter(tags=["open inference protocol"])


class IndexRequest(Part):
    ready: bool = Field(default=False, description="Leave out what is not ready.")


class LoadRequest(Part):
    parameters: dict[str, Any] = Field(default={}, json_schema_extra={"maxProperties": 0})


class UnloadParameters(Part):
    unload_dependents: Any = Field(default=None, description="No model has any.")


class UnloadRequest(Part):
    parameters: UnloadParameters = UnloadParameters()


def _described(model: type[Part]) -> dict[str, Any]:
    """A body that may be left out."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"content": {"application/json": {"schema": schema}}}}


def _repository(request: Request) -> Repository:
    repository: Repository = request.app.state.repository
    return repository


@router.post(
    "/v2/repository/index",
    summary="List what could be served",
    dependencies=[Depends(check_key)],
    responses=errors(_409="The repository cannot be read."),
    openapi_extra=_described(IndexRequest),
)
async def index(request: Request) -> Response:
    """Every version on disk or served, with its state; `{"ready": true}` leaves out what is not ready.

    `reason` says why a version is not served, or why the last load of its model failed.
    """
    asked = await _body(request, IndexRequest)
    entries = await _repository(request).index()
    shown = [entry for entry in entries if entry.state == "READY" or not asked.ready]
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
    openapi_extra=_described(LoadRequest),
)
async def load(request: Request, name: str) -> Response:
    """Serves all versions of a model as they lie on disk, at once or not at all.

    Answers when they have taken a step. What runs on the versions of before finishes there.
    """
    for parameter in (await _body(request, LoadRequest)).parameters:
        raise RequestError(
            "a model is loaded as it lies in the repository: no parameters are taken here",
            f"parameters.{parameter}",
        )
    await _repository(request).load(name)
    return json_response({"name": name, "load": True})


@router.post(
    "/v2/repository/models/{name}/unload",
    summary="Unload a model",
    dependencies=[Depends(check_admin)],
    responses=ADMIN | errors(_404="No such model is served."),
    openapi_extra=_described(UnloadRequest),
)
async def unload(request: Request, name: str) -> Response:
    """Nobody finds the model any more; what runs on it finishes."""
    await _body(request, UnloadRequest)
    await _repository(request).unload(name)
    return json_response({"name": name, "unload": True})


async def _body(request: Request, model: type[P]) -> P:
    """A small JSON object, or nothing, which is an empty one. Raises InvalidJson or RequestError."""
    service: Service = request.app.state.service
    with await service.bodies.read(request) as body:
        small = len(body) < SMALL_BODY
        content = await service.threads.run(small, lambda: read_json(body) if body.strip() else {})
    return validated(content, model)
