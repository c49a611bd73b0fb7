"""How a compiled kernel gets onto a GPU: through CUDA's driver alone, on torch's current stream."""

from __future__ import annotations

import ctypes
import json
import os
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from service.errors import StartupError
from service.runners.fused.shape import Shape, name_of


class Kernel(Protocol):
    """The kernel for rows of one bucket."""

    def __call__(self, rows: int, tokens: int, apart: int, tensors: list[Tensor]) -> None:
        """Think: the kernel's tensors in its order, contiguous and on its device."""
        ...


class Interpreted:
    """The kernel in Triton's interpreter, on a CPU, for tests: TRITON_INTERPRET=1 from the start."""

    def __init__(self, shape: Shape, tokens: int) -> None:
        from service.runners.fused.compile import constants

        self._constants = constants(shape, tokens)

    def __call__(self, rows: int, tokens: int, apart: int, tensors: list[Tensor]) -> None:
        from service.runners.fused.kernel import think

        think[(rows,)](*tensors, apart, tokens, **self._constants)


class Compiled:
    """A program that was compiled ahead, from its two files (service/runners/fused/compile.py)."""

    def __init__(self, driver: ctypes.CDLL, stem: Path) -> None:
        """Raises StartupError where the driver does not take it."""
        self._driver = driver
        about = json.loads(stem.with_suffix(".json").read_bytes())
        self._threads, self._shared = 32 * about["warps"], about["shared"]
        module, self._function = ctypes.c_void_p(), ctypes.c_void_p()
        self._must(driver.cuModuleLoadData(ctypes.byref(module), stem.with_suffix(".cubin").read_bytes()))
        self._must(driver.cuModuleGetFunction(ctypes.byref(self._function), module, b"think"))

    def __call__(self, rows: int, tokens: int, apart: int, tensors: list[Tensor]) -> None:
        stream = ctypes.c_void_p(torch.cuda.current_stream(tensors[0].device).cuda_stream)
        values = [
            *(ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors),
            ctypes.c_int32(apart),
            ctypes.c_int32(tokens),
            ctypes.c_void_p(),  # Triton's scratch memory, of which this kernel needs none
            ctypes.c_void_p(),
        ]
        there = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        size = (rows, 1, 1, self._threads, 1, 1, self._shared)
        self._must(self._driver.cuLaunchKernel(self._function, *size, stream, there, None))

    @staticmethod
    def _must(status: int) -> None:
        if status:
            raise RuntimeError(f"CUDA's driver refuses the fused kernel with status {status}")


def kernel_for(shape: Shape, tokens: int, device: torch.device, programs: Path) -> Kernel:
    """The kernel for rows of that many tokens on a device.

    programs: the folder of those that were compiled ahead. Raises StartupError where this one is not there.
    """
    if device.type == "cpu":
        if os.environ.get("TRITON_INTERPRET") != "1":
            raise StartupError("backend fused needs a GPU: choose device cuda, or another backend")
        return Interpreted(shape, tokens)
    major, minor = torch.cuda.get_device_capability(device)
    arch = 10 * major + minor
    stem = programs / name_of(shape, tokens, arch)
    if not stem.with_suffix(".json").is_file():
        raise StartupError(
            f"backend fused finds no {stem.name} in {programs}: run "
            f"`python -m service.runners.fused.compile --arch {arch} --out {programs}` (extra `fused`)"
        )
    return Compiled(ctypes.CDLL("libcuda.so.1"), stem)
