"""Runs a bundle's TorchScript module on a CPU."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from model.bundle import TORCHSCRIPT, Bundle
from model.errors import first_line
from model.row import Arrays
from service.errors import StartupError
from service.runners.host import HostRunner
from service.runners.runner import Device


class TorchScriptRunner(HostRunner):
    """model.ts with its methods embed and step."""

    backend = "torchscript"

    def __init__(self, bundle: Bundle, slots: int, cpu_threads: int) -> None:
        super().__init__(bundle.manifest, "cpu", slots, cpu_threads)
        torch.set_num_threads(1)  # cores are used by batches side by side
        self._module = load_torchscript(bundle.path(TORCHSCRIPT), "cpu")
        self.lean = bundle.manifest.lean is not None and hasattr(self._module, "lean")

    def _run_embed(self, inputs: Arrays) -> Arrays:
        with torch.inference_mode():
            return self._arrays(self._module.embed(*map(torch.from_numpy, inputs)))

    def _run_step(self, inputs: Arrays) -> Arrays:
        with torch.inference_mode():
            return self._arrays(self._module.step(*map(torch.from_numpy, inputs)))

    def _run_lean(self, inputs: Arrays) -> Arrays:
        with torch.inference_mode():
            return self._arrays(self._module.lean(*map(torch.from_numpy, inputs)))

    @staticmethod
    def _arrays(tensors: tuple[torch.Tensor, ...]) -> Arrays:
        return [tensor.numpy() for tensor in tensors]


def load_torchscript(path: Path, device: Device | torch.device) -> torch.jit.ScriptModule:
    """model.ts on a device. Raises StartupError where torch cannot load it."""
    with warnings.catch_warnings():
        # TorchScript is deprecated upstream and stays a format of ours: people have such models.
        warnings.filterwarnings(
            "ignore", "`torch.jit.load` is (deprecated|not supported)", DeprecationWarning
        )
        try:
            module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
        except Exception as error:  # whatever its parsers of archives, code and tensors raise
            raise StartupError(f"{path}: torch cannot load it ({first_line(error)})") from error
    move_constants(module, torch.device(device))
    return module.eval().to(device)


def move_constants(module: torch.jit.ScriptModule, device: torch.device) -> None:
    """What tracing has written into a module's code: on which device tensors are made, and tensors.

    Both are of the machine that traced it, and stay when the module is moved. Numbers, which are tensors
    without axes, stay on the CPU: sizes are reckoned with them, and a device would have to be asked.
    """
    for part in module.modules():
        code: Any = part._c
        for name in code._method_names():
            for node in code._get_method(name).graph.findAllNodes("prim::Constant"):
                kind = node.output().type().kind()
                if kind == "DeviceObjType":
                    node.s_("value", str(device))
                elif kind == "TensorType" and node.hasAttribute("value") and node.t("value").dim():
                    node.t_("value", node.t("value").to(device))


def has_cuda() -> bool:
    """Whether torch finds a CUDA device."""
    return torch.cuda.is_available()
