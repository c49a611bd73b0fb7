"""The models that are served: a worker per bundle, found by name and version."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from model.bundle import Bundle, find_bundles, version_order
from model.codecs import CodecLimits, codec_of
from model.errors import BundleError, RequestError
from service.engine.engine import EngineLimits, Observer
from service.engine.ticket import Budget
from service.engine.worker import State, Worker
from service.errors import UnknownModel
from service.metrics import Metrics
from service.runners.choice import check_environment, open_runner
from service.runners.runner import Runner
from service.settings import Settings

log = logging.getLogger("fathom")


class Fleet:
    """Workers by model and version. Everything here is called on the event loop."""

    def __init__(self, workers: Sequence[Worker], budget: Budget) -> None:
        self.budget = budget  # that the workers share
        self._by_name: dict[str, dict[str, Worker]] = {}
        for worker in workers:
            self.add(worker)

    def add(self, worker: Worker) -> None:
        """Serve one more; whoever adds it later starts it."""
        name = worker.bundle.manifest.name
        both = [*self._by_name.get(name, {}).values(), worker]
        both.sort(key=lambda worker: version_order(worker.bundle.manifest.version))
        self._by_name[name] = {worker.bundle.manifest.version: worker for worker in both}

    async def remove(self, worker: Worker, seconds: float) -> None:
        """Serve one less: nobody finds it any more, what runs on it may finish for so long."""
        name, version = worker.bundle.manifest.name, worker.bundle.manifest.version
        del self._by_name[name][version]
        if not self._by_name[name]:
            del self._by_name[name]
        await worker.drain(seconds)
        worker.close()
        await worker.closed()

    @property
    def workers(self) -> list[Worker]:
        """Every worker, by name and version."""
        return [worker for _, versions in sorted(self._by_name.items()) for worker in versions.values()]

    def versions(self, name: str) -> list[str]:
        """A model's versions, oldest first; the last is the default."""
        return list(self._by_name[name])

    def find(self, wanted: str | None) -> Worker:
        """The worker for `name`, `name@version`, or None where one model is served.

        Raises UnknownModel where there is no such model, RequestError where None is ambiguous.
        """
        served = ", ".join(sorted(self._by_name))
        if wanted is None:
            if len(self._by_name) != 1:
                raise RequestError(f"several models are served; name one of {served}", "model")
            wanted = served
        name, at, version = wanted.partition("@")
        versions = self._by_name.get(name)
        if versions is None:
            raise UnknownModel(f"there is no model {name!r}; served are {served}", "model")
        if not at:
            return versions[self.versions(name)[-1]]
        if version not in versions:
            raise UnknownModel(f"{name} has no version {version!r}; there is {', '.join(versions)}", "model")
        return versions[version]

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
        for worker in self.workers:
            worker.stop_admitting()
        return all(await asyncio.gather(*(worker.drain(seconds) for worker in self.workers)))

    async def close(self) -> None:
        """Cancel what is left and end the engines. Harmless when repeated."""
        for worker in self.workers:
            worker.close()
        await asyncio.gather(*(worker.closed() for worker in self.workers))

    @property
    def hanging(self) -> list[str]:
        """The models whose engines did not end when they were closed."""
        return [title(worker) for worker in self.workers if worker.hangs]

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
        for bundle in find_bundles(settings.repository):
            observer = metrics.of_model(bundle.manifest.name, settings.slots)
            workers.append(open_worker(bundle, settings, observer, budget))
    except BaseException:
        for worker in workers:
            worker.runner.close()
        raise
    return Fleet(workers, budget)


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
