"""What happens around every route: an id, the one error shape, the key, the metrics of /v1/infer."""

from __future__ import annotations

import hmac
import logging
import re
import secrets
import time
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model.errors import FathomError
from service.errors import Overloaded, Unauthorized, body_of, error_body, reply_to
from service.http.answers import to_json
from service.http.client import GONE
from service.metrics import UNKNOWN, Metrics

log = logging.getLogger("fathom")
REQUEST_ID = "x-request-id"
SANE_ID = re.compile(r"[ -~]{1,128}")  # printable ASCII
INFER = "/v1/infer"


class Front:
    """ASGI middleware: every response carries X-Request-Id, and every request to /v1/infer is counted.

    A route leaves what it knows in scope["state"]: `model`, the name of the bundle, and `outcome`, the
    status that counts where it is not the one on the status line (a stream that broke down, a client gone).
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        arrived = time.monotonic()
        offered = Headers(scope=scope).get(REQUEST_ID, "")
        id_ = offered if SANE_ID.fullmatch(offered) else f"req_{secrets.token_hex(12)}"
        state = scope["state"] = {**scope.get("state", {}), "id": id_, "arrived": arrived}
        status = 500  # unless a response starts

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = id_
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception:
            state["outcome"] = 500
            raise
        finally:
            if scope["path"] == INFER:
                code = state.get("outcome", status)
                self.metrics.answered(state.get("model", UNKNOWN), code, time.monotonic() - arrived)


def json_response(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON response from plain Python values."""
    return Response(to_json(content), status, headers, media_type="application/json")


def install_error_handlers(app: FastAPI) -> None:
    """Give every error, the framework's own included, the one shape."""

    async def fathom_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, FathomError), f"{error!r} is another handler's"
        headers = {}
        if isinstance(error, Overloaded):
            headers["retry-after"] = str(max(1, round(error.retry_after)))
        if isinstance(error, Unauthorized):
            headers["www-authenticate"] = "Bearer"
        return json_response(body_of(error), reply_to(error).status, headers)

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException), f"{error!r} is another handler's"
        code, message = {
            404: ("not_found", f"there is nothing at {request.url.path}; see /docs"),
            405: ("method_not_allowed", f"{request.method} does not work here; see /docs"),
        }.get(error.status_code, ("http_error", str(error.detail)))
        return json_response(error_body(code, message), error.status_code, dict(error.headers or {}))

    async def our_error(request: Request, _: Exception) -> Response:
        # The server logs the traceback; whoever reports the bug has the id to find it by.
        id_ = request.scope["state"]["id"]
        log.error("request %s failed on an error of ours", id_)
        body = error_body("internal", f"the server failed on this request; report it with its id {id_}")
        return json_response(body, 500, {REQUEST_ID: id_})

    async def client_gone(_: Request, __: Exception) -> Response:
        return Response(status_code=GONE)

    app.add_exception_handler(FathomError, fathom_error)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(ClientDisconnect, client_gone)
    app.add_exception_handler(Exception, our_error)


bearer = HTTPBearer(auto_error=False, description="Needed where the server has api_keys set.")


Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]


def check_key(request: Request, given: Credentials) -> None:
    """Raises Unauthorized unless the server has no keys, or the caller one of them."""
    keys = [key.get_secret_value().encode() for key in request.app.state.service.settings.api_keys]
    if not keys:
        return
    offered = given.credentials.encode() if given else b""
    matches = [hmac.compare_digest(offered, key) for key in keys]  # every key: time tells nothing about them
    if not any(matches):
        raise Unauthorized("this server wants an API key: send Authorization: Bearer KEY")
