"""What the fused kernel is worth, against the captured step: microseconds a step, and row-steps a second.

    python -m service.runners.fused.compile --arch 90 --out KERNELS
    python benchmarks/fused.py KERNELS [BUNDLE]

Needs a GPU. Nobody halts; every figure is the median of rounds in which all take turns.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from gpu_serving import rate
from rich.console import Console
from rich.table import Table
from torch import Tensor

from model.bundle import Bundle, read_bundle
from model.codecs import CodecLimits, codec_of
from model.halting import HaltingRule, terms_of
from model.row import Layout
from service.runners.device.embedder import dtype_of
from service.runners.device.lane import Lane
from service.runners.device.runner import DeviceRunner
from service.runners.device.tables import carried
from service.runners.fused.network import FusedNetwork, told
from service.runners.fused.orders import orders_of
from service.runners.fused.program import fused
from service.runners.runner import Device

SLOTS = 64
TOKENS, ROWS, STEPS, ROUNDS = (16, 32, 64), (1, 8, 64, 132, 264, 512), 16, 15


def microseconds(run: Callable[[], object], steps: int) -> float:
    """What one of the steps of a run takes on the device."""
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    began.record()
    run()
    ended.record()
    ended.synchronize()
    return float(began.elapsed_time(ended)) * 1000 / steps


def main() -> None:
    if len(sys.argv) < 2 or not torch.cuda.is_available():
        sys.exit(__doc__)
    bundle = read_bundle(Path(sys.argv[2] if len(sys.argv) > 2 else "bundles/graph/1"))
    console = Console()
    console.print(f"{torch.cuda.get_device_name()}: IEEE float32")
    console.print(on_the_device(bundle, Path(sys.argv[1])))
    console.print(in_the_engine(bundle, "cuda", Path(sys.argv[1])))


def on_the_device(bundle: Bundle, kernels: Path) -> Table:
    """Microseconds a step, and how far the kernel's first step is from model.ts."""
    manifest, layout, lane = bundle.manifest, Layout(bundle.manifest), Lane("cuda")
    network = FusedNetwork(bundle, lane.device, kernels)
    terms, scripted = terms_of(HaltingRule(), 1, STEPS, manifest.criteria), network.scripted
    table = Table("tokens", "rows", "captured", "fused", f"fused, {STEPS} a launch", "largest difference")
    for tokens in TOKENS:
        for rows in ROWS:
            start = np.zeros(rows, np.int64)
            orders = [told(orders_of(np.full(rows, terms), start, start, most)).cuda() for most in (1, STEPS)]
            with lane.work():
                tensors = [
                    torch.zeros((rows, *layout.shape(spec, (tokens,))), dtype=dtype_of(spec), device="cuda")
                    for spec in carried(manifest)
                ]
                fill(tensors, tokens)
                difference = max(
                    float((mine - theirs).abs().max())
                    for mine, theirs in zip(network.step(*tensors), scripted.step(*tensors), strict=True)
                )
                shown = torch.empty((rows, network.shape.shown), device="cuda")
                kept = torch.empty_like(orders[0])
                runs = {
                    lane.captured(partial(scripted.step, *tensors)): 1,
                    lane.captured(partial(think, network, tensors, orders[0], kept, shown)): 1,
                    lane.captured(partial(think, network, tensors, orders[1], kept, shown)): STEPS,
                }
                times = [[microseconds(run, steps) for run, steps in runs.items()] for _ in range(ROUNDS)]
            medians = [f"{statistics.median(column):.1f}" for column in zip(*times, strict=True)]
            table.add_row(str(tokens), str(rows), *medians, f"{difference:.1e}")
    return table


def think(network: FusedNetwork, tensors: list[Tensor], orders: Tensor, kept: Tensor, shown: Tensor) -> None:
    """A launch with these orders, which the kernel would change."""
    kept.copy_(orders)
    network.think(tensors, kept, shown)


def in_the_engine(bundle: Bundle, device: Device, kernels: Path) -> Table:
    """Row-steps a second of the whole engine, in which rows think for STEPS steps and do not halt."""
    codec = codec_of(bundle.manifest, CodecLimits())
    row = Layout(bundle.manifest).row(codec.encode(codec.example, "example"))
    scripted = DeviceRunner(bundle, device, SLOTS, ahead=True)
    thinking = DeviceRunner(bundle, device, SLOTS, program=fused(kernels))
    table = Table("rows", "captured, a step ahead", "fused, a step a launch", "fused, on a course")
    for rows in (1, SLOTS):
        rates: list[list[float]] = []
        for _ in range(ROUNDS):
            rates.append([])
            for runner, bursts in ((scripted, False), (thinking, False), (thinking, True)):
                runner.bursts = bursts
                rates[-1].append(rate(bundle, runner, row, rows, STEPS))
        medians = [statistics.median(column) for column in zip(*rates, strict=True)]
        table.add_row(str(rows), *(f"{median:,.0f}" for median in medians))
    return table


def fill(tensors: list[Tensor], tokens: int) -> None:
    """A path through all tokens, asked about from end to end, in the order of a step's tensors."""
    attention, places, real, state, *_ = tensors
    path = torch.eye(tokens) + torch.diag(torch.ones(tokens - 1), -1)
    attention.copy_((1 - path).mul(-1e9).expand_as(attention))
    places[:, 0, 0] = places[:, 1, -1] = 1
    real.fill_(True)
    state.normal_()


if __name__ == "__main__":
    main()
