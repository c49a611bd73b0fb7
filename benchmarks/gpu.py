"""What a GPU does for a model: the whole plan in about ten minutes, one JSON file and one table.

    make bench-gpu                                        on the first GPU
    python benchmarks/gpu.py --device cpu --quick         a minute on a CPU, to see that it runs

Bit equality and exactness are counted, everything else is timed. Figures belong to the card that the report
names, at the clocks that it had.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import gpu_serving as serving
import gpu_steps as computing
import torch
from exactness import report as exactness
from gpu_steps import SHAPES, Extent, Facts
from rich.console import Console
from rich.table import Table

from model.bundle import Bundle, read_bundle
from model.codecs import CodecLimits, codec_of
from model.row import Layout
from service.runners.computing import Numerics
from service.runners.device.lane import Lane

SLOTS = 64
console = Console()


def plan(bundle: Bundle, device: str, quick: bool) -> Facts:
    """Every part, one after the other; a part that fails says why and does not stop the others."""
    extent = Extent(2, 1) if quick else Extent(200, 3)
    shapes = SHAPES[:1] if quick else SHAPES
    sizes = (1, 4) if quick else (1, 8, 64, 512)
    slots = 4 if quick else SLOTS
    precisions = ("ieee", "bf16") if quick or device == "cpu" else ("ieee", "tf32", "bf16")
    codec = codec_of(bundle.manifest, CodecLimits())
    row = Layout(bundle.manifest).row(codec.encode(codec.example, "example"))
    small = bundle if device == "cuda" else of_short_problems(bundle)
    facts: Facts = {"slots": slots, "bundle": f"{bundle.manifest.name}@{bundle.manifest.version}"}

    def part(name: str, measure: Any, *arguments: Any) -> None:
        began = time.perf_counter()
        try:
            with console.status(name):
                facts[name] = measure(*arguments)
        except Exception as error:  # noqa: BLE001  one card cannot do what another can
            facts[name] = {"failed": f"{type(error).__name__}: {error}".splitlines()[0]}
        facts.setdefault("seconds", {})[name] = round(time.perf_counter() - began, 1)

    part("card", computing.card, Lane(device), extent)
    for shape in shapes:
        for rows in sizes:
            for precision in precisions:
                inductor = device == "cuda" and rows == 1 and shape in SHAPES[:2] and precision == "ieee"
                name = f"steps: {shape.name}, B={rows}, {precision}"
                part(name, computing.steps, device, shape, rows, precision, inductor, extent)
    for shape in shapes[:1] if quick else (SHAPES[0], SHAPES[-1]):
        part(f"dense: {shape.name}", computing.dense_or_gathered, device, shape, sizes[-1], extent)
    part("start", serving.start, small, device, slots)
    part("engine", serving.engine, small, device, row, slots, extent)
    part("programs", serving.programs, of_short_problems(bundle), device, row, slots, extent)
    part("bits", serving.bits, small, device, row, slots)
    part("waits", serving.waits, Lane(device), extent)
    for numerics in (Numerics(), *(() if quick else (Numerics("bf16"), Numerics(deterministic=True)))):
        name = f"exactness: {'deterministic' if numerics.deterministic else numerics.precision}"
        part(name, exactness, bundle, 40 if quick else 2000, device, numerics)
    return facts


def of_short_problems(bundle: Bundle) -> Bundle:
    """Few sizes, for each is prepared: on a CPU that is to take a step, on a GPU to capture one."""
    axes = {name: axis.model_copy(update={"max": 64}) for name, axis in bundle.manifest.axes.items()}
    return Bundle(bundle.folder, bundle.manifest.model_copy(update={"axes": axes}))


def table(facts: Facts) -> Table:
    """The report for people."""
    where = facts["card"].get("device", facts["card"])
    shown = Table(title=f"{facts['bundle']} on {where}; a step in µs, medians", show_lines=False)
    shown.add_column("part")
    shown.add_column("measured")
    for name, found in facts.items():
        if isinstance(found, dict) and name != "seconds":
            shown.add_row(name, "\n".join(f"{key}: {value}" for key, value in found.items()))
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=Path("bundles/graph/1"), help="of the task graph")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--quick", action="store_true", help="hardly any steps: to see that it runs")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu.json"))
    asked = parser.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no GPU: check the driver, or try the plan with --device cpu --quick")
    torch.set_num_threads(1 if asked.device == "cpu" else torch.get_num_threads())
    began = time.perf_counter()
    facts = plan(read_bundle(asked.bundle), asked.device, asked.quick)
    facts["seconds"]["all"] = round(time.perf_counter() - began, 1)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    console.print(table(facts))
    console.print(f"{asked.out} has it all; it took {facts['seconds']['all']} s")


if __name__ == "__main__":
    main()
