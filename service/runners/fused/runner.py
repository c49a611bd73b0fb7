"""The fused runner: the device runner with a step that is one kernel instead of a hundred."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from model.bundle import Bundle
from service.errors import StartupError
from service.runners.computing import IEEE, Numerics
from service.runners.device import DeviceRunner
from service.runners.fused.network import FusedNetwork
from service.runners.runner import Device


class FusedRunner(DeviceRunner):
    """On "cpu" it runs in Triton's interpreter, for tests."""

    backend = "fused"

    def __init__(
        self,
        bundle: Bundle,
        device: Device,
        slots: int,
        programs: Path,
        ahead: bool = False,
        numerics: Numerics = IEEE,
    ) -> None:
        """programs: the folder of kernels that were compiled ahead. ahead, numerics: as for DeviceRunner.

        Raises StartupError where the kernel does not compute the bundle's network, was not compiled for
        this device, or other numerics than IEEE float32 are asked for.
        """
        if numerics.precision != "ieee":
            raise StartupError(
                f"backend fused computes in IEEE float32: leave precision {numerics.precision} out, "
                "or choose backend torchscript"
            )
        self._programs = programs.expanduser()
        super().__init__(bundle, device, slots, ahead, numerics)

    def _load(self, bundle: Bundle, device: Device) -> Any:
        return FusedNetwork(bundle, device, self._programs)
