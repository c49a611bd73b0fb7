"""What the fused kernel is worth: microseconds a step, by rows and tokens, against the captured step.

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
from rich.console import Console
from rich.table import Table
from torch import Tensor

from model.bundle import TORCHSCRIPT, read_bundle
from model.halting import HaltingRule, terms_of
from model.row import Layout
from service.runners.fused.network import FusedNetwork
from service.runners.fused.orders import orders_of
from service.runners.lane import Lane
from service.runners.tables import carried
from service.runners.torchscript import load_torchscript

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
    manifest, layout, lane = bundle.manifest, Layout(bundle.manifest), Lane("cuda")
    network = FusedNetwork(bundle, "cuda", Path(sys.argv[1]))
    scripted = load_torchscript(bundle.path(TORCHSCRIPT), "cuda")
    terms = terms_of(HaltingRule(), 1, STEPS, manifest.criteria)
    table = Table("tokens", "rows", "captured", "fused", f"fused, {STEPS} a launch", "largest difference")
    for tokens in TOKENS:
        for rows in ROWS:
            tensors = [
                torch.zeros((rows, *layout.shape(spec, (tokens,))), dtype=_dtype(spec.dtype), device="cuda")
                for spec in carried(manifest)
            ]
            fill(tensors, tokens)
            start = np.zeros(rows, np.int64)
            told = orders_of(np.full(rows, terms), start, start, STEPS).view(np.int32).reshape(rows, -1)
            orders = torch.from_numpy(told).cuda()
            with lane.work():
                difference = max(
                    float((mine - theirs).abs().max())
                    for mine, theirs in zip(network.step(*tensors), scripted.step(*tensors), strict=True)
                )
                kept = torch.empty_like(orders)

                def burst(tensors: list[Tensor], orders: Tensor, kept: Tensor) -> None:
                    kept.copy_(orders)  # the kernel changes them
                    network.think(tensors, kept, STEPS)

                runs = {
                    lane.captured(partial(scripted.step, *tensors)): 1,
                    lane.captured(partial(network.step, *tensors)): 1,
                    lane.captured(partial(burst, tensors, orders, kept)): STEPS,
                }
                times = [[microseconds(run, steps) for run, steps in runs.items()] for _ in range(ROUNDS)]
            medians = [f"{statistics.median(column):.1f}" for column in zip(*times, strict=True)]
            table.add_row(str(tokens), str(rows), *medians, f"{difference:.1e}")
    console = Console()
    console.print(f"{torch.cuda.get_device_name()}: microseconds a step, IEEE float32")
    console.print(table)


def fill(tensors: list[Tensor], tokens: int) -> None:
    """A path through all tokens, asked about from end to end, in the order of a step's tensors."""
    attention, places, real, state, *_ = tensors
    path = torch.eye(tokens) + torch.diag(torch.ones(tokens - 1), -1)
    attention.copy_((1 - path).mul(-1e9).expand_as(attention))
    places[:, 0, 0] = places[:, 1, -1] = 1
    real.fill_(True)
    state.normal_()


def _dtype(name: str) -> torch.dtype:
    return torch.from_numpy(np.zeros(0, name)).dtype


if __name__ == "__main__":
    main()
