"""The server process: bind, start, serve, and on SIGTERM finish what runs before the listener closes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Coroutine, Iterator
from typing import Any

import uvicorn
from fastapi import FastAPI

from service.app import create_app
from service.errors import StartupError
from service.fleet import Fleet, title
from service.settings import Settings

log = logging.getLogger("fathom")
LAST_BYTES_SECONDS = 5  # for clients to read the end of their answers once the engines have stopped


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises BundleError or StartupError where that cannot begin."""
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # we tell of our starts and stops ourselves
    logging.getLogger("httpx").setLevel(logging.WARNING)
    hanging = _run(_serve(settings))
    log.info("stopped")
    if hanging:  # a thread that never returns would keep the process; everybody has been answered
        log.error("the engine of %s hangs; ending without it", ", ".join(hanging))
        logging.shutdown()
        os._exit(1)


def _run(main: Coroutine[Any, Any, list[str]]) -> list[str]:
    try:
        from uvloop import new_event_loop
    except ImportError:  # not on every platform
        return asyncio.run(main)
    else:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            return runner.run(main)


async def _serve(settings: Settings) -> list[str]:
    """Serve to the end; returns the models whose engines hang."""
    listener = _bind(settings.host, settings.port)
    try:
        app = create_app(settings)
        # The lifespan is entered here, not by uvicorn, so that a bad bundle is a line and not a traceback,
        # and so that draining comes before the listener closes: until then, /health/ready must say 503.
        async with app.router.lifespan_context(app):
            await _serve_app(app, settings, listener)
        fleet: Fleet = app.state.service.fleet
        return fleet.hanging
    finally:
        listener.close()


async def _serve_app(app: FastAPI, settings: Settings, listener: socket.socket) -> None:
    fleet: Fleet = app.state.service.fleet
    models = ", ".join(title(worker) for worker in fleet.workers)
    server = Server(app, settings, f"serving {models} on http://{_address(listener)}")
    loop, told = asyncio.get_running_loop(), Told()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.once_more)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await _first(serving, told.to_stop.wait())
    if not serving.done():
        log.info("stopping: finishing what runs, for up to %g s", settings.drain_seconds)
        await _first(fleet.drain(settings.drain_seconds), told.to_hurry.wait())
        fleet.close()  # what still runs is cancelled, and its clients are told
        server.should_exit = True
    await serving


class Told:
    """What signals have said: the first asks to stop, the second not to wait."""

    def __init__(self) -> None:
        self.to_stop = asyncio.Event()
        self.to_hurry = asyncio.Event()

    def once_more(self) -> None:
        (self.to_hurry if self.to_stop.is_set() else self.to_stop).set()


class Server(uvicorn.Server):
    """uvicorn, with signals and the start's announcement left to us."""

    def __init__(self, app: FastAPI, settings: Settings, announcement: str) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="off",
                log_config=None,
                access_log=settings.access_log,
                timeout_graceful_shutdown=LAST_BYTES_SECONDS,
            )
        )
        self._announcement = announcement

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        log.info(self._announcement)


async def _first(*waits: Coroutine[Any, Any, Any] | asyncio.Task[Any]) -> None:
    """Wait until one is done; those that were not tasks before are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for wait, task in zip(waits, tasks, strict=True):
        if wait is not task:
            task.cancel()


def _bind(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet: a taken port is found before models are opened."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise StartupError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
    return listener


def _address(listener: socket.socket) -> str:
    host, port, *_ = listener.getsockname()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
