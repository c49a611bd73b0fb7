"""Under /v2: what the server and its models are, whether they are ready, and inference."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel
from starlette.responses import Response

from model.halting import HaltReason
from model.manifest import TensorSpec
from service.bundles.repository import Repository
from service.engine.messages import Finished
from service.engine.served_model import ServedModel
from service.errors import Unavailable, UnknownModel
from service.fleet import Fleet
from service.http.envelope import Envelope
from service.http.keys import Caller, check_key
from service.http.middleware import json_response
from service.http.peer import GONE, WaitingClient
from service.http.routes import fathom_version
from service.http.v1.answers import raise_if_all_failed
from service.http.v1.infer import SMALL_BODY, Service
from service.http.v2.batch import HALT_REASON, LOGITS, STEPS, PreparedTensors, prepare_tensors
from service.http.v2.body import HEADER_LENGTH, OpenInferAnswer, answer_bytes, read_request
from service.http.v2.tensors import BYTES, DATATYPES

EXTENSIONS = ("binary_tensor_data", "model_repository", "parameters")
SMALL_ANSWER = 2**14  # values


class V2Error(BaseModel):
    """The shape of every error under /v2."""

    error: str


def errors(**described: str) -> dict[int | str, dict[str, Any]]:
    """Responses of the description: errors(_404="no such model")."""
    return {int(code[1:]): {"model": V2Error, "description": words} for code, words in described.items()}


UNKNOWN = errors(_404="No such model or version.")
NOT_READY = errors(_503="Not ready: the message says why.")
BODY = {
    "parameters": [
        {
            "name": "Inference-Header-Content-Length",
            "in": "header",
            "required": False,
            "schema": {"type": "integer", "minimum": 2},
            "description": "Bytes of the JSON (of the decompressed body), where raw tensors follow it.",
        }
    ],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/OpenInferRequest"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    },
}
INFERRED: dict[int | str, dict[str, Any]] = {
    200: {
        "model": OpenInferAnswer,
        "description": "The outputs; with raw ones, their bytes follow the JSON.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    },
    **errors(
        _404="No such model or version.",
        _500="The model broke down on this request.",
        _503="Not ready, draining or failed.",
    ),
}
router = APIRouter(dependencies=[Depends(check_key)], tags=["open inference protocol"])
health = APIRouter(tags=["open inference protocol"])


def _fleet(request: Request) -> Fleet:
    fleet: Fleet = request.app.state.service.fleet
    return fleet


def _wanted(name: str, version: str | None) -> str:
    return name if version is None else f"{name}@{version}"


@health.get("/v2", summary="What this server is")
async def server(request: Request) -> Response:  # noqa: ARG001
    """Its name, its version and the protocol's extensions that it knows."""
    return json_response({"name": "fathom", "version": fathom_version(), "extensions": EXTENSIONS})


@health.get("/v2/health/live", summary="Is the process alive?", responses=NOT_READY)
async def live(request: Request) -> Response:
    """503 once an engine has failed for good."""
    if (reason := _fleet(request).failed()) is not None:
        raise Unavailable(f"not alive: {reason}")
    return json_response({"live": True})


@health.get("/v2/health/ready", summary="May traffic be sent here?", responses=NOT_READY)
async def ready(request: Request) -> Response:
    """503 as on /health/ready."""
    if (reason := _fleet(request).health()) is not None:
        raise Unavailable(f"not ready: {reason}")
    return json_response({"ready": True, "live": True})


@router.get("/v2/models/{name}/versions/{version}", summary="Describe a version", responses=UNKNOWN)
@router.get("/v2/models/{name}", summary="Describe a model", responses=UNKNOWN)
async def show_model(request: Request, name: str, version: str | None = None) -> Response:
    """Its versions, its encoded inputs, and its outputs. -1 is a length that may differ."""
    await _fleet(request).fetch(_wanted(name, version))
    served = _fleet(request).find(_wanted(name, version))
    manifest = served.bundle.manifest
    shown = {
        "name": manifest.name,
        "versions": _fleet(request).versions(manifest.name),
        "platform": f"fathom_{served.runner.backend}",
        "inputs": [_described(spec) for spec in manifest.inputs],
        "outputs": [
            {**_described(manifest.logits), "name": LOGITS},
            {"name": STEPS, "datatype": DATATYPES["int32"], "shape": [-1]},
            {"name": HALT_REASON, "datatype": BYTES, "shape": [-1]},
            *(_described(spec) for spec in manifest.state),
        ],
    }
    return json_response(shown)


@router.get("/v2/models/{name}/versions/{version}/ready", summary="Is a version ready?", responses=UNKNOWN)
@router.get("/v2/models/{name}/ready", summary="Is a model ready?", responses=UNKNOWN | NOT_READY)
async def model_ready(request: Request, name: str, version: str | None = None) -> Response:
    """503 with the reason while it is being loaded or is out of order."""
    repository: Repository = request.app.state.repository
    try:
        served = _fleet(request).find(_wanted(name, version))
    except UnknownModel:
        if repository.is_loading(name):
            raise Unavailable(f"{name} is being loaded") from None
        raise
    if (reason := served.health()) is not None:
        raise Unavailable(f"{name} is not ready: {reason}")
    return json_response({"name": served.bundle.manifest.name, "ready": True})


@router.post(
    "/v2/models/{name}/versions/{version}/infer",
    summary="Think about rows, in this version",
    responses=INFERRED,
    openapi_extra=BODY,
)
@router.post(
    "/v2/models/{name}/infer",
    summary="Think about rows of encoded tensors",
    responses=INFERRED,
    openapi_extra=BODY,
)
async def infer(request: Request, name: str, version: str | None = None) -> Response:
    """Each row takes a slot, and has its own depth and halt. A client that goes away frees its slots."""
    service: Service = request.app.state.service
    state, wanted = request.scope["state"], _wanted(name, version)
    await service.fleet.fetch(wanted)
    state["model"] = service.fleet.find(wanted).bundle.manifest.name  # before the body is read
    with await service.bodies.read(request) as body:
        small = len(body) <= SMALL_BODY
        length = request.headers.get(HEADER_LENGTH)
        asked = await service.threads.run(small, partial(read_request, body, length))
        caller: Caller = state["caller"]
        most = service.limits.of(caller).max_problems
        envelope = Envelope(state["id"], caller.name, state["arrived"], streams=False, max_problems=most)
        with service.fleet.asking(wanted) as served:
            understand = partial(prepare_tensors, asked, served, service.settings, envelope)
            prepared = await service.threads.run(small, understand)
            ticket = service.admit(request, served, prepared.submission, prepared.reserved)
    ends: list[Finished] = []
    with WaitingClient(request.scope, request.receive, ticket) as client:
        async for events in ticket:
            ends += [event for event in events if isinstance(event, Finished)]
        if client.gone:
            return Response(status_code=GONE)
        raise_if_all_failed(ends, ticket.stopped, encoded="inputs")
        few = len(ends) * sum(prepared.sizes) <= SMALL_ANSWER / 64
        answer = partial(_answer, prepared, served, asked.request.id or state["id"], ends)
        content, headers = await service.threads.run(few, answer)
    return Response(content, headers=headers)


def _answer(
    prepared: PreparedTensors, served: ServedModel, id_: str, ends: list[Finished]
) -> tuple[bytes, dict[str, str]]:
    manifest = served.bundle.manifest
    content: dict[str, Any] = {"model_name": manifest.name, "model_version": manifest.version, "id": id_}
    faults = [f"row {end.index}: {end.error}" for end in ends if end.reason is HaltReason.ERROR]
    if warnings := [*prepared.warnings, *faults]:
        content["parameters"] = {"warnings": "; ".join(warnings)}
    return answer_bytes(content, prepared.tensors(ends))


def _described(spec: TensorSpec) -> dict[str, Any]:
    shape = [size if isinstance(size, int) else -1 for size in spec.shape]
    return {"name": spec.name, "datatype": DATATYPES[spec.dtype], "shape": shape}
