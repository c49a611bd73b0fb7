"""How fast a bundle's bare runner steps on one core, by batch size and length, and against the core itself.

    python benchmarks/runner.py [--rounds 5] [--json]

Large batches amortise the cost of a call; past the cache they lose more than they gain. `chosen` is what the
runner makes of it. The core's own peak is a product of two float32 matrices of 512 x 512, its bandwidth a
copy of 64 MB; a step's floating-point operations are those of its matrix products, counted in the graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from measure import CLOCKS, Clock, Report, paired, parser, ratio, spread
from problems import BUNDLES, bundle_of, rows_of

from model.bundle import STEP_ONNX
from model.row import Layout, Row
from service.runners.open import open_runner
from service.runners.runner import Carry, Runner

SIZES, LENGTHS, STEPS = (1, 2, 4, 8, 16, 32), (16, 32, 64), 64
SIDE, COPIED = 512, 64_000_000


def stepping(runner: Runner, slots: list[int], steps: int, clock: Clock) -> float:
    """Row-steps per second of one batch."""
    began = clock()
    for _ in range(steps):
        runner.launch(slots, [])
        while not runner.land():
            pass
    return steps * len(slots) / (clock() - began)


def multiplying(clock: Clock) -> float:
    """Floating-point operations per second of this core in a matrix product."""
    left = right = np.ones((SIDE, SIDE), np.float32)
    began = clock()
    for _ in range(8):
        left @ right
    return 8 * 2 * SIDE**3 / (clock() - began)


def copying(clock: Clock) -> float:
    """Bytes per second that are read and written."""
    source, target = np.ones(COPIED, np.int8), np.empty(COPIED, np.int8)
    began = clock()
    target[:] = source
    return 2 * COPIED / (clock() - began)


def operations(graph: Path, inputs: list[tuple[int, ...]]) -> int:
    """Floating-point operations of a step's matrix products, for one row whose tensors have these shapes."""
    model = onnx.load(graph)
    for value, shape in zip(model.graph.input, inputs, strict=False):  # depth may follow, which has none
        for axis, size in zip(value.type.tensor_type.shape.dim, (1, *shape), strict=True):
            axis.dim_value = size
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    shapes = {
        value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.value_info, *model.graph.output)
    }
    shapes |= {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type in ("MatMul", "Gemm")]
    return sum(2 * math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1] for node in products)


def main() -> None:
    asked = parser(__doc__, rounds=5).parse_args()
    report, clock = Report(asked.json), CLOCKS[asked.clock]
    for task in BUNDLES:
        bundle = bundle_of(task)
        layout, runner = (
            Layout(bundle.manifest),
            open_runner(bundle, "cpu", "auto", max(SIZES), cpu_threads=1),
        )
        table = {}
        for length in LENGTHS:
            rows: list[Row] = rows_of(bundle, max(SIZES), length)
            bucket = max(row.bucket for row in rows)
            rows = [row for row in rows if row.bucket == bucket]
            slots = list(range(len(rows)))
            for slot, row in zip(slots, rows, strict=True):
                runner.put(slot, Carry(row))
            ways: dict[str, Callable[[], float]] = {
                str(size): partial(stepping, runner, slots[:size], max(1, STEPS // size), clock)
                for size in SIZES
                if size <= len(slots)
            }
            taken = paired(
                {**ways, "peak": lambda: multiplying(clock), "bandwidth": lambda: copying(clock)},
                asked.rounds,
            )
            carries = [runner.take(slot) for slot in slots]
            carried = carries[0].arrays
            assert carried is not None, "it has taken steps"
            flops = operations(bundle.folder / STEP_ONNX, [array.shape for array in carried])
            best = max(ways, key=lambda size: spread(taken[size]).middle)
            chosen = str(
                max(size for size in map(int, ways) if size <= max(1, runner.rows_per_batch(bucket)))
            )
            state = layout.bytes_of(layout.manifest.state, bucket)
            table[f"{bucket[0]} tokens"] = {
                **{f"µs at {size}": 1e6 / spread(taken[size]).middle for size in ways},
                "best": best,
                "chosen": chosen,
                "chosen / best": ratio(taken[chosen], taken[best]),
                "MFLOP a row-step": flops / 1e6,
                "of the matrix peak": ratio([flops * rate for rate in taken[best]], taken["peak"]),
                "of the bandwidth, states alone": ratio(
                    [2 * state * rate for rate in taken[best]], taken["bandwidth"]
                ),
            }
        runner.close()
        report.add(f"{task}: {runner.backend}, one core, a row-step", table)
    report.end()


if __name__ == "__main__":
    main()
