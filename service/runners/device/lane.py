"""A lane: the one stream of a torch device on which all of a runner's work happens in order.

On a CPU everything has happened when a call returns, so that the same code runs, and is tested, without
a GPU: a captured graph is a plain call, a mark has always been passed, pinned memory is memory.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.errors import first_line
from service.runners.computing import Precision

log = logging.getLogger("fathom")
WARM_UP = 3  # runs before a capture: TorchScript and cuBLAS settle on kernels in their first ones

Mark = Any  # a torch.cuda.Event, or None on a CPU


class Lane:
    """Where one runner computes. Called by one thread at a time."""

    def __init__(self, device: str, precision: Precision = "ieee", captures: bool = True) -> None:
        """precision: of matrix products. IEEE and TF32 are the whole process's: the last lane decides.

        captures: whether work may become a CUDA graph.
        """
        self.device = torch.device(device)
        self.on_gpu = self.device.type == "cuda"
        self.precision = precision
        self._captures = captures
        self._uncaptured = False  # whether the log has been told of work that could not be captured
        if self.on_gpu:
            allow_tf32(precision == "tf32")
        self._stream: Any = torch.cuda.Stream(self.device) if self.on_gpu else None  # type: ignore[no-untyped-call]
        self._pool: Any = torch.cuda.graph_pool_handle() if self.on_gpu else None

    @contextmanager
    def work(self) -> Iterator[None]:
        """All that is asked of torch within happens on this lane, in order."""
        bf16 = self.precision == "bf16"
        # Without autocast's cache, for a captured graph must not read weights that were cast before it.
        products = torch.autocast(self.device.type, torch.bfloat16, enabled=bf16, cache_enabled=False)
        # TorchScript's own optimiser compiles kernels at run time, for each shape anew: never in a capture.
        as_it_is = torch.jit.optimized_execution(False)  # type: ignore[attr-defined]
        with torch.inference_mode(), as_it_is, products:
            if self._stream is None:
                yield
                return
            with torch.cuda.stream(self._stream):
                yield

    def captured(self, run: Callable[[], None]) -> Callable[[], None]:
        """The same work as one launch: on a GPU a CUDA graph, whose tensors must stay where they are.

        What cannot be captured is run as it is, and the log says so once. Raises torch.OutOfMemoryError.
        """
        if not self.on_gpu:
            return run
        for _ in range(WARM_UP):
            run()
        torch.cuda.current_stream().synchronize()
        if not self._captures:
            return run
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                run()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            level = logging.DEBUG if self._uncaptured else logging.WARNING
            log.log(level, "no CUDA graph could be captured (%s); it runs uncaptured", first_line(error))
            self._uncaptured = True
            torch.cuda.synchronize(self.device)  # raises where the device itself is lost
            return run
        return graph.replay

    def host(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Memory of the host that the device reads and writes while the host does something else."""
        return torch.empty(shape, dtype=dtype, pin_memory=self.on_gpu)

    def send(self, array: NDArray[Any]) -> Tensor:
        """A copy of an array on the device; on its way when the call returns."""
        return self._pinned(array).to(self.device, non_blocking=True)

    def fill(self, there: Tensor, array: NDArray[Any]) -> None:
        """Copy an array into a tensor on the device; on its way when the call returns."""
        there.copy_(self._pinned(array), non_blocking=True)

    def _pinned(self, array: NDArray[Any]) -> Tensor:
        """A copy of an array from which the device can read by itself; torch keeps it until it has."""
        here = torch.from_numpy(np.array(array, order="C"))
        return here.pin_memory() if self.on_gpu else here

    def fetch(self, tensor: Tensor) -> Tensor:
        """A copy of a tensor in the host's memory; there once a mark after it is passed."""
        there = self.host(tuple(tensor.shape), tensor.dtype)
        there.copy_(tensor, non_blocking=True)
        return there

    def mark(self) -> Mark:
        """A place in the order of things, to be waited for."""
        if self._stream is None:
            return None
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(self._stream)
        return event

    @staticmethod
    def passed(mark: Mark) -> bool:
        """Whether all that was asked for before a mark is done."""
        return mark is None or bool(mark.query())

    @staticmethod
    def wait(mark: Mark) -> None:
        """Until all that was asked for before a mark is done. Raises what the device has to say."""
        if mark is not None:
            mark.synchronize()

    def settle(self) -> None:
        """Until all is done that was asked of the device without this lane, as loading a module does."""
        if self._stream is not None:
            torch.cuda.synchronize(self.device)

    @property
    def address(self) -> int | None:
        """Of the CUDA stream, for who works on it without torch; None on a CPU."""
        return None if self._stream is None else int(self._stream.cuda_stream)

    @property
    def name(self) -> str:
        """What the driver calls the device; empty for a CPU."""
        return str(torch.cuda.get_device_name(self.device)) if self.on_gpu else ""

    def free_bytes(self) -> int | None:
        """What is free on the device; None on a CPU, whose pages cost nothing until they are touched."""
        return int(torch.cuda.mem_get_info(self.device)[0]) if self.on_gpu else None

    def give_back(self) -> None:
        """Return memory that nobody uses any more to the device, for whoever comes next."""
        if self.on_gpu:
            gc.collect()
            torch.cuda.empty_cache()

    def is_lost(self) -> bool:
        """Whether the device fails whatever it is asked, as after a sticky CUDA error."""
        try:
            if self.on_gpu:
                torch.cuda.synchronize(self.device)
        except RuntimeError:
            return True
        return False


def allow_tf32(allowed: bool) -> None:
    """Whether products of float32 on a GPU may be computed in TF32, in this process from now on."""
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed
