"""Thoughts that are kept for a while, so that a later request can think on: bounded in time and bytes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from model.bundle import Bundle
from model.errors import RequestError
from model.row import Layout
from service.engine.messages import EVENT_BYTES, Finished, Thought, Trajectory
from service.engine.ticket import Ticket
from service.errors import Overloaded, UnknownRequest
from service.fleet import Fleet
from service.settings import Settings
from service.terms import Before

Name = tuple[str, str]  # whose key, and the request's id


@dataclass(eq=False)
class KeptRequest:
    """The problems of one request, where they stopped."""

    bundle: Bundle
    thoughts: tuple[Thought, ...]
    floor: int  # min_steps as it was asked for
    nbytes: int
    users: int = 0  # requests that go on from here
    listed: bool = True  # whether it can still be found
    timer: asyncio.TimerHandle | None = None

    @property
    def before(self) -> Before:
        """What holds for a request that goes on from here, unless it says otherwise."""
        return Before(
            self.thoughts[0].rule, self.floor, max(thought.carry.depth for thought in self.thoughts)
        )


@dataclass(frozen=True)
class Continuation:
    """What a request means to keep, and what it goes on from."""

    name: Name
    bundle: Bundle
    inputs: int  # whose problems come first in its submission
    floor: int
    seconds: float | None  # None: it only goes on
    nbytes: int
    source: KeptRequest | None


class KeptThoughts:
    """All that are kept. Used on the event loop only.

    Where the bytes are used up, the oldest go, of the key that holds most: nobody's are lost to another
    who keeps more. What a running request goes on from counts until it has ended.
    """

    def __init__(self, settings: Settings) -> None:
        self.longest = settings.keep_seconds
        self._most = settings.max_kept_bytes
        self.requests: dict[Name, KeptRequest] = {}  # oldest first
        self.used = 0  # bytes: held, set aside, or gone on from

    def find(self, key: str, id_: str) -> KeptRequest:
        """Raises UnknownRequest where this key has nothing kept under this id."""
        kept = self.requests.get((key, id_))
        if kept is None:
            raise UnknownRequest(
                "there is no such thought: it was not kept, its time is over, or it made room for others; "
                "send the input again",
                "continue_from",
            )
        return kept

    def resume(self, key: str, id_: str, model: str | None, fleet: Fleet) -> tuple[str, KeptRequest]:
        """The model that thinks on, as fleets find it, and from where.

        Raises UnknownRequest where nothing is kept, or the model it was thought by has gone or was loaded
        anew; RequestError where another model is asked for.
        """
        kept = self.find(key, id_)
        manifest = kept.bundle.manifest
        if model not in (None, manifest.name, f"{manifest.name}@{manifest.version}"):
            raise RequestError(
                f"the thought is {manifest.name}@{manifest.version}'s; leave model out", "model"
            )
        if any(served.bundle is kept.bundle for served in fleet.named(manifest.name)):
            return f"{manifest.name}@{manifest.version}", kept
        raise UnknownRequest(
            f"{manifest.name}@{manifest.version} has been loaded anew since, or is served no more; "
            "send the input again",
            "continue_from",
        )

    def admitted(self, continuation: Continuation | None, admit: Callable[[], Ticket]) -> Ticket:
        """What `admit` gives for a request, watched where it is to be kept or goes on from what was.

        Raises UnknownRequest where that has gone meanwhile, RequestError where so much is never kept,
        Overloaded where others' running requests leave no room.
        """
        if continuation is None:
            return admit()
        reservation = self._begin(continuation)
        try:
            ticket = admit()
        except BaseException:
            reservation.end()
            raise
        ticket.watch(reservation.ended, reservation.end)
        return ticket

    def _begin(self, continuation: Continuation) -> Reservation:
        """Set bytes aside, and hold on to what is gone on from."""
        source = continuation.source
        if source is not None and not source.listed:
            raise UnknownRequest("the thought has just gone; send the input again", "continue_from")
        if continuation.nbytes > self._most:
            raise RequestError(
                f"to keep this takes {continuation.nbytes} bytes, and this server keeps {self._most}; send "
                "fewer problems",
                "keep",
            )
        if source is not None:
            source.users += 1
        while self.used + continuation.nbytes > self._most:
            victim = self._victim()
            if victim is None:
                self.leave(source)
                raise Overloaded("running requests fill what thoughts may be kept in; try again later", 1)
            self._drop(victim)
        self.used += continuation.nbytes
        return Reservation(self, continuation)

    def hold(self, name: Name, kept: KeptRequest, seconds: float) -> None:
        """Keep it, in place of what has the same name; its bytes are counted already."""
        if name in self.requests:
            self._drop(name)
        self.requests[name] = kept
        kept.timer = asyncio.get_running_loop().call_later(seconds, self._expire, name, kept)

    def _expire(self, name: Name, kept: KeptRequest) -> None:
        if self.requests.get(name) is kept:
            self._drop(name)

    def _victim(self) -> Name | None:
        """The oldest of the key that holds most, of what nobody goes on from."""
        held = Counter[str]()
        for (key, _), kept in self.requests.items():
            held[key] += 0 if kept.users else kept.nbytes
        greediest = max(held, key=lambda key: held[key], default=None)
        idle = (name for name, kept in self.requests.items() if name[0] == greediest and not kept.users)
        return next(idle, None)

    def _drop(self, name: Name) -> None:
        kept = self.requests.pop(name)
        kept.listed = False
        if kept.timer is not None:
            kept.timer.cancel()
        if not kept.users:
            self.used -= kept.nbytes

    def leave(self, source: KeptRequest | None) -> None:
        """A request that went on from here has ended."""
        if source is None:
            return
        source.users -= 1
        if not source.users and not source.listed:
            self.used -= source.nbytes


class Reservation:
    """What one running request has set aside, and what it goes on from."""

    def __init__(self, all_of_them: KeptThoughts, continuation: Continuation) -> None:
        self._all = all_of_them
        self._continuation = continuation
        self._set_aside = continuation.nbytes
        self._ends: list[Finished] = []
        self._over = False

    def ended(self, end: Finished) -> None:
        """A problem has ended; with the last of them they are kept, unless the server cut one short."""
        continuation = self._continuation
        if self._over or continuation.seconds is None or end.index >= continuation.inputs:
            return
        self._ends.append(end)
        ordered = sorted(self._ends, key=lambda end: end.index)
        thoughts = tuple(end.thought for end in ordered if end.thought is not None)
        if len(thoughts) == continuation.inputs:
            kept = KeptRequest(continuation.bundle, thoughts, continuation.floor, continuation.nbytes)
            self._set_aside = 0
            self._all.hold(continuation.name, kept, continuation.seconds)

    def end(self) -> None:
        """The request is over."""
        if not self._over:
            self._over = True
            self._all.used -= self._set_aside
            self._all.leave(self._continuation.source)


def bytes_of(trajectories: Sequence[Trajectory], layout: Layout) -> int:
    """About what it takes to keep where problems stop."""
    manifest = layout.manifest
    specs = (*manifest.context, *manifest.state, *manifest.memory)
    total = 0
    for trajectory in trajectories:
        inputs = sum(tensor.nbytes for tensor in trajectory.row.tensors.values())
        readout = (4 if trajectory.tallies else 1) * layout.bytes_of(
            [manifest.logits], trajectory.row.lengths
        )
        total += EVENT_BYTES + inputs + readout + layout.bytes_of(specs, trajectory.row.bucket)
    return total
