"""The models on disk beside the models that are served: load, unload and reload while serving.

A change takes effect whole or not at all. New versions are opened and take their first step beside the old
ones; then requests find the new ones, and what runs on the old ones finishes there.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from model.bundle import MANIFEST, Bundle, read_in_place
from model.errors import BundleError, FathomError
from service.bundles.opening import open_bundle, places_of
from service.engine.served_model import ServedModel, State
from service.errors import NotLoaded, UnknownModel
from service.fleet import Fleet, title
from service.settings import Settings
from service.telemetry.metrics import Metrics

log = logging.getLogger("fathom")
Manifests = dict[Path, str]  # the hash of what each folder's manifest says
Condition = Literal["READY", "UNAVAILABLE", "LOADING"]  # the protocol's words


@dataclass(frozen=True)
class Entry:
    """A version of a model that is on disk, or served, or both."""

    name: str
    version: str
    state: Condition
    reason: str = ""


class Repository:
    """Changes what a fleet serves. Everything public is called on the event loop."""

    def __init__(self, settings: Settings, metrics: Metrics, fleet: Fleet) -> None:
        self._settings = settings
        self._metrics = metrics
        self._fleet = fleet
        self._changing = asyncio.Lock()  # one change at a time: opening a model takes all there is
        self._loading: str | None = None
        self._unloaded: set[str] = set()  # by hand: a poll leaves them alone
        self._faults: dict[str, str] = {}  # why the last load of a model failed
        self._seen: dict[str, Manifests] = {}  # what a poll has loaded, or found loaded, by model
        self._leaving: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Until the block ends, what changes on disk is loaded every `poll_seconds`, if that is set."""
        self._seen = await asyncio.to_thread(self._manifests) if self._settings.poll_seconds else {}
        watcher = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)

    def is_loading(self, name: str) -> bool:
        """Whether this model is being opened now."""
        return self._loading == name

    async def index(self) -> list[Entry]:
        """Every version that is on disk or served, by name and version. Raises NotLoaded where disk fails."""
        manifests = [served.bundle.manifest for served in self._fleet.models]
        places = {(manifest.name, manifest.version) for manifest in manifests}
        try:
            folders = await asyncio.to_thread(places_of, self._settings)
        except BundleError as error:
            raise NotLoaded(error.message) from error
        return [self._entry(*place) for place in sorted(places | {_place(folder) for folder in folders})]

    def _entry(self, name: str, version: str) -> Entry:
        served = next((w for w in self._fleet.named(name) if w.bundle.manifest.version == version), None)
        if served is None:
            if self.is_loading(name):
                return Entry(name, version, "LOADING")
            return Entry(name, version, "UNAVAILABLE", self._faults.get(name, "not loaded"))
        if (reason := served.health()) is not None:
            return Entry(name, version, "UNAVAILABLE", reason)
        return Entry(name, version, "READY", self._faults.get(name, ""))

    async def load(self, name: str) -> None:
        """Serve a model as it lies on disk, all of its versions; what has not changed stays as it is.

        Raises UnknownModel where there is nothing of it, and NotLoaded, which says why, where a version
        cannot be had. Then everything is as it was.
        """
        async with self._changing:
            self._loading = name
            try:
                await self._load(name)
            except UnknownModel:
                raise
            except Exception as error:  # whatever a backend makes of a bad bundle
                reason = self._faults[name] = error.message if isinstance(error, FathomError) else repr(error)
                raise NotLoaded(f"{name} is not loaded: {reason}") from error
            finally:
                self._loading = None
            self._unloaded.discard(name)
            self._faults.pop(name, None)

    async def unload(self, name: str) -> None:
        """Serve a model no longer; what runs on it may finish. Raises UnknownModel where it is not served."""
        async with self._changing:
            if not (models := self._fleet.named(name)):
                raise UnknownModel(f"there is no model {name!r} that is served", "model")
            self._unloaded.add(name)
            self._faults.pop(name, None)
            self._retire(self._fleet.replace(name, []))
            log.info("unloaded %s", ", ".join(title(served) for served in models))

    async def _load(self, name: str) -> None:
        folders = [
            folder
            for folder in await asyncio.to_thread(places_of, self._settings)
            if _place(folder)[0] == name
        ]
        if not folders:
            raise UnknownModel(f"there is no model {name!r} in the repository", "model")
        serving = {served.bundle.manifest.version: served for served in self._fleet.named(name)}
        unchanged, new = list[ServedModel](), list[ServedModel]()
        try:
            for folder in folders:
                bundle = await asyncio.to_thread(read_in_place, folder)
                served = serving.get(bundle.manifest.version)
                if served is not None and _unchanged(served, bundle):
                    unchanged.append(served)
                else:
                    new.append(await self._open(bundle))
                    new[-1].start()
            for served in new:
                await served.started()
        except BaseException:  # a shutdown too
            for served in new:
                await self._close(served)
            raise
        self._retire(self._fleet.replace(name, [*unchanged, *new]))
        log.info("loaded %s", ", ".join(title(served) for served in self._fleet.named(name)))

    async def _open(self, bundle: Bundle) -> ServedModel:
        """A bundle, opened to be served. Raises StartupError or BundleError where it cannot be had."""
        observer = self._metrics.of_model(bundle.manifest.name, self._settings.slots)
        try:
            return await asyncio.to_thread(open_bundle, bundle, self._settings, observer, self._fleet.budget)
        except BaseException:
            self._metrics.forget(observer)
            raise

    async def _close(self, served: ServedModel) -> None:
        """End a model that never served."""
        served.close()
        await served.closed()
        self._metrics.forget(served.observer)

    def _retire(self, models: list[ServedModel]) -> None:
        """Let them finish and go, while we go on."""
        for served in models:
            self._keep(self._retired(served))

    async def _retired(self, served: ServedModel) -> None:
        await self._fleet.leave(served)
        self._metrics.forget(served.observer)
        log.info("closed %s of before", title(served))

    def _keep(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    # --- what lies on disk ---

    def _manifests(self) -> dict[str, Manifests]:
        """What the manifests on disk are, by model; nothing where the disk cannot be read."""
        found: dict[str, Manifests] = {}
        try:
            for folder in places_of(self._settings):
                digest = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
                found.setdefault(_place(folder)[0], {})[folder] = digest
        except (OSError, BundleError) as error:
            log.warning("the repository cannot be read: %s", error)
            return self._seen
        return found

    async def _watch(self) -> None:
        if not self._settings.poll_seconds:
            return
        while True:
            await asyncio.sleep(self._settings.poll_seconds)
            await self.look()

    async def look(self) -> None:
        """Load every model that differs from what was last loaded; one that cannot be had is tried again."""
        found = await asyncio.to_thread(self._manifests)
        for name, manifests in found.items():
            if name in self._unloaded or manifests == self._seen.get(name):
                continue
            said = self._faults.get(name)
            try:
                await self.load(name)
            except (NotLoaded, UnknownModel) as error:
                if self._faults.get(name) != said:  # once
                    log.warning("%s; what was served before stays", error.message)
            else:
                self._seen[name] = manifests


def _place(folder: Path) -> tuple[str, str]:
    """The name and the version that a bundle's folder stands for."""
    return folder.parent.name, folder.name


def _unchanged(served: ServedModel, bundle: Bundle) -> bool:
    """Whether this very bundle is served, and works."""
    same = served.bundle.manifest == bundle.manifest and served.bundle.folder == bundle.folder
    return same and served.state is not State.FAILED
