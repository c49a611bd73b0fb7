"""DELETE /v1/requests/{id}: end a request that runs, with its best answers so far."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from service.errors import UnknownRequest
from service.http.keys import Caller, check_key
from service.http.middleware import json_response
from service.http.v1.answer_schemas import Cancelled, ErrorBody
from service.http.v1.infer import Service

RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"model": Cancelled, "description": "Whoever waits for the request gets its answer now."},
    404: {"model": ErrorBody, "description": "`unknown_request`: no such request of this key runs."},
}
router = APIRouter(dependencies=[Depends(check_key)], tags=["inference"])


@router.delete("/v1/requests/{id:path}", summary="Cancel a running request", responses=RESPONSES)
async def cancel(request: Request, id: str) -> Response:  # noqa: A002  the name in the path
    """Ends every running request of this id and key. `cancelled` counts the problems that had not ended.

    Those that have begun answer with at most the step that is due; the others take none.
    """
    service: Service = request.app.state.service
    caller: Caller = request.scope["state"]["caller"]
    cancelled = service.fleet.stop(caller.name, id)
    if not cancelled:
        raise UnknownRequest(f"no request {id!r} of this key runs; it may have ended", "id")
    return json_response({"id": id, "cancelled": cancelled})
