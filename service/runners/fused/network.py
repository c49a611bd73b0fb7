"""A bundle's network with the step in one kernel: to a runner what a TorchScript module is, and more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.bundle import TORCHSCRIPT, Bundle
from service.errors import StartupError
from service.runners.fused.launch import kernel_for
from service.runners.fused.orders import ORDERS
from service.runners.fused.shape import Shape, shape_of, tokens_on_chip
from service.runners.runner import Device
from service.runners.torchscript import load_torchscript

CHANGED = slice(3, 7)  # of the tensors: state, readout, delta, stability


class FusedNetwork:
    """Embeds, and steps rows that do not fit on chip, with model.ts; all others think in the kernel.

    tensors are a step's, in the manifest's order: attention (B, 1, N, N), places (B, 2, N), real (B, N),
    state (B, N, D), readout (B, 2), delta (B, N, D), stability (B,).
    """

    def __init__(self, bundle: Bundle, device: Device, programs: Path) -> None:
        """Raises StartupError where the kernel does not compute the bundle's network."""
        self.shape: Shape = shape_of(bundle)
        if not bundle.has(TORCHSCRIPT):
            raise StartupError(f"{bundle.folder}: has no {TORCHSCRIPT}, which backend fused embeds with")
        self._device = torch.device(device)
        self._module: Any = load_torchscript(bundle.path(TORCHSCRIPT), device)
        self._weights = packed(self._module.state_dict(), self.shape)
        self._kernels = {
            tokens: kernel_for(self.shape, tokens, self._device, programs) for tokens in self.shape.sizes
        }
        self._once = orders_for_a_step(0, self._device)

    def embed(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """As model.ts embeds."""
        return self._module.embed(*inputs)

    def step(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """As model.ts steps: state, readout, delta, stability, logits (B, 2), scores (B, S)."""
        rows, tokens = tensors[2].shape
        if not self.shape.fits(tokens):
            return self._module.step(*tensors)
        if len(self._once) < rows:
            self._once = orders_for_a_step(rows, self._device)
        after = [tensor.clone() for tensor in tensors[CHANGED]]
        shown = self.think([*tensors[: CHANGED.start], *after], self._once[:rows], 1)[0]
        return *after, shown[:, :2], shown[:, 2:]

    def think(self, tensors: list[Tensor], orders: Tensor, steps: int) -> Tensor:
        """Take up to `steps` steps of every row, as its order says: (steps, B, 2 + S), logits and scores.

        State and memory are changed in place, and so are the orders (B, 8) int32, of ORDERS: at the end
        they say how many steps a row has taken. What is shown of steps past those means nothing.
        """
        rows, tokens = tensors[2].shape
        assert self.shape.fits(tokens), f"{tokens} tokens do not fit on chip"
        shown = torch.empty((steps, rows, self.shape.shown), device=self._device)
        given = [tensor.contiguous() for tensor in tensors[: CHANGED.start]]
        changed = tensors[CHANGED]
        assert all(tensor.is_contiguous() for tensor in (*changed, orders)), "these are changed in place"
        self._kernels[tokens_on_chip(tokens)](rows, tokens, [*given, *changed, orders, self._weights, shown])
        return shown


def orders_for_a_step(rows: int, device: torch.device) -> Tensor:
    """Orders for one step each, watching nothing: the kernel leaves them as they are, but for the depth."""
    names = list(ORDERS.names or ())
    orders = torch.zeros((rows, len(names)), dtype=torch.int32, device=device)
    for name, value in (("column", -1), ("patience", 1), ("steps", 1)):
        orders[:, names.index(name)] = value
    return orders


def packed(weights: dict[str, Tensor], shape: Shape) -> Tensor:
    """The weights as the kernel reads them, (W,) float32: in the order of a step, every matrix (in, out)."""
    weights = {name.removeprefix("model.network."): tensor.float() for name, tensor in weights.items()}

    def layer(name: str) -> list[Tensor]:
        weight = weights[f"{name}.weight"]
        return [weight.T if weight.dim() == 2 else weight, weights[f"{name}.bias"]]

    block, attention = "block", "block.attention"
    parts = [
        *(part for name in ("_norm", ".project", ".out") for part in layer(attention + name)),
        *(part for name in ("feed_forward_norm", "expand", "contract") for part in layer(f"{block}.{name}")),
        weights.get("block.scale", weights["gate.bias"].new_ones(2, shape.width)),
        *layer("gate"),
        *layer("head_norm"),
        weights["head.weight"],  # (2, 2 D), as it is
        weights["head.bias"],
    ]
    if shape.learned:
        parts += [part for name in ("norm", "feature", "hidden", "out") for part in layer(f"halting.{name}")]
    return torch.cat([part.reshape(-1) for part in parts])
