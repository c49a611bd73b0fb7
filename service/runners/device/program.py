"""A program: what embeds and steps on a device, and what may be done with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from model.bundle import TORCHSCRIPT, Bundle
from service.runners.device.lane import Lane
from service.runners.device.tables import Table
from service.runners.torchscript import load_torchscript

# Tensors in the manifest's order -> tensors: the methods embed and step, and lean where there is a lean step.
Module = Any
Load = Callable[[Bundle, Lane], Module]


@dataclass(frozen=True)
class Program:
    """One of the ways to compute a bundle's steps with rows that stay on the device."""

    backend: str  # as it is asked for and shown
    load: Load
    exact: Load | None = None  # what it is held against, in IEEE float32; None: itself
    captures: bool = True  # whether its work may become CUDA graphs
    table: Callable[..., Table] = Table  # what holds rows and steps them, called as Table is
    bursts: bool = False  # whether it takes several steps in a launch


def load_scripted(bundle: Bundle, lane: Lane) -> Module:
    """model.ts. Raises StartupError where torch cannot load it."""
    return load_torchscript(bundle.path(TORCHSCRIPT), lane.device)


SCRIPTED = Program("torchscript", load_scripted)
