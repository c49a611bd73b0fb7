"""Modules that are not ours, for the tests of `fathom export --module`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

Named = dict[str, Tensor]


class Parity(nn.Module):
    """Whether the ones up to each place are odd in number: exact, one place a step, and padded."""

    readout_kind = "tokens"
    labels = ["even", "odd"]  # noqa: RUF012
    mask = "real"
    max_steps = 24
    score_rules = {"still": "above"}  # noqa: RUF012

    def example_inputs(self) -> Named:
        bits = torch.tensor([[1, 0, 1, 1, 0, 0, 1, 0, 1, 1, 1], [0, 0, 1, 0, 1, 1, 1, 0, 0, 1, 0]])
        return {"bits": bits, "real": torch.ones_like(bits, dtype=torch.bool)}

    def embed(self, bits: Tensor, real: Tensor) -> tuple[Named, Named]:
        return {"bits": bits, "real": real}, {"odd": bits.float(), "count": (bits * real).sum(1).float()}

    def step(self, context: Named, state: Named) -> Named:
        before = nn.functional.pad(state["odd"][:, :-1], (1, 0))
        odd = (before - context["bits"].float()).abs() * context["real"]
        return {"odd": odd, "count": state["count"] * 0.5}

    def readout(self, context: Named, state: Named) -> Tensor:
        return 8.0 * torch.stack((0.5 - state["odd"], state["odd"] - 0.5), dim=-1)

    def scores(self, context: Named, state: Named, previous: Named) -> Named:
        same = (state["odd"] == previous["odd"]) | ~context["real"]
        return {"still": same.all(dim=1).float()}


class Spread(nn.Module):
    """Blurs a map; the map is the answer. Its state is (B, C, H, W) and it cannot mask."""

    readout_kind = "tensor"
    axes = {"heat": {2: "H", 3: "W"}}  # noqa: RUF012
    longest = {"H": 512, "W": 512}  # noqa: RUF012
    max_steps = 8

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blur = nn.Conv2d(3, 2, 3, padding=1)

    def example_inputs(self) -> Named:
        return {"heat": torch.rand(2, 1, 5, 7, generator=torch.Generator().manual_seed(1))}

    def embed(self, heat: Tensor) -> tuple[Named, Named]:
        return {"heat": heat}, {"map": torch.cat((heat, heat), dim=1)}

    def step(self, context: Named, state: Named) -> Named:
        return {"map": torch.relu(self.blur(torch.cat((state["map"], context["heat"]), dim=1)))}

    def readout(self, context: Named, state: Named) -> Tensor:
        return state["map"][:, 0]


class Grid(Spread):
    """An answer per cell of a grid, its axes found by trial."""

    readout_kind = "tokens"
    axes = None
    longest: dict[str, int] = {}  # noqa: RUF012
    labels = ["0", "1"]  # noqa: RUF012

    def readout(self, context: Named, state: Named) -> Tensor:
        return state["map"].permute(0, 2, 3, 1)


class Mixing(Spread):
    """Normalises over the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(2)

    def step(self, context: Named, state: Named) -> Named:
        return {"map": self.norm(super().step(context, state)["map"])}


class Verdict(nn.Module):
    """One answer from a vector of fixed size: no axis varies."""

    readout_kind = "classes"
    labels = ["no", "yes"]  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.move, self.head = nn.Linear(6, 6), nn.Linear(6, 2)

    def example_inputs(self) -> Named:
        return {"x": torch.linspace(-1, 1, 12).view(2, 6)}

    def embed(self, x: Tensor) -> tuple[Named, Named]:
        return {"x": x}, {"h": torch.zeros_like(x)}

    def step(self, context: Named, state: Named) -> Named:
        return {"h": torch.tanh(self.move(state["h"]) + context["x"])}

    def readout(self, context: Named, state: Named) -> Tensor:
        return self.head(state["h"])


def parity() -> Parity:
    return Parity().eval()


def nothing() -> str:
    return "no module"
