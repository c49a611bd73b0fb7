"""The models that are served, found by name and version."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from model.bundle import version_order
from model.errors import RequestError
from model.manifest import Manifest
from model.spelling import did_you_mean
from service.engine.served_model import ServedModel, State
from service.engine.ticket import Budget
from service.errors import UnknownModel

log = logging.getLogger("fathom")


class Fleet:
    """Served models by name and version. Everything here is called on the event loop."""

    def __init__(self, models: Sequence[ServedModel], budget: Budget) -> None:
        self.budget = budget  # that the models share
        self._by_name: dict[str, dict[str, ServedModel]] = {}
        self._leaving: set[ServedModel] = set()  # nobody finds them any more; what runs on them may finish
        self._asked: Counter[ServedModel] = Counter()  # found by requests that have not been submitted yet
        self._submitted = asyncio.Event()
        for served in models:
            self.add(served)

    def add(self, served: ServedModel) -> None:
        """Serve one more; whoever adds it later starts it."""
        name = served.bundle.manifest.name
        self.replace(name, [*self._by_name.get(name, {}).values(), served])

    def replace(self, name: str, models: Sequence[ServedModel]) -> list[ServedModel]:
        """From now on these are all that there is of a model; returns those that were and no longer are.

        Whoever calls it lets those leave.
        """
        before = self._by_name.pop(name, {})
        if models:
            ordered = sorted(models, key=lambda served: version_order(served.bundle.manifest.version))
            self._by_name[name] = {served.bundle.manifest.version: served for served in ordered}
        return [served for served in before.values() if served not in models]

    async def leave(self, served: ServedModel, seconds: float | None = None) -> None:
        """Close a model that nobody finds any more, once what it was asked for is done.

        seconds: how long that may take; None: as long as it takes.
        """
        self._leaving.add(served)
        try:
            while self._asked[served]:
                await self._submitted.wait()
            await served.drain(seconds)
            served.close()
            await served.closed()
        finally:
            self._leaving.discard(served)

    async def remove(self, served: ServedModel, seconds: float) -> None:
        """Serve one less: nobody finds it any more, what runs on it may finish for so long."""
        name = served.bundle.manifest.name
        self.replace(name, [other for other in self._by_name[name].values() if other is not served])
        await self.leave(served, seconds)

    @property
    def models(self) -> list[ServedModel]:
        """Every served model, by name and version."""
        return [served for _, versions in sorted(self._by_name.items()) for served in versions.values()]

    async def fetch(self, wanted: str | None) -> None:
        """Open a model that is not open, where a fleet opens models as they are asked for; this one does not.

        Raises UnknownModel where there is no such model, StartupError or BundleError where it cannot be had.
        """

    async def shelved(self) -> list[Manifest]:
        """What `fetch` would open, by name and version, oldest version first."""
        return []

    def named(self, name: str) -> list[ServedModel]:
        """What is served of a model, oldest version first; none where it is not served."""
        return list(self._by_name.get(name, {}).values())

    @contextmanager
    def asking(self, wanted: str | None) -> Iterator[ServedModel]:
        """As find; until the block has ended the model still admits what it is asked, even if it leaves.

        A request that is prepared meanwhile and submitted right after is not refused for a reload.
        """
        served = self.find(wanted)
        self._asked[served] += 1
        try:
            yield served
        finally:
            self._asked[served] -= 1
            if not self._asked[served]:
                del self._asked[served]
                self._submitted.set()
                self._submitted.clear()

    def versions(self, name: str) -> list[str]:
        """A model's versions, oldest first; the last is the default."""
        return list(self._by_name[name])

    def find(self, wanted: str | None) -> ServedModel:
        """The model for `name`, `name@version`, or None where one model is served.

        Raises UnknownModel where there is no such model, RequestError where None is ambiguous.
        """
        names = ", ".join(sorted(self._by_name)) or "none"
        if wanted is None and not self._by_name:
            raise UnknownModel("no model is served at this time; load one", "model")
        if wanted is None:
            if len(self._by_name) != 1:
                raise RequestError(f"several models are served; name one of {names}", "model")
            wanted = names
        name, at, version = wanted.partition("@")
        name = name if name in self._by_name else self._called(name)
        versions = self._by_name.get(name)
        if versions is None:
            hint = did_you_mean(name, self._by_name)
            raise UnknownModel(f"there is no model {name!r}; {hint}served are {names}", "model")
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
        return sum(served.stop(key, id_) for served in self._all)

    def start(self) -> None:
        """Start every model; each takes a real step before it is ready."""
        for served in self.models:
            served.start()

    async def started(self) -> None:
        """Wait until every engine has taken its first step. Raises StartupError where one cannot."""
        await asyncio.gather(*(served.started() for served in self.models))

    def failed(self) -> str | None:
        """Which model has failed for good, and why; None while there is none."""
        for served in self.models:
            if served.state is State.FAILED:
                return f"{title(served)}: {served.health()}"
        return None

    def health(self) -> str | None:
        """None when traffic may come; otherwise which model stands in its way, and why.

        All must have started. After that one that is out of order does not stop the others.
        """
        reasons = [(served, served.health()) for served in self.models]
        faults = [(served, reason) for served, reason in reasons if reason is not None]
        if not faults or (
            len(faults) < len(reasons) and not any(w.state is State.STARTING for w, _ in faults)
        ):
            return None
        first = next((fault for fault in faults if fault[0].state is State.STARTING), faults[0])
        return f"{title(first[0])}: {first[1]}"

    def ready(self) -> dict[str, bool]:
        """By model, whether every version of it takes requests."""
        return {
            name: all(served.health() is None for served in versions.values())
            for name, versions in sorted(self._by_name.items())
        }

    async def drain(self, seconds: float) -> bool:
        """Admit nothing more and let what runs finish; False where something still ran after `seconds`."""
        for served in self._all:
            served.stop_admitting()
        return all(await asyncio.gather(*(served.drain(seconds) for served in self._all)))

    async def close(self) -> None:
        """Cancel what is left and end the engines. Harmless when repeated."""
        for served in self._all:
            served.close()
        await asyncio.gather(*(served.closed() for served in self._all))

    @property
    def hanging(self) -> list[str]:
        """The models whose engines did not end when they were closed."""
        return [title(served) for served in self._all if served.hangs]

    @property
    def _all(self) -> list[ServedModel]:
        return [*self.models, *self._leaving]

    async def shut_down(self, seconds: float) -> None:
        """Drain, then close. Harmless when repeated."""
        await self.drain(seconds)
        await self.close()


def title(served: ServedModel) -> str:
    """name@version."""
    return f"{served.bundle.manifest.name}@{served.bundle.manifest.version}"
