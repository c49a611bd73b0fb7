"""Hand-written stand-ins: a model whose rows do exactly what each row says, with no weights.

A problem's tensor `plan` (4,) is [name, halt_at, fail_at, nan_at]: its confidence is 1 from step
halt_at on (0 before), its step fails at depth fail_at, its readout is not a number at nan_at.
The logits show [name, steps taken], so that a mixed-up row cannot go unnoticed.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from model.bundle import Bundle
from model.codecs import Tensors
from model.errors import RequestError
from model.halting import HaltReason
from model.manifest import Manifest
from model.row import Bucket, Layout, Row
from service.runners.computing import Computing
from service.runners.runner import Batch, Carry, Course, Flight, Headway, Landing, View, failed

NEVER = 10**6


def fake_manifest() -> Manifest:
    return Manifest.model_validate(
        {
            "name": "fake",
            "version": "1",
            "task": "fake",
            "codec": {"name": "tensors"},
            "classes": [{"label": "no", "answer": False}, {"label": "yes", "answer": True}],
            "inputs": [
                {"name": "plan", "dtype": "float32", "shape": ["B", 4]},
                {"name": "tokens", "dtype": "float32", "shape": ["B", "N"]},
            ],
            "state": [{"name": "state", "dtype": "float32", "shape": ["B", "N", 2]}],
            "logits": {"name": "logits", "dtype": "float32", "shape": ["B", 2]},
            "scores": ["confidence", "entropy"],
            "axes": {"N": {"max": 64}},
            "steps": {"default": 8, "limit": 1024},
            "halting": {"criterion": "confidence", "threshold": 0.5},
            "files": {},
        }
    )


def fake_bundle() -> Bundle:
    return Bundle(Path("fake"), fake_manifest())


def plan(name: int, **terms: int) -> Row:
    """A row that does what it says; see tensors_of."""
    return Layout(fake_manifest()).row(tensors_of(name, **terms))


def tensors_of(
    name: int, halt_at: int = NEVER, fail_at: int = NEVER, nan_at: int = NEVER, tokens: int = 3
) -> Tensors:
    return {
        "plan": np.array([name, halt_at, fail_at, nan_at], np.float32),
        "tokens": np.zeros(tokens, np.float32),
    }


class FakeCodec:
    """{"name": 1, "halt_at": 3} -> a plan."""

    example: dict[str, Any] = {"name": 0, "halt_at": 1}  # noqa: RUF012

    def encode(self, problem: object, field: str) -> Tensors:
        if not isinstance(problem, dict):
            raise RequestError("a fake problem is an object", field)
        return tensors_of(**problem)

    def readout_tokens(self, tensors: Tensors) -> list[int]:
        return [0]


class FakeRunner:
    """Keeps rows and depths; fails where a plan says so; can be held at the start of a step.

    `ahead` makes it a lazy device: what is launched is computed when it lands, oldest first, and a row
    may have two steps under way. Released rows stay with the launches that they are on.
    """

    backend = "fake"
    device = "cpu"
    computing = Computing()
    workers = 1
    lean = False

    def __init__(
        self, micro_batch: int = 4, ahead: bool = False, cost: float = 0.0, bursts: bool = False
    ) -> None:
        self.micro_batch = micro_batch
        self.ahead = ahead
        self.bursts = bursts
        self.seconds = cost  # that a row is said to take for a step
        self.admissions: list[int] = []  # names, in order
        self.batches: list[list[int]] = []  # names of every batch, in order
        self.may_step = threading.Event()  # cleared by a test that wants to hold the engine
        self.may_step.set()
        self.stepping = threading.Event()  # set when a step begins
        self.closed = False
        self._flights: list[tuple[Flight, list[int], list[Passenger]]] = []
        self._aboard: dict[int, Passenger] = {}
        self._next = 0
        self.courses: dict[Flight, Course] = {}  # of what is under way

    @property
    def room(self) -> int:
        return 1 + self.ahead

    @property
    def rows(self) -> dict[int, Row]:
        return {slot: passenger.row for slot, passenger in self._aboard.items()}

    def rows_per_batch(self, bucket: Bucket) -> int:
        return self.micro_batch

    def cost(self, bucket: Bucket) -> float:
        return self.seconds

    def put(self, slot: int, carry: Carry) -> None:
        assert slot not in self._aboard, f"slot {slot} is taken"
        name, _, fail_at, _ = carry.row.tensors["plan"]
        if fail_at == 0:
            raise RuntimeError("this row cannot be embedded")
        self._aboard[slot] = Passenger(carry.row, carry.depth)
        if not carry.depth:
            self.admissions.append(int(name))

    def embed(self, slot: int) -> None:
        assert slot in self._aboard, f"slot {slot} is empty"

    def take(self, slot: int) -> Carry:
        passenger = self._aboard.pop(slot)
        assert not any(passenger in aboard for _, _, aboard in self._flights), "taken in mid-flight"
        return Carry(passenger.row, passenger.depth, [])

    def release(self, slot: int) -> None:
        self._aboard.pop(slot, None)

    def launch(
        self, batch: Batch, shown: Sequence[int], lean: bool = False, course: Course | None = None
    ) -> Flight:
        aboard = [self._aboard[slot] for slot in batch]
        assert len(batch) <= self.micro_batch, "a batch is larger than the device takes"
        assert len({passenger.row.bucket for passenger in aboard}) == 1, "a batch mixes lengths"
        under_way = sum(passenger in flight for _, _, flight in self._flights for passenger in aboard[:1])
        assert under_way <= self.ahead, "a row is launched before its last step is decided"
        assert course is None or (self.bursts and not self.ahead), "nobody takes a course unasked"
        self._next += 1
        self._flights.append((self._next, list(batch), aboard))
        if course is not None:
            self.courses[self._next] = course
        return self._next

    def land(self) -> list[Landing]:
        self.stepping.set()
        assert self.may_step.wait(30), "a test forgot to let the engine go"
        landings = [self._go(*self._flights.pop(0))]
        while self._flights and not self.ahead:
            landings.append(self._go(*self._flights.pop(0)))
        return landings

    def wake(self) -> None:
        pass

    def _go(self, flight: Flight, batch: list[int], aboard: list[Passenger]) -> Landing:
        """A step, or several on a course."""
        course = self.courses.pop(flight, None)
        if course is None:
            return self._step(flight, batch, aboard)
        headway = Headway(course, self.wanted)
        while True:
            landing = self._step(flight, batch, aboard)
            if landing.error is not None:
                return failed(flight, landing.error, np.full(len(batch), headway.taken))
            if not headway.goes_on(landing.logits, landing.scores):
                taken = np.full(len(batch), headway.taken)
                return replace(landing, taken=taken, held_for=headway.held_for)

    def wanted(self) -> bool:
        """Whether somebody has called in the middle of a course."""
        return False

    def _step(self, flight: Flight, batch: list[int], aboard: list[Passenger]) -> Landing:
        self.batches.append([int(passenger.row.tensors["plan"][0]) for passenger in aboard])
        logits, scores, states = [], [], {}
        for slot, passenger in zip(batch, aboard, strict=True):
            name, halt_at, fail_at, nan_at = passenger.row.tensors["plan"]
            passenger.depth += 1
            depth = passenger.depth
            if depth >= fail_at:
                return failed(flight, RuntimeError(f"row {name:.0f} failed"))
            logits.append([name, np.nan if depth >= nan_at else depth])
            scores.append([1.0 if depth >= halt_at else 0.0, np.nan])
            tokens = len(passenger.row.tensors["tokens"])
            states[slot] = {"state": np.full((tokens, 2), depth, np.float32)}

        def state(slot: int, view: View) -> Tensors:
            return view.of(states[slot])

        return Landing(flight, np.array(logits, np.float32), np.array(scores, np.float32), state)

    def close(self) -> None:
        self.closed = True


@dataclass(eq=False)
class Passenger:
    """A row in the fake runner, wherever it sits."""

    row: Row
    depth: int


@dataclass
class FakeObserver:
    """Remembers what the engine reported."""

    rows: list[int] = field(default_factory=list)
    reasons: list[HaltReason] = field(default_factory=list)
    loads: list[tuple[int, int]] = field(default_factory=list)
    yields: int = 0
    restarts: int = 0
    dropped_steps: int = 0

    def stepped(self, rows: int, seconds: float, steps: int = 1) -> None:
        assert seconds >= 0
        assert steps > 0
        self.rows.append(rows)

    def queued(self, seconds: float) -> None:
        assert seconds >= 0

    def finished(self, reason: HaltReason, steps: int) -> None:
        self.reasons.append(reason)

    def load(self, running: int, waiting: int, slots: int) -> None:
        assert 0 <= running <= slots
        self.loads.append((running, waiting))

    def yielded(self) -> None:
        self.yields += 1

    def restarted(self) -> None:
        self.restarts += 1

    def dropped(self, steps: int) -> None:
        self.dropped_steps += steps


class FakeClock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now
