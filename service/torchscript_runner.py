"""Runs a bundle's TorchScript module; the one file of the service that imports torch."""

from __future__ import annotations

import torch

from model.bundle import TORCHSCRIPT, Bundle
from service.errors import StartupError
from service.layout import Arrays
from service.runner import HostRunner, cores

CPU_MICRO_BATCH = 8  # rows; see benchmarks/micro_batch.py
GPU_MICRO_BATCH = 64


class TorchScriptRunner(HostRunner):
    """model.ts with its methods embed and step."""

    backend = "torchscript"

    def __init__(self, bundle: Bundle, device: str) -> None:
        self.device = device
        path = bundle.path(TORCHSCRIPT)
        try:
            self._module = torch.jit.load(str(path), map_location=device).eval()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise StartupError(f"{path}: torch cannot load it ({error})") from error
        on_cpu = device == "cpu"
        if on_cpu:
            torch.set_num_threads(1)  # cores are used by batches side by side
        super().__init__(
            bundle.manifest, CPU_MICRO_BATCH if on_cpu else GPU_MICRO_BATCH, workers=cores() if on_cpu else 1
        )

    def _run_embed(self, inputs: Arrays) -> Arrays:
        with torch.inference_mode():
            return self._to_host(self._module.embed(*self._to_device(inputs)))

    def _run_step(self, inputs: Arrays) -> Arrays:
        with torch.inference_mode():
            return self._to_host(self._module.step(*self._to_device(inputs)))

    def _to_device(self, arrays: Arrays) -> list[torch.Tensor]:
        return [torch.from_numpy(array).to(self.device) for array in arrays]

    @staticmethod
    def _to_host(tensors: tuple[torch.Tensor, ...]) -> Arrays:
        return [tensor.cpu().numpy() for tensor in tensors]


def has_cuda() -> bool:
    """Whether torch finds a CUDA device."""
    return torch.cuda.is_available()
