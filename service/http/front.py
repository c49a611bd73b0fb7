"""What happens around every route: an id, the one error shape, the key, the metrics of /v1/infer."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Iterable
from typing import Annotated
from urllib.parse import quote

from fastapi import Depends, FastAPI, Request
from fastapi.security import HTTPBearer
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model.errors import FathomError
from service.errors import Unauthorized, body_of, error_body, headers_of, reply_to
from service.http.answers import to_json
from service.http.client import GONE
from service.metrics import UNKNOWN, Metrics

log = logging.getLogger("fathom")
access = logging.getLogger("fathom.access")
REQUEST_ID = "x-request-id"
SANE_ID = re.compile(r"[ -~]{1,128}")  # printable ASCII
INFER = "/v1/infer"


def new_id() -> str:
    """An id for a request that brings none."""
    return f"req_{secrets.token_hex(12)}"


class Front:
    """ASGI middleware: every response carries X-Request-Id, and every request to /v1/infer is counted.

    Where logs_access is set, every response is a line of the log, without the query: people put keys there.

    A route leaves what it knows in scope["state"]: `model`, the name of the bundle, and `outcome`, the
    status that counts where it is not the one on the status line (a stream that broke down, a client gone).
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, logs_access: bool) -> None:
        self.app = app
        self.metrics = metrics
        self.logs_access = logs_access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        arrived = time.monotonic()
        offered = Headers(scope=scope).get(REQUEST_ID, "")
        id_ = offered if SANE_ID.fullmatch(offered) else new_id()
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
            code = state.get("outcome", status)
            if self.logs_access:
                client, *_ = scope.get("client") or ("-",)
                path = quote(scope["path"])
                access.info("%s %s %s %d %s", client, scope["method"], path, code, id_)
            if scope["path"] == INFER:
                self.metrics.answered(state.get("model", UNKNOWN), code, time.monotonic() - arrived)


def json_response(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON response from plain Python values."""
    return Response(to_json(content), status, headers, media_type="application/json")


def install_error_handlers(app: FastAPI) -> None:
    """Give every error, the framework's own included, the one shape."""

    async def fathom_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, FathomError), f"{error!r} is another handler's"
        return json_response(body_of(error), reply_to(error).status, headers_of(error))

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException), f"{error!r} is another handler's"
        code, message = {
            404: ("not_found", f"there is nothing at {request.scope['path']}; see /docs"),
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


class Keys:
    """The API keys of a server, as hashes of one length: comparing them tells nothing about them."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._hashes = [self._hash(key.encode()) for key in keys]

    def admit(self, authorization: bytes) -> bool:
        """Whether a header's value holds one of the keys, or there are none to hold."""
        scheme, _, offered = authorization.partition(b" ")
        given = self._hash(offered.strip() if scheme.lower() == b"bearer" else b"")
        matches = [hmac.compare_digest(given, key) for key in self._hashes]  # every one of them
        return any(matches) or not matches

    @staticmethod
    def _hash(key: bytes) -> bytes:
        return hashlib.sha256(key).digest()


bearer = HTTPBearer(auto_error=False, description="One of the server's api_keys.")


async def check_key(request: Request, _: Annotated[object, Depends(bearer)]) -> None:
    """Raises Unauthorized unless the server has no keys, or the caller one of them."""
    keys: Keys = request.app.state.keys
    # The bytes as they were sent: a key need not be ASCII.
    header = next((value for name, value in request.scope["headers"] if name == b"authorization"), b"")
    if not keys.admit(header):
        raise Unauthorized("this server wants an API key: send Authorization: Bearer KEY")
