"""More models than a replica holds: it opens a model when it is first asked for and keeps the last few.

Ray Serve calls this multiplexing. A caller names the model in the header `serve_multiplexed_model_id` as
well as in the request, because Ray routes by headers alone: to a replica that has the model open already.
"""

import asyncio
import logging

from ray import serve
from starlette.types import ASGIApp, Receive, Scope, Send

from model.bundle import Bundle, find_bundles
from model.errors import FathomError
from service.bundles.opening import budget_of, open_bundle
from service.bundles.shipped import repository_of
from service.engine.served_model import ServedModel
from service.errors import StartupError, UnknownModel, body_of, reply_to
from service.fleet import Fleet, title
from service.http.middleware import json_response
from service.runners.open import check_environment
from service.settings import Settings
from service.telemetry.metrics import Metrics, ModelMetrics

log = logging.getLogger("ray.serve")


def empty_fleet(settings: Settings, metrics: Metrics) -> Fleet:  # noqa: ARG001  as create_app calls it
    """A fleet to which models are added as they are asked for."""
    check_environment()
    return Fleet([], budget_of(settings))


class OpenModel:
    """A model on the shelf. Ray calls __del__, in a thread, when it makes room for another one."""

    def __init__(
        self, served: ServedModel, observer: ModelMetrics, fleet: Fleet, metrics: Metrics, drain: float
    ) -> None:
        self._served = served
        self._observer = observer
        self._fleet = fleet
        self._metrics = metrics
        self._drain = drain
        self._loop = asyncio.get_running_loop()
        self._closed = False

    def __del__(self) -> None:
        if not self._closed and not self._loop.is_closed():
            self._closed = True  # Python calls it once more
            asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()

    async def _close(self) -> None:
        await self._fleet.remove(self._served, self._drain)
        self._metrics.forget(self._observer)
        log.info("closed %s", title(self._served))


async def open_model(name: str, settings: Settings, fleet: Fleet, metrics: Metrics) -> OpenModel:
    """Open `model` or `model@version`, and wait until it has taken its first step.

    Raises UnknownModel, BundleError or StartupError.
    """

    def read() -> tuple[ServedModel, ModelMetrics]:
        bundle = _bundle(name, settings)
        observer = metrics.of_model(bundle.manifest.name, settings.slots)
        return open_bundle(bundle, settings, observer, fleet.budget), observer

    served, observer = await asyncio.to_thread(read)
    served.start()
    try:
        await served.started()
    except StartupError as error:
        raise UnknownModel(f"{name} is there, but cannot be used: {error.message}", "model") from error
    fleet.add(served)
    return OpenModel(served, observer, fleet, metrics, settings.drain_seconds)


def _bundle(name: str, settings: Settings) -> Bundle:
    """The newest bundle of a name, or the one of `name@version`. A name never becomes a path."""
    wanted, _, version = name.partition("@")
    found = [
        bundle
        for bundle in find_bundles(repository_of(settings))
        if bundle.manifest.name == wanted and version in ("", bundle.manifest.version)
    ]
    if not found:
        raise UnknownModel(f"there is no model {name!r}", "model")
    return found[-1]


class OpensModel:
    """ASGI middleware: the model that the header names is open before the request goes on."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (name := serve.get_multiplexed_model_id()):
            try:
                await serve.get_replica_context().servable_object.model(name)
            except FathomError as error:
                await json_response(body_of(error), reply_to(error).status)(scope, receive, send)
                return
        await self.app(scope, receive, send)
