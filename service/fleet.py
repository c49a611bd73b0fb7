"""The models that are served: a worker per bundle, found by name and version."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from model.bundle import Bundle, bundle_folders, no_bundle, read_in_place, version_order
from model.codecs import CodecLimits, codec_of
from model.errors import BundleError, RequestError
from service.bundles.remote import bundles_in_cache, fetch_bundles
from service.engine.engine import EngineLimits, Observer
from service.engine.ticket import Budget
from service.engine.worker import State, Worker
from service.errors import UnknownModel
from service.runners.open import check_environment, open_runner
from service.runners.runner import Runner
from service.settings import Settings
from service.telemetry.metrics import Metrics

log = logging.getLogger("fathom")


class Fleet:
    """Workers by model and version. Everything here is called on the event loop."""

    def __init__(self, workers: Sequence[Worker], budget: Budget) -> None:
        self.budget = budget  # that the workers share
        self._by_name: dict[str, dict[str, Worker]] = {}
        self._leaving: set[Worker] = set()  # nobody finds them any more; what runs on them may finish
        self._asked: Counter[Worker] = Counter()  # found by requests that have not been submitted yet
        self._submitted = asyncio.Event()
        for worker in workers:
            self.add(worker)

    def add(self, worker: Worker) -> None:
        """Serve one more; whoever adds it later starts it."""
        name = worker.bundle.manifest.name
        self.replace(name, [*self._by_name.get(name, {}).values(), worker])

    def replace(self, name: str, workers: Sequence[Worker]) -> list[Worker]:
        """From now on these are all that there is of a model; returns those that were and no longer are.

        Whoever calls it lets those leave.
        """
        before = self._by_name.pop(name, {})
        if workers:
            ordered = sorted(workers, key=lambda worker: version_order(worker.bundle.manifest.version))
            self._by_name[name] = {worker.bundle.manifest.version: worker for worker in ordered}
        return [worker for worker in before.values() if worker not in workers]

    async def leave(self, worker: Worker, seconds: float | None = None) -> None:
        """Close a worker that nobody finds any more, once what it was asked for is done.

        seconds: how long that may take; None: as long as it takes.
        """
        self._leaving.add(worker)
        try:
            while self._asked[worker]:
                await self._submitted.wait()
            await worker.drain(seconds)
            worker.close()
            await worker.closed()
        finally:
            self._leaving.discard(worker)

    async def remove(self, worker: Worker, seconds: float) -> None:
        """Serve one less: nobody finds it any more, what runs on it may finish for so long."""
        name = worker.bundle.manifest.name
        self.replace(name, [other for other in self._by_name[name].values() if other is not worker])
        await self.leave(worker, seconds)

    @property
    def workers(self) -> list[Worker]:
        """Every worker, by name and version."""
        return [worker for _, versions in sorted(self._by_name.items()) for worker in versions.values()]

    def named(self, name: str) -> list[Worker]:
        """The workers of a model, oldest version first; none where it is not served."""
        return list(self._by_name.get(name, {}).values())

    @contextmanager
    def asking(self, wanted: str | None) -> Iterator[Worker]:
        """As find; until the block has ended the worker still admits what it is asked, even if it leaves.

        A request that is prepared meanwhile and submitted right after is not refused for a reload.
        """
        worker = self.find(wanted)
        self._asked[worker] += 1
        try:
            yield worker
        finally:
            self._asked[worker] -= 1
            if not self._asked[worker]:
                del self._asked[worker]
                self._submitted.set()
                self._submitted.clear()

    def versions(self, name: str) -> list[str]:
        """A model's versions, oldest first; the last is the default."""
        return list(self._by_name[name])

    def find(self, wanted: str | None) -> Worker:
        """The worker for `name`, `name@version`, or None where one model is served.

        Raises UnknownModel where there is no such model, RequestError where None is ambiguous.
        """
        served = ", ".join(sorted(self._by_name)) or "none"
        if wanted is None and not self._by_name:
            raise UnknownModel("no model is served at this time; load one", "model")
        if wanted is None:
            if len(self._by_name) != 1:
                raise RequestError(f"several models are served; name one of {served}", "model")
            wanted = served
        name, at, version = wanted.partition("@")
        name = name if name in self._by_name else self._called(name)
        versions = self._by_name.get(name)
        if versions is None:
            raise UnknownModel(f"there is no model {name!r}; served are {served}", "model")
        if not at:
            return versions[self.versions(name)[-1]]
        if version not in versions:
            raise UnknownModel(f"{name} has no version {version!r}; there is {', '.join(versions)}", "model")
        return versions[version]

    def _called(self, alias: str) -> str:
        """The model whose newest version goes by another name, too; the name itself where there is none."""
        for name, versions in self._by_name.items():
            if alias in list(versions.values())[-1].bundle.manifest.aliases:
                return name
        return alias

    def stop(self, key: str, id_: str) -> int:
        """End a key's requests of this id with their best answers so far; returns how many problems."""
        return sum(worker.stop(key, id_) for worker in self._all)

    def start(self) -> None:
        """Start every worker; each takes a real step before it is ready."""
        for worker in self.workers:
            worker.start()

    async def started(self) -> None:
        """Wait until every engine has taken its first step. Raises StartupError where one cannot."""
        await asyncio.gather(*(worker.started() for worker in self.workers))

    def failed(self) -> str | None:
        """Which model has failed for good, and why; None while there is none."""
        for worker in self.workers:
            if worker.state is State.FAILED:
                return f"{title(worker)}: {worker.health()}"
        return None

    def health(self) -> str | None:
        """None when traffic may come; otherwise which model stands in its way, and why.

        All must have started. After that one that is out of order does not stop the others.
        """
        reasons = [(worker, worker.health()) for worker in self.workers]
        faults = [(worker, reason) for worker, reason in reasons if reason is not None]
        if not faults or (
            len(faults) < len(reasons) and not any(w.state is State.STARTING for w, _ in faults)
        ):
            return None
        first = next((fault for fault in faults if fault[0].state is State.STARTING), faults[0])
        return f"{title(first[0])}: {first[1]}"

    async def drain(self, seconds: float) -> bool:
        """Admit nothing more and let what runs finish; False where something still ran after `seconds`."""
        for worker in self._all:
            worker.stop_admitting()
        return all(await asyncio.gather(*(worker.drain(seconds) for worker in self._all)))

    async def close(self) -> None:
        """Cancel what is left and end the engines. Harmless when repeated."""
        for worker in self._all:
            worker.close()
        await asyncio.gather(*(worker.closed() for worker in self._all))

    @property
    def hanging(self) -> list[str]:
        """The models whose engines did not end when they were closed."""
        return [title(worker) for worker in self._all if worker.hangs]

    @property
    def _all(self) -> list[Worker]:
        return [*self.workers, *self._leaving]

    async def shut_down(self, seconds: float) -> None:
        """Drain, then close. Harmless when repeated."""
        await self.drain(seconds)
        await self.close()


def title(worker: Worker) -> str:
    """name@version."""
    return f"{worker.bundle.manifest.name}@{worker.bundle.manifest.version}"


def open_fleet(settings: Settings, metrics: Metrics) -> Fleet:
    """Read every bundle of the repository and make its worker.

    Raises BundleError or StartupError; then nothing is left open.
    """
    check_environment()
    budget = budget_of(settings)
    workers: list[Worker] = []
    try:
        fetch_bundles(settings)
        for bundle in bundles_of(settings):
            observer = metrics.of_model(bundle.manifest.name, settings.slots)
            workers.append(open_worker(bundle, settings, observer, budget))
    except BaseException:
        for worker in workers:
            worker.runner.close()
        raise
    return Fleet(workers, budget)


def bundles_of(settings: Settings) -> Iterator[Bundle]:
    """Every bundle that is to be served. Raises BundleError where there is none, or one is unsound."""
    folders = places_of(settings)
    if not folders:
        raise no_bundle(settings.repository)
    for folder in folders:
        yield read_in_place(folder)


def places_of(settings: Settings) -> list[Path]:
    """The folder of every bundle on disk: the repository's, and those from elsewhere.

    Raises BundleError where a folder cannot be looked into, or a version is there twice.
    """
    folders = [*bundle_folders(settings.repository), *bundles_in_cache(settings)]
    places = [(folder.parent.name, version_order(folder.name)) for folder in folders]
    for place, folder in zip(places, folders, strict=True):
        if places.count(place) > 1:
            raise BundleError(
                f"{folder}: this version is there twice; take it from the setting remote_bundles"
            )
    return folders


def open_worker(bundle: Bundle, settings: Settings, observer: Observer, budget: Budget) -> Worker:
    """A worker for one bundle, not yet started. Raises StartupError or BundleError where it cannot be had."""
    manifest = bundle.manifest
    axes = {name: axis.max for name, axis in manifest.axes.items()}
    codec = codec_of(manifest, CodecLimits(settings.max_nodes, settings.max_edges, axes), settings.codecs)
    if manifest.domain and manifest.domain.limits:
        known = codec.measure(codec.encode(codec.example, "example"))
        for name in manifest.domain.limits.keys() - known.keys():
            raise BundleError(
                f"bundle {manifest.name}: its domain limits {name!r}, but its codec measures "
                f"{', '.join(known)}"
            )
    limits = limits_of(settings)

    def opener() -> Runner:
        return open_runner(bundle, settings.device, settings.backend, limits.slots, settings.cpu_threads)

    worker = Worker(bundle, codec, opener, limits, observer, budget)
    log.info("opened %s with %s on %s", title(worker), worker.runner.backend, worker.runner.device)
    return worker


def limits_of(settings: Settings) -> EngineLimits:
    """What an engine takes on."""
    return EngineLimits(
        settings.slots, settings.queue_seconds, settings.quantum_ms / 1000, settings.stall_seconds
    )


def budget_of(settings: Settings) -> Budget:
    """What all engines together may hold for those who read."""
    return Budget(settings.max_event_bytes, settings.max_held_bytes)
