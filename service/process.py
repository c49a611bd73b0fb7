"""The server process: bind, start, serve, and on SIGTERM finish what runs before the listener closes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
from collections.abc import Coroutine, Iterator
from typing import Any

import uvicorn
from fastapi import FastAPI

from service.allocator import limit_allocator
from service.app import create_app
from service.errors import StartupError
from service.fleet import Fleet, title
from service.http.protocol import configuration
from service.http.timeouts import Configuration
from service.settings import Settings
from service.telemetry.logs import set_up_logging
from service.variables import complaints

log = logging.getLogger("fathom")
LAST_REQUESTS_SECONDS = 0.2  # for requests that were on their way when the engines stopped
LAST_BYTES_SECONDS = 5  # for clients to read the end of their answers after that
BACKLOG = 2048  # connections that the system keeps until they are accepted
OTHER_FILES = 512  # beside connections: graphs, sockets that are being refused, what libraries open


def serve(settings: Settings, known: frozenset[str] = frozenset()) -> None:
    """Serve until SIGTERM or SIGINT. Raises BundleError or StartupError where that cannot begin.

    known: variables of the environment that other commands read.
    """
    set_up_logging(settings)
    for complaint in complaints(os.environ, known):
        log.warning("%s", complaint)
    _allow_files(settings.max_connections + OTHER_FILES)
    limit_allocator()
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
    with _listening(settings.host, settings.port) as listener:
        app = create_app(settings)
        # The lifespan is entered here, not by uvicorn, so that a bad bundle is a line and not a traceback,
        # and so that draining comes before the listener closes: until then, /health/ready must say 503.
        async with app.router.lifespan_context(app):
            await _serve_app(app, settings, listener)
        fleet: Fleet = app.state.service.fleet
        return fleet.hanging


async def _serve_app(app: FastAPI, settings: Settings, listener: socket.socket) -> None:
    """Answer until told to stop. Raises StartupError where a model cannot take its first step."""
    fleet: Fleet = app.state.service.fleet
    server = Server(configuration(app, lifespan="off", timeout_graceful_shutdown=2 * LAST_BYTES_SECONDS))
    loop, told = asyncio.get_running_loop(), Told()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.once_more)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    starting = asyncio.create_task(fleet.started())
    stopping = asyncio.create_task(told.to_stop.wait())
    await _first(serving, starting, stopping)
    if starting.done() and not starting.exception():
        models = ", ".join(title(served) for served in fleet.models)
        log.info("serving %s on http://%s", models, _address(listener))
        await _first(serving, stopping)
    if stopping.done():
        log.info("stopping: finishing what runs, for up to %g s", settings.drain_seconds)
        server.configuration.ending = True
        await _first(fleet.drain(settings.drain_seconds), told.to_hurry.wait())
        await fleet.close()  # what still runs is cancelled, and its clients are told
    server.should_exit = True
    await serving
    stopping.cancel()
    if starting.done():
        starting.result()
    else:
        starting.cancel()


class Told:
    """What signals have said: the first asks to stop, the second not to wait."""

    def __init__(self) -> None:
        self.to_stop = asyncio.Event()
        self.to_hurry = asyncio.Event()

    def once_more(self) -> None:
        (self.to_hurry if self.to_stop.is_set() else self.to_stop).set()


class Server(uvicorn.Server):
    """uvicorn, with signals and announcements left to us, and a stop that resets nobody."""

    def __init__(self, configuration: Configuration) -> None:
        super().__init__(configuration)
        self.configuration = configuration

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End every connection in order; those whose clients read nothing are cut."""
        self.configuration.ending = True
        await asyncio.sleep(LAST_REQUESTS_SECONDS)  # what has been sent by now is still answered, with 503
        cutting = asyncio.get_running_loop().call_later(LAST_BYTES_SECONDS, self._cut)
        await super().shutdown(sockets)
        cutting.cancel()

    def _cut(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()


async def _first(*waits: Coroutine[Any, Any, Any] | asyncio.Task[Any]) -> None:
    """Wait until one is done; those that were not tasks before are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for wait, task in zip(waits, tasks, strict=True):
        if wait is not task:
            task.cancel()


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens and accepts nobody yet: a taken port is found before models are opened.

    Binding alone would not do: two servers can bind one port, and only one of them can listen.
    """
    listener = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        if listener:
            listener.close()
        raise StartupError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
    with listener:
        yield listener


def _allow_files(number: int) -> None:
    """Raise this process's limit of open files to `number`, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        number = min(number, hard)
    if soft != resource.RLIM_INFINITY and soft < number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))


def _address(listener: socket.socket) -> str:
    host, port, *_ = listener.getsockname()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
