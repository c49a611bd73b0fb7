"""How many rows a CPU batch should hold: microseconds per row and step, by batch size and length.

    python benchmarks/batch_size.py [BUNDLE]

Large batches amortise the cost of a call; past the cache they lose more than they gain. The line
marked * is what the runner chooses (service/runners/runner.py).
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from depth_batching import random_graph
from rich.console import Console
from rich.table import Table

from model.bundle import read_bundle
from model.codecs import CodecLimits, codec_of
from model.row import Layout
from service.runners.open import open_runner

SIZES, NODES, ROUNDS = (1, 2, 4, 8, 16, 32, 64), (16, 32, 64, 128), 7


def main() -> None:
    bundle = read_bundle(Path(sys.argv[1] if len(sys.argv) > 1 else "bundles/graph/1"))
    codec = codec_of(bundle.manifest, CodecLimits())
    layout = Layout(bundle.manifest)
    runner = open_runner(bundle, "cpu", "auto")
    draw = np.random.default_rng(0)
    table = Table(title=f"microseconds per row and step, {runner.backend}, one core")
    table.add_column("nodes", justify="right")
    for size in SIZES:
        table.add_column(f"{size} rows", justify="right")
    for nodes in NODES:
        rows = [codec.encode(random_graph(draw, nodes), "input") for _ in range(max(SIZES))]
        bucket = layout.bucket(layout.lengths(rows[0]))
        slots = list(range(max(SIZES)))
        runner.admit(slots, rows, bucket)
        best = dict.fromkeys(SIZES, np.inf)
        for _ in range(ROUNDS):
            for size in SIZES:
                steps = max(1, 64 // size)
                began = time.perf_counter()
                for _ in range(steps):
                    runner.step([slots[:size]])
                best[size] = min(best[size], (time.perf_counter() - began) / steps / size)
        for slot in slots:
            runner.release(slot)
        chosen = max(size for size in SIZES if size <= max(1, runner.rows_per_batch(bucket)))
        cells = [f"{best[size] * 1e6:.0f}{'*' if size == chosen else ''}" for size in SIZES]
        table.add_row(str(nodes), *cells)
    runner.close()
    Console().print(table)


if __name__ == "__main__":
    main()
