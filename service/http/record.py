"""What one request turned out to be: collected on its way, for the log, the traces and whoever else asks."""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from service.engine.messages import Finished
from service.engine.served_model import ServedModel
from service.engine.ticket import Ticket

TRACE_PARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
KEPT_ENDS = 32  # ends of problems that a trace shows one by one


@dataclass(frozen=True)
class End:
    """How a problem ended."""

    index: int
    steps: int
    reason: str
    at: float  # of time.monotonic()


@dataclass
class RequestRecord:
    """One request. Times are in seconds; those of its problems are those of the one that had most."""

    id: str
    method: str
    path: str  # without the query, quoted
    client: str
    arrived: float  # of time.monotonic()
    trace: str = ""  # the trace that the caller, or this server, has put the request into
    key: str = ""  # the name of the caller's key
    model: str = ""
    version: str = ""
    problems: int = 0
    steps: int = 0
    halts: Counter[str] = field(default_factory=Counter)
    queue_seconds: float = 0.0
    embed_seconds: float = 0.0
    compute_seconds: float = 0.0  # embedding and steps
    status: int = 0
    seconds: float = 0.0  # from its arrival to the last byte of its answer
    ended: float = 0.0  # of time.monotonic(): when the last problem so far did
    ends: list[End] = field(default_factory=list)  # the first of them

    def follow(self, ticket: Ticket, served: ServedModel) -> None:
        """Take note of what becomes of a submission."""
        manifest = served.bundle.manifest
        self.model, self.version = manifest.name, manifest.version
        self.problems += len(ticket.submission.trajectories)
        ticket.watch(self._note)

    def over(self, status: int) -> None:
        """The last byte has gone."""
        self.status, self.seconds = status, time.monotonic() - self.arrived

    def shown(self) -> dict[str, Any]:
        """What a line of the log has of it; what does not apply is left out."""
        thought: dict[str, Any] = {}
        if self.problems:
            thought = {
                "version": self.version,
                "problems": self.problems,
                "steps": self.steps,
                "halted": dict(self.halts),
                "queue_ms": round(1000 * self.queue_seconds, 3),
                "compute_ms": round(1000 * self.compute_seconds, 3),
            }
        optional = {"key": self.key, "model": self.model, **thought, "trace": self.trace}
        return {
            "client": self.client,
            "method": self.method,
            "path": self.path,
            "status": self.status,
            "id": self.id,
            "ms": round(1000 * self.seconds, 3),
            **{name: value for name, value in optional.items() if value not in ("", {})},
        }

    def line(self) -> str:
        """The same as a line for people."""
        shown = self.shown()
        first = " ".join(str(shown.pop(name)) for name in ("client", "method", "path", "status", "id"))
        flat = shown.pop("halted", {})
        return " ".join([first, *(f"{name}={value}" for name, value in {**shown, **flat}.items())])

    def _note(self, end: Finished) -> None:
        self.ended = time.monotonic()
        self.steps += end.taken
        self.halts[end.reason.value] += 1
        self.queue_seconds = max(self.queue_seconds, end.queue_seconds)
        self.embed_seconds = max(self.embed_seconds, end.embed_seconds)
        self.compute_seconds = max(self.compute_seconds, end.compute_seconds)
        if len(self.ends) < KEPT_ENDS:
            self.ends.append(End(end.index, end.taken, end.reason.value, self.ended))


def trace_of(parent: str) -> str:
    """The trace that a `traceparent` header names; empty where it names none."""
    found = TRACE_PARENT.fullmatch(parent)
    return found[1] if found else ""
