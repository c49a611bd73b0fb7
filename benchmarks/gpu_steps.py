"""The part of `benchmarks/gpu.py` that is about the device: launches, steps of networks of several shapes.

On a CPU every part runs, too, so that the plan is tried before a GPU is paid for; its figures mean nothing
there. Times are medians of several rounds of many steps, in microseconds.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from model.network.config import RecurrentConfig
from model.network.perception import GraphInputs
from model.network.recurrent import RecurrentTransformer
from model.network.served import ServedModel
from service.runners.computing import Precision
from service.runners.device.lane import WARM_UP, Lane

Facts = dict[str, Any]
SEED = 0


@dataclass(frozen=True)
class Shape:
    """A network and the length of its problems."""

    name: str
    width: int
    heads: int
    feed_forward: int
    tokens: int


SHAPES = (
    Shape("d64 N24, the shipped graph's", 64, 4, 128, 24),
    Shape("d64 N128", 64, 4, 128, 128),
    Shape("d128 N32", 128, 8, 512, 32),
    Shape("d256 N32", 256, 8, 1024, 32),
    Shape("d256 N128, the paper's logic", 256, 8, 1024, 128),
)


@dataclass(frozen=True)
class Extent:
    """How long to measure: steps of a round at most, and rounds."""

    steps: int
    rounds: int
    seconds: float = 0.2  # that a round takes, if it does not have that many steps


def microseconds(lane: Lane, run: Callable[[], Any], extent: Extent) -> float:
    """What one call takes when many are asked for one after the other."""
    for _ in range(WARM_UP):
        run()
    count, took = 1, []
    for _ in range(1 + extent.rounds):
        lane.wait(lane.mark())
        began = time.perf_counter()
        for _ in range(count):
            run()
        lane.wait(lane.mark())
        took.append((time.perf_counter() - began) / count * 1e6)
        count = max(1, min(extent.steps, int(extent.seconds / (took[0] / 1e6))))
    return round(median(took[1:]), 2)  # the first round was to count the others' steps


def card(lane: Lane, extent: Extent) -> Facts:
    """The device, its clocks, and what a launch costs: a graph of 100 small kernels."""
    query = "name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.limit,persistence_mode"
    facts: Facts = {"device": lane.name or "CPU", "torch": torch.__version__, "cuda": torch.version.cuda}
    if lane.on_gpu:
        told = subprocess.run(
            ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"], capture_output=True, text=True
        )
        values = told.stdout.splitlines()[0].split(", ") if told.stdout else []
        facts |= dict(zip(query.split(","), values, strict=False))
    with lane.work():
        small = torch.zeros(1, device=lane.device)

        def hundred() -> None:
            for _ in range(100):
                small.add_(1)

        facts["us_per_captured_kernel"] = microseconds(lane, lane.captured(hundred), extent) / 100
        facts["us_per_eager_kernel"] = microseconds(lane, hundred, extent) / 100
    return facts


def network(lane: Lane, shape: Shape) -> ServedModel:
    """Untrained: what it says is of no account here."""
    torch.manual_seed(SEED)
    config = RecurrentConfig(
        width=shape.width, heads=shape.heads, feed_forward=shape.feed_forward, halting_head=True
    )
    return ServedModel(RecurrentTransformer(config), "latent_diff").eval().to(lane.device)


def problems(lane: Lane, shape: Shape, rows: int) -> GraphInputs:
    """Random graphs without padding."""
    draw = torch.Generator().manual_seed(SEED)
    full = (rows, shape.tokens)
    return GraphInputs(
        torch.randint(0, 4, full, generator=draw).to(lane.device),
        (torch.rand((*full, shape.tokens), generator=draw) < 0.1).to(lane.device),
        torch.ones(full, dtype=torch.bool, device=lane.device),
    )


def stepping(model: Any, tensors: list[Tensor], kept: int, verb: str = "step") -> Callable[[], None]:
    """A step of `verb` that writes the next state, and memory where it has any, over the last ones."""
    depth = torch.zeros(len(tensors[0]), dtype=torch.int64, device=tensors[0].device)
    step = getattr(model, verb)
    inputs = tensors if verb == "step" else tensors[: kept + 1]

    def run() -> None:
        following = step(*inputs, depth)
        for tensor, values in zip(inputs[kept:], following, strict=False):
            tensor.copy_(values)

    return run


def steps(
    device: str, shape: Shape, rows: int, precision: Precision, inductor: bool, extent: Extent
) -> Facts:
    """Microseconds a step, by way of running it."""
    lane = Lane(device, precision)
    model, facts = network(lane, shape), {}
    with lane.work():
        tensors = [tensor.clone() for tensor in model.embed(*problems(lane, shape, rows))]
        kept = len(model.context)
        eager = stepping(model, tensors, kept)
        facts["eager"] = microseconds(lane, eager, extent)
        traced = stepping(_traced(model, tensors), tensors, kept)
        facts["traced"] = microseconds(lane, traced, extent)
        facts["captured"] = microseconds(lane, lane.captured(traced), extent)
        with torch.jit.optimized_execution(True):  # type: ignore[no-untyped-call]
            fusing = stepping(_traced(model, tensors), tensors, kept)
            facts["captured_fused_by_torchscript"] = microseconds(lane, lane.captured(fusing), extent)
        lean = stepping(model, tensors, kept, "lean")
        facts["captured_lean"] = microseconds(lane, lane.captured(lean), extent)
        if inductor:
            compiled = stepping(_Compiled(model), tensors, kept)
            facts["captured_inductor"] = microseconds(lane, lane.captured(compiled), extent)
    return facts


class _Compiled:
    """The step through Inductor."""

    def __init__(self, model: ServedModel) -> None:
        self.step = torch.compile(model.step)


class _Step(torch.nn.Module):
    def __init__(self, model: ServedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return self.model.step(*tensors)


def _traced(model: ServedModel, tensors: list[Tensor]) -> Any:
    depth = torch.zeros(len(tensors[0]), dtype=torch.int64, device=tensors[0].device)
    traced = torch.jit.trace(_Step(model), (*tensors, depth), check_trace=False)  # type: ignore[no-untyped-call]
    return type("Traced", (), {"step": staticmethod(traced)})


def dense_or_gathered(device: str, shape: Shape, rows: int, extent: Extent) -> Facts:
    """A step in place against one that gathers its rows first and scatters them after, both captured."""
    lane = Lane(device)
    model = network(lane, shape)
    with lane.work():
        tensors = [tensor.clone() for tensor in model.embed(*problems(lane, shape, rows))]
        where, kept = torch.randperm(rows).to(lane.device), len(model.context)
        depth = torch.zeros(rows, dtype=torch.int64, device=lane.device)

        def gathered() -> None:
            following = model.step(*(tensor.index_select(0, where) for tensor in tensors), depth)
            for tensor, values in zip(tensors[kept:], following, strict=False):
                tensor.index_copy_(0, where, values)

        return {
            "dense": microseconds(lane, lane.captured(stepping(model, tensors, kept)), extent),
            "gathered": microseconds(lane, lane.captured(gathered), extent),
        }
