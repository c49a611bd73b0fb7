"""The page at / and the API's at /docs: files of this package, under a policy that allows nothing else.

No build step and no other host: a browser gets what lies in `static`, and works without internet.
"""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, FastAPI
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Message, Receive, Scope, Send

STATIC = Path(__file__).parent / "static"
POLICY = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",  # ask whether it has changed: another version brings other files
}


def add_pages(app: FastAPI, page: bool) -> None:
    """Mount the API's page, and where `page` is set the one that shows models thinking."""
    router = APIRouter(include_in_schema=False)

    @router.get("/docs")
    async def reference() -> Response:
        return FileResponse(STATIC / "reference.html", headers=HEADERS)

    if page:

        @router.get("/")
        async def index() -> Response:
            return FileResponse(STATIC / "index.html", headers=HEADERS)

    app.include_router(router)
    app.mount("/page", Assets(directory=STATIC), name="page")


class Assets(StaticFiles):
    """Static files with the pages' headers; what is not there gets the application's own 404."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        await super().__call__(scope, receive, send_with_headers)
