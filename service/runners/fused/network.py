"""A bundle's network with the step in one kernel: to a runner what a TorchScript module is, and more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.bundle import TORCHSCRIPT, Bundle
from service.errors import StartupError
from service.runners.fused.launch import kernel_for
from service.runners.fused.orders import NUMBERS, for_one_step
from service.runners.fused.shape import Shape, shape_of, tokens_on_chip
from service.runners.torchscript import load_torchscript

CHANGED = 3  # the first of the tensors that a step changes


class FusedNetwork:
    """Embeds with model.ts; what fits on chip thinks in the kernel.

    tensors are a step's, in the manifest's order: attention (B, 1, N, N), places (B, 2, N), real (B, N),
    state (B, N, D), readout (B, 2), delta (B, N, D), stability (B,).
    """

    def __init__(self, bundle: Bundle, device: torch.device, programs: Path) -> None:
        """programs: the folder of kernels that were compiled ahead.

        Raises StartupError where the kernel does not compute the bundle's network, or was not compiled for
        this device.
        """
        self.shape: Shape = shape_of(bundle)
        if not bundle.has(TORCHSCRIPT):
            raise StartupError(f"{bundle.folder}: has no {TORCHSCRIPT}, which backend fused embeds with")
        self.scripted: Any = load_torchscript(bundle.path(TORCHSCRIPT), device)
        self.embed = self.scripted.embed
        self._weights = packed(self.scripted.state_dict(), self.shape)
        self._kernels = {
            tokens: kernel_for(self.shape, tokens, device, programs) for tokens in self.shape.sizes
        }

    def step(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """As model.ts steps, for whoever compares the two: logits (B, 2) and scores (B, S) come last."""
        rows, tokens = tensors[2].shape
        if not self.shape.fits(tokens):
            return self.scripted.step(*tensors)
        given = [*(tensor.contiguous() for tensor in tensors[:CHANGED]), *map(torch.clone, tensors[CHANGED:])]
        shown = given[CHANGED].new_empty((rows, self.shape.shown))
        self.think(given, told(for_one_step(rows)).to(shown.device), shown)
        return *given[CHANGED:], shown[:, :2], shown[:, 2:]

    def think(self, tensors: list[Tensor], orders: Tensor, shown: Tensor) -> None:
        """Take as many steps of every row as its order allows: (B, 8) int32, of ORDERS.

        State, memory and orders are changed in place: at the end the orders say how many steps a row has
        taken. shown takes logits and scores: of each step, (K, B, 2 + S), where what lies past a row's last
        one is left as it is; or of the last alone, (B, 2 + S), where rows that take none are left.
        """
        rows, tokens = tensors[2].shape
        assert self.shape.fits(tokens), f"{tokens} tokens do not fit on chip"
        given = [*tensors, orders, self._weights, shown]
        assert all(tensor.is_contiguous() for tensor in given), "the kernel knows no strides"
        apart = rows if shown.dim() == 3 else 0
        self._kernels[tokens_on_chip(tokens)](rows, tokens, apart, given)


def told(orders: NDArray[np.void]) -> Tensor:
    """Orders (B,) as the kernel takes them: (B, 8) int32."""
    return torch.from_numpy(orders.view(np.int32).reshape(len(orders), NUMBERS))


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
