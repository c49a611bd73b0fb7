"""The seam between scheduling and computing: a runner holds tensors and computes, and decides nothing."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from model.codecs import Tensors
from model.manifest import Manifest
from service.runners.layout import Arrays, Bucket, Floats
from service.runners.memory import SlotMemory

CPU_STATE_BYTES = 64 * 1024  # of state per batch: its activations then stay in L2 (benchmarks/batch_size.py)
CUDA_ROWS = 256  # a GPU wants all there is

Device = Literal["cpu", "cuda"]
Batch = Sequence[int]  # slots of one bucket that take a step together
T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class Computed:
    """What a batch's step showed: logits (B, C) and scores (B, S), rows in the batch's order."""

    logits: Floats
    scores: Floats


class Runner(Protocol):
    """Embeds problems into slots and steps batches of slots. Called by one thread."""

    backend: str  # "onnx" or "torchscript"
    device: str  # "cpu" or "cuda"
    workers: int  # batches that are computed at the same time

    def rows_per_batch(self, bucket: Bucket) -> int:
        """How many rows of this bucket make a batch that suits the device."""
        ...

    def admit(self, slots: Sequence[int], rows: Sequence[Tensors], bucket: Bucket) -> None:
        """Embed rows of one bucket into free slots. Raises whatever the backend raises; then none is in."""
        ...

    def step(self, batches: Sequence[Batch]) -> list[Computed | Exception]:
        """One step for every batch; a batch that fails leaves its exception in its place."""
        ...

    def state(self, slot: int) -> Tensors:
        """A copy of a slot's state by name, without batch axis and padding."""
        ...

    def release(self, slot: int) -> None:
        """Free a slot, admitted or not."""
        ...

    def close(self) -> None:
        """Let go of threads and device memory."""
        ...


class HostRunner(ABC):
    """A runner whose slots live in host memory; a backend adds the two computations.

    On a CPU a few rows that stay in cache beat one large batch, and cores are used by computing
    several such batches side by side rather than by threads inside one.
    """

    backend: str
    device: str

    def __init__(self, manifest: Manifest, device: Device) -> None:
        self.device = device
        self.workers = workers = cores() if device == "cpu" else 1
        self._manifest = manifest
        self._memory = SlotMemory(manifest)
        self._carried = len(manifest.state) + len(manifest.memory)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="runner") if workers > 1 else None

    @abstractmethod
    def _run_embed(self, inputs: Arrays) -> Arrays: ...

    @abstractmethod
    def _run_step(self, inputs: Arrays) -> Arrays: ...

    def rows_per_batch(self, bucket: Bucket) -> int:
        if self.device == "cuda":
            return CUDA_ROWS
        shapes = (self._memory.layout.shape(spec, bucket) for spec in self._manifest.state)
        row_bytes = sum(math.prod(shape) * 4 for shape in shapes)
        return max(1, CPU_STATE_BYTES // row_bytes)

    def admit(self, slots: Sequence[int], rows: Sequence[Tensors], bucket: Bucket) -> None:
        embedded = self._run_embed(self._memory.layout.stack(rows, bucket))
        self._memory.place(slots, rows, bucket, embedded)

    def step(self, batches: Sequence[Batch]) -> list[Computed | Exception]:
        if self._pool is None or len(batches) == 1:
            return [_attempt(self._step_batch, batch) for batch in batches]
        return list(self._pool.map(lambda batch: _attempt(self._step_batch, batch), batches))

    def state(self, slot: int) -> Tensors:
        return self._memory.state(slot)

    def release(self, slot: int) -> None:
        self._memory.release(slot)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def _step_batch(self, batch: Batch) -> Computed:
        table, where, inputs = self._memory.gather(batch)
        outputs = self._run_step(inputs)
        self._memory.scatter(table, where, outputs[: self._carried])
        logits, scores = outputs[self._carried :]
        return Computed(logits, scores)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _attempt(compute: Callable[[T], U], argument: T) -> U | Exception:
    try:
        return compute(argument)
    except Exception as error:  # noqa: BLE001  a backend may raise anything; the engine fails this batch alone
        return error
