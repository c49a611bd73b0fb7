"""The program that thinks in the fused kernel."""

from __future__ import annotations

from pathlib import Path

from service.runners.device.program import Program, load_scripted
from service.runners.fused.network import FusedNetwork
from service.runners.fused.table import table_of


def fused(kernels: Path) -> Program:
    """kernels: the folder of those that were compiled ahead."""
    folder = kernels.expanduser()
    return Program(
        "fused",
        lambda bundle, lane: FusedNetwork(bundle, lane.device, folder),
        exact=load_scripted,
        table=table_of,
        bursts=True,
    )
