"""Who may knock from a browser: the names this server answers to, and the origins whose pages may call it."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import error_body
from service.http.middleware import Headings, in_shape, json_response
from service.settings import Settings

LOOPBACK = ("localhost", "*.localhost", "127.0.0.1", "::1", "[::1]")
METHODS = ("GET", "POST", "DELETE")
SENT = (  # headers that a page may send beside the harmless ones
    "Authorization",
    "Content-Encoding",
    "Content-Type",
    "Inference-Header-Content-Length",
    "X-Request-Id",
    "traceparent",
    "tracestate",
)
SHOWN = (
    "Inference-Header-Content-Length",
    "Retry-After",
    "X-Request-Id",
    "traceresponse",
)  # headers it may read
WORDS = {  # what to say instead of the library's, by the beginning of them
    "Invalid host header": "the Host header names a server that this one is not; an operator can allow the "
    "name with FATHOM_ALLOWED_HOSTS",
    "Disallowed CORS": "pages of this origin may not send this request; an operator can allow the origin "
    "with FATHOM_CORS_ORIGINS",
}


def add_origin_checks(app: FastAPI, settings: Settings) -> None:
    """Check the Host header, and answer preflights where some origin is allowed."""
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=METHODS,
            allow_headers=SENT,
            expose_headers=SHOWN,
        )
    app.add_middleware(HostCheck, allowed_hosts=hosts_of(settings), www_redirect=False)
    app.add_middleware(OneShape)


def hosts_of(settings: Settings) -> list[str]:
    """The names that a Host header may have.

    A server on loopback is called by loopback's names. Another name means that a page somewhere has had its
    own name point here (DNS rebinding), or a proxy, whose name the operator knows.
    """
    if settings.allowed_hosts:
        return list(settings.allowed_hosts)
    return list(LOOPBACK) if settings.host in LOOPBACK or settings.host.startswith("127.") else ["*"]


def door_of(settings: Settings) -> Callable[[Headings], bool]:
    """Of a request's headers: whether the checks that add_origin_checks adds would let it pass as it is.

    False where it takes them to know.
    """
    names = {name.encode() for name in hosts_of(settings) if "*" not in name}
    every, origins = "*" in hosts_of(settings), bool(settings.cors_origins)

    def passes(headers: Headings) -> bool:
        if origins and b"origin" in headers:
            return False
        return every or headers.get(b"host", b"").partition(b":")[0] in names

    return passes


class HostCheck(TrustedHostMiddleware):
    """Asks for a known name everywhere but at /health: who probes there knows an address, or sends none."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        probed = scope["type"] == "http" and scope["path"].startswith("/health/")
        await (self.app if probed else super().__call__)(scope, receive, send)


class OneShape:
    """ASGI middleware: refusals that other middleware words as plain text get the shape of every error."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal: Message | None = None

        async def send_in_shape(message: Message) -> None:
            nonlocal refusal
            if message["type"] == "http.response.start":
                plain = Headers(raw=message["headers"]).get("content-type", "").startswith("text/plain")
                refusal = message if plain and message["status"] == 400 else None
                if refusal is not None:
                    return
            elif refusal is not None:
                text = message.get("body", b"").decode()
                words = next((ours for theirs, ours in WORDS.items() if text.startswith(theirs)), text)
                body = in_shape(Request(scope), error_body("bad_request", words))
                response = json_response(body, 400)
                kept = [
                    (name, value)
                    for name, value in refusal["headers"]
                    if name not in (b"content-type", b"content-length")
                ]
                await send({**refusal, "headers": [*response.raw_headers, *kept]})
                await send({"type": "http.response.body", "body": response.body})
                return
            await send(message)

        await self.app(scope, receive, send_in_shape)
