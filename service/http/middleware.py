"""What happens around every route: an id, the one error shape, the key, the metrics of /v1/infer."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model.errors import FathomError
from service.errors import body_of, error_body, headers_of, reply_to
from service.http.peer import GONE
from service.http.record import RequestRecord, trace_of
from service.http.v1.answers import to_json
from service.telemetry.metrics import UNKNOWN, Metrics
from service.telemetry.tracing import Tracing

log = logging.getLogger("fathom")
access = logging.getLogger("fathom.access")
REQUEST_ID = "x-request-id"
REQUEST_ID_BYTES = REQUEST_ID.encode()
Headings = Mapping[bytes, bytes]  # headers by their names in small letters, as they were sent
Endpoint = Callable[[Request], Awaitable[Response]]
SANE_ID = re.compile(r"[ -~]{1,128}")  # printable ASCII
INFER = re.compile(r"/v1/infer|/v2/models/.+/infer")


ID_BYTES, IDS_AT_ONCE = 12, 256
_ids: list[str] = []  # drawn and not given out


def new_id() -> str:
    """An id for a request that brings none; nobody can guess it. Ids are drawn many at a time."""
    try:
        return _ids.pop()
    except IndexError:
        drawn, digits = secrets.token_hex(ID_BYTES * IDS_AT_ONCE), 2 * ID_BYTES
        _ids.extend(f"req_{drawn[at : at + digits]}" for at in range(digits, len(drawn), digits))
        return f"req_{drawn[:digits]}"


class RequestMiddleware:
    """ASGI middleware: every response carries X-Request-Id, and every request to infer is counted.

    Where logs_access is set, every response is a line of the log, without the query: people put keys there.

    A route leaves what it knows in scope["state"]: `model`, the name of the bundle, `caller`, whose key it
    was, and `outcome`, the status that counts where it is not the one on the status line (a stream that broke
    down, a client gone). What becomes of the work it submits is in `record`.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        logs_access: bool,
        tracing: Tracing | None = None,
        door: Callable[[Headings], bool] = lambda _: False,
        direct: Mapping[tuple[str, str], Endpoint] | None = None,
    ) -> None:
        """direct: endpoints by method and path that are called from here, past everything between.

        door: whether a request with these headers may take that way, as nothing between would change it.
        """
        self.app = app
        self.metrics = metrics
        self.logs_access = logs_access
        self.tracing = tracing
        self.door = door
        self.direct = direct or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        arrived = time.monotonic()
        headers = dict(reversed(scope["headers"]))  # of several the first one
        offered = headers[REQUEST_ID_BYTES].decode("latin-1") if REQUEST_ID_BYTES in headers else ""
        secret = _secret_of(headers)
        id_ = offered if SANE_ID.fullmatch(offered) and not (secret and secret in offered) else new_id()
        path = scope["path"]
        endpoint = self.direct.get((scope["method"], path))
        if endpoint is None:
            path = quote(path.replace(secret, "KEY") if secret else path)
        elif not self.door(headers):
            endpoint = None
        client, *_ = scope.get("client") or ("-",)
        trace = trace_of(headers[b"traceparent"].decode("latin-1")) if b"traceparent" in headers else ""
        record = RequestRecord(id_, scope["method"], path, client, arrived, trace)
        span = self.tracing.begin(record, Headers(scope=scope)) if self.tracing else None
        state = scope["state"] = {**scope.get("state", {}), "id": id_, "arrived": arrived, "record": record}
        status = 500  # unless a response starts
        own = [(REQUEST_ID_BYTES, id_.encode())]
        if span:
            own.append((b"traceresponse", span.context.encode()))

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                sent = [header for header in message["headers"] if header[0] != REQUEST_ID_BYTES]
                message = {**message, "headers": sent + own}
            await send(message)

        try:
            if endpoint is None:
                await self.app(scope, receive, send_with_id)
            else:
                await _answer(endpoint, Request(scope, receive), send_with_id)
        except Exception:
            state["outcome"] = 500
            raise
        finally:
            code = state.get("outcome", status)
            if "caller" in state:
                record.key = state["caller"].name
            record.model = state.get("model", "")
            record.over(code)
            if self.logs_access:
                access.info(record.line(), extra={"request": record.shown()})
            if span:
                route = scope["path"] if endpoint else getattr(scope.get("route"), "path", None)
                span.end(record, route)
            if endpoint is not None or INFER.fullmatch(scope["path"]):
                self.metrics.answered(state.get("model", UNKNOWN), code, record.seconds)


async def _answer(endpoint: Endpoint, request: Request, send: Send) -> None:
    """Call an endpoint, and have its errors answered as install_error_handlers does."""
    try:
        await (await endpoint(request))(request.scope, request.receive, send)
    except FathomError as error:
        await error_response(request, error)(request.scope, request.receive, send)
    except ClientDisconnect:
        await Response(status_code=GONE)(request.scope, request.receive, send)


def _secret_of(headers: Headings) -> str:
    """What must not be shown of a request, should it stand elsewhere in it, too."""
    return headers.get(b"authorization", b"").decode("latin-1").rpartition(" ")[2]


def json_response(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON response from plain Python values."""
    return Response(to_json(content), status, headers, media_type="application/json")


def in_shape(request: Request, body: dict[str, Any]) -> dict[str, Any]:
    """An error as the request's protocol has it: /v2 wants {"error": "what is wrong"} and nothing else."""
    if not f"{request.scope['path']}/".startswith("/v2/"):
        return body
    error = body["error"]
    return {"error": f"{error['field']}: {error['message']}" if error["field"] else error["message"]}


def error_response(request: Request, error: FathomError) -> Response:
    """An error of the tree on the wire."""
    return json_response(in_shape(request, body_of(error)), reply_to(error).status, headers_of(error))


def install_error_handlers(app: FastAPI) -> None:
    """Give every error, the framework's own included, the one shape of its protocol."""

    async def fathom_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, FathomError), f"{error!r} is another handler's"
        return error_response(request, error)

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException), f"{error!r} is another handler's"
        code, message = {
            404: ("not_found", f"there is nothing at {request.scope['state']['record'].path}; see /docs"),
            405: ("method_not_allowed", f"{request.method} does not work here; see /docs"),
        }.get(error.status_code, ("http_error", str(error.detail)))
        body = in_shape(request, error_body(code, message))
        return json_response(body, error.status_code, dict(error.headers or {}))

    async def our_error(request: Request, _: Exception) -> Response:
        # The server logs the traceback; whoever reports the bug has the id to find it by.
        id_ = request.scope["state"]["id"]
        log.error("request %s failed on an error of ours", id_)
        body = error_body("internal", f"the server failed on this request; report it with its id {id_}")
        return json_response(in_shape(request, body), 500, {REQUEST_ID: id_})

    async def client_gone(_: Request, __: Exception) -> Response:
        return Response(status_code=GONE)

    app.add_exception_handler(FathomError, fathom_error)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(ClientDisconnect, client_gone)
    app.add_exception_handler(Exception, our_error)
