"""Hand-written stand-ins: a model whose rows do exactly what each row says, with no weights.

A problem's tensor `plan` (4,) is [name, halt_at, fail_at, nan_at]: its confidence is 1 from step
halt_at on (0 before), its step fails at depth fail_at, its readout is not a number at nan_at.
The logits show [name, steps taken], so that a mixed-up row cannot go unnoticed.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from model.bundle import Bundle
from model.codecs import Tensors
from model.errors import RequestError
from model.halting import HaltReason
from model.manifest import Manifest
from service.runners.layout import Bucket
from service.runners.runner import Batch, Computed

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


def plan(
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
        return plan(**problem)

    def readout_tokens(self, tensors: Tensors) -> list[int]:
        return [0]


class FakeRunner:
    """Keeps plans and depths; fails where a plan says so; can be held at the start of a step."""

    backend = "fake"
    device = "cpu"
    workers = 1

    def __init__(self, micro_batch: int = 4) -> None:
        self.micro_batch = micro_batch
        self.rows: dict[int, Tensors] = {}
        self.depths: dict[int, int] = {}
        self.buckets: dict[int, Bucket] = {}
        self.admissions: list[int] = []  # names, in order
        self.batches: list[list[int]] = []  # names of every batch, in order
        self.may_step = threading.Event()  # cleared by a test that wants to hold the engine
        self.may_step.set()
        self.stepping = threading.Event()  # set when a step begins
        self.closed = False

    def rows_per_batch(self, bucket: Bucket) -> int:
        return self.micro_batch

    def admit(self, slots: Sequence[int], rows: Sequence[Tensors], bucket: Bucket) -> None:
        if any(row["plan"][2] == 0 for row in rows):
            raise RuntimeError("this row cannot be embedded")
        for slot, row in zip(slots, rows, strict=True):
            assert slot not in self.rows, f"slot {slot} is taken"
            self.rows[slot], self.depths[slot], self.buckets[slot] = row, 0, bucket
            self.admissions.append(int(row["plan"][0]))

    def step(self, batches: Sequence[Batch]) -> list[Computed | Exception]:
        self.stepping.set()
        assert self.may_step.wait(30), "a test forgot to let the engine go"
        return [self._step(list(batch)) for batch in batches]

    def _step(self, batch: list[int]) -> Computed | Exception:
        assert len(batch) <= self.micro_batch, "a batch is larger than the device takes"
        assert len({self.buckets[slot] for slot in batch}) == 1, "a batch mixes lengths"
        self.batches.append([int(self.rows[slot]["plan"][0]) for slot in batch])
        logits, scores = [], []
        for slot in batch:
            name, halt_at, fail_at, nan_at = self.rows[slot]["plan"]
            self.depths[slot] += 1
            depth = self.depths[slot]
            if depth >= fail_at:
                return RuntimeError(f"row {name:.0f} failed")
            logits.append([name, np.nan if depth >= nan_at else depth])
            scores.append([1.0 if depth >= halt_at else 0.0, np.nan])
        return Computed(np.array(logits, np.float32), np.array(scores, np.float32))

    def state(self, slot: int) -> Tensors:
        tokens = len(self.rows[slot]["tokens"])
        return {"state": np.full((tokens, 2), self.depths[slot], np.float32)}

    def release(self, slot: int) -> None:
        for kept in (self.rows, self.depths, self.buckets):
            kept.pop(slot, None)

    def close(self) -> None:
        self.closed = True


@dataclass
class FakeObserver:
    """Remembers what the engine reported."""

    rows: list[int] = field(default_factory=list)
    reasons: list[HaltReason] = field(default_factory=list)
    loads: list[tuple[int, int]] = field(default_factory=list)

    def stepped(self, rows: int, seconds: float) -> None:
        assert seconds >= 0
        self.rows.append(rows)

    def queued(self, seconds: float) -> None:
        assert seconds >= 0

    def finished(self, reason: HaltReason, steps: int) -> None:
        self.reasons.append(reason)

    def load(self, running: int, waiting: int, slots: int) -> None:
        assert 0 <= running <= slots
        self.loads.append((running, waiting))


class FakeClock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now
