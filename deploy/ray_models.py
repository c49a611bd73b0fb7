"""More models than a replica holds: it opens a model when it is first asked for and keeps the last few.

Ray Serve calls this multiplexing. Ray routes by headers alone, so a caller who also names the model in the
header `serve_multiplexed_model_id` gets to a replica that has it open already; without the header any replica
takes the request, and opens the model.
"""

import asyncio
import logging
from pathlib import Path

from ray import serve

from model.bundle import MANIFEST, read_in_place, read_manifest, version_order
from model.manifest import Manifest
from service.bundles.opening import budget_of, open_bundle, places_of
from service.engine.served_model import ServedModel
from service.errors import StartupError, UnknownModel
from service.fleet import Fleet, title
from service.runners.open import check_environment
from service.settings import Settings
from service.telemetry.metrics import Metrics, ModelMetrics

log = logging.getLogger("ray.serve")


class Shelf(Fleet):
    """A fleet of the models that were asked for last."""

    def __init__(self, settings: Settings) -> None:
        super().__init__([], budget_of(settings))
        self._settings = settings

    async def fetch(self, wanted: str | None) -> None:
        wanted = wanted or serve.get_multiplexed_model_id()
        if wanted:
            place = await asyncio.to_thread(place_of, wanted, self._settings)
            # A replica opens by name and version, so that a model under two names is not opened twice.
            await serve.get_replica_context().servable_object.model(f"{place.parent.name}@{place.name}")

    async def shelved(self) -> list[Manifest]:
        served = {served.bundle.folder for served in self.models}

        def read() -> list[Manifest]:
            places = places_of(self._settings)
            return [read_manifest(place / MANIFEST) for place in places if place not in served]

        return await asyncio.to_thread(read)


def open_shelf(settings: Settings, metrics: Metrics) -> Shelf:  # noqa: ARG001  as create_app calls it
    """A fleet to which models are added as they are asked for."""
    check_environment()
    return Shelf(settings)


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
        bundle = read_in_place(place_of(name, settings))
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


def place_of(wanted: str, settings: Settings) -> Path:
    """The folder of the newest bundle of a name, or of `name@version`. A name never becomes a path.

    Raises UnknownModel, BundleError where the repository cannot be read.
    """
    name, _, version = wanted.partition("@")
    found = [
        place for place in places_of(settings) if place.parent.name == name and version in ("", place.name)
    ]
    if not found:
        raise UnknownModel(f"there is no model {wanted!r}", "model")
    return max(found, key=lambda place: version_order(place.name))
