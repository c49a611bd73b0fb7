"""Does the device runner say what the TorchScript runner on the CPU says? Counted over mixed problems.

    python benchmarks/exactness.py [--bundle bundles/graph/1] [--rows 3000] [--device cpu|cuda]
                                   [--precision ieee|tf32|bf16] [--deterministic]
                                   [--backend torchscript|onnx|torch]

Rows of all sizes with budgets, criteria and thresholds of their own come and go; some are streamed with
their states, some are cancelled in flight, and the device is kept a step ahead. Another order of sums moves
every score a little, so a row may halt one step earlier or later where its score lies that close to its
threshold. Such rows are counted; any other difference is an error, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from problems import problem

from model.bundle import Bundle, read_bundle
from model.codecs import CodecLimits, codec_of
from model.halting import HaltingRule, HaltReason
from model.readout import answer_of
from model.row import Layout
from service.engine.engine import Engine, EngineLimits
from service.engine.messages import Finished, Stepped, Submission, Trajectory
from service.engine.observer import Unobserved
from service.runners.computing import Numerics
from service.runners.device.bound import BOUND
from service.runners.device.built import BUILT
from service.runners.device.program import SCRIPTED, Program
from service.runners.device.runner import DeviceRunner
from service.runners.open import open_runner
from service.runners.runner import Runner, View

SLOTS, NODES, BUDGET = 64, 64, 24
PROGRAMS = {program.backend: program for program in (SCRIPTED, BOUND, BUILT)}
ROUNDING = {"ieee": 1e-3, "tf32": 3e-2, "bf16": 3e-1}  # of a threshold: how close counts as on it


@dataclass(frozen=True)
class Told:
    """What was heard of one problem: its steps, and its end unless it was cancelled."""

    steps: list[Stepped]
    end: Finished


def problems_of(bundle: Bundle, count: int, draw: np.random.Generator) -> list[Trajectory]:
    """Graphs of 2 to NODES nodes, every other one a chain that takes long."""
    codec, layout = codec_of(bundle.manifest, CodecLimits()), Layout(bundle.manifest)
    default, names = bundle.manifest.halting, [*bundle.manifest.criteria]
    problems = []
    for _ in range(count):
        nodes = int(draw.integers(2, NODES))
        graph = problem("graph", draw, nodes)
        if draw.random() < 0.5:
            graph["edges"] = [[node, node + 1] for node in range(nodes - 1)]
        rule = HaltingRule(default.criterion, default.threshold, int(draw.integers(1, 3)))
        if draw.random() < 0.5:
            name = str(draw.choice(names))
            criterion = bundle.manifest.criteria[name]
            rule = HaltingRule(name, criterion.default, int(draw.integers(1, 3)))
        problems.append(
            Trajectory(
                layout.row(codec.encode(graph, "input")),
                max_steps=int(draw.integers(1, BUDGET)),
                rule=rule,
                view=View("full") if draw.random() < 0.2 else None,
                every_step=bool(draw.random() < 0.3),
                scored=bool(draw.random() < 0.8),
            )
        )
    return problems


def told(bundle: Bundle, runner: Runner, problems: list[Trajectory], cancelled: set[int]) -> list[Told]:
    """Submit a few problems at a time, cancel some while they think, and hear them all."""
    engine = Engine(bundle.manifest, runner, EngineLimits(SLOTS), Unobserved())
    submissions = [Submission((problem,), time.monotonic()) for problem in problems]
    heard: dict[Submission, list[Stepped | Finished]] = {submission: [] for submission in submissions}
    coming = iter(submissions)
    leaving = {submissions[which] for which in cancelled}
    while True:
        for _, submission in zip(range(2 * SLOTS - len(engine.waiting)), coming, strict=False):
            engine.submit(submission)
        if engine.idle:
            break
        for submission, event in engine.step():
            heard[submission].append(event)
        for submission in [each for each in leaving if engine.slots.holding(each)]:
            engine.cancel(submission)
            leaving.discard(submission)
    runner.close()
    return [Told(events[:-1], events[-1]) for events in heard.values()]  # type: ignore[arg-type]


def verdicts(
    bundle: Bundle, problems: list[Trajectory], ours: list[Told], theirs: list[Told], rounding: float
) -> Iterator[tuple[str, float]]:
    """For every problem what became of it on both sides, and how far its logits are apart."""
    manifest = bundle.manifest
    for asked, one, two in zip(problems, ours, theirs, strict=True):
        if HaltReason.CANCELLED in (one.end.reason, two.end.reason):
            yield "cancelled", 0.0
            continue
        if one.end.logits is None or two.end.logits is None:
            yield f"failed: {one.end.error or two.end.error}", 0.0
            continue
        steps = zip(one.steps, two.steps, strict=False)
        far = max((float(np.abs(a.logits - b.logits).max()) for a, b in steps), default=0.0)
        if one.end.steps != two.end.steps:
            first = min(one.end, two.end, key=lambda end: end.steps)
            yield ("on the threshold" if near(bundle, asked, first, rounding) else "another depth"), far
            continue
        far = max(far, float(np.abs(one.end.logits - two.end.logits).max()))
        same = answer_of(manifest, one.end.logits).answer == answer_of(manifest, two.end.logits).answer
        yield ("equal" if same else "another answer"), far


def near(bundle: Bundle, asked: Trajectory, end: Finished, rounding: float) -> bool:
    """Whether the score that ended a problem lies as close to its threshold as rounding reaches."""
    names = bundle.manifest.score_names
    if asked.rule.criterion not in names or end.scores is None:
        return False
    score = float(end.scores[names.index(asked.rule.criterion)])
    return abs(score - asked.rule.threshold) <= rounding * max(abs(asked.rule.threshold), 1e-3)


def report(
    bundle: Bundle, rows: int, device: str, numerics: Numerics, program: Program = SCRIPTED
) -> dict[str, object]:
    """Run both sides and count."""
    draw = np.random.default_rng(0)
    problems = problems_of(bundle, rows, draw)
    cancelled = set(draw.choice(rows, rows // 20, replace=False).tolist())
    exact = told(bundle, open_runner(bundle, "cpu", "torchscript", SLOTS), problems, cancelled)
    runner = DeviceRunner(bundle, device, SLOTS, True, numerics, program=program)  # type: ignore[arg-type]
    name = runner.computing.device_name or "CPU"
    ours, rounding = told(bundle, runner, problems, cancelled), ROUNDING[numerics.precision]
    found = list(verdicts(bundle, problems, ours, exact, rounding))
    return {
        "bundle": f"{bundle.manifest.name}@{bundle.manifest.version}",
        "device": name,
        "backend": program.backend,
        "precision": numerics.precision,
        "deterministic": numerics.deterministic,
        "rows": rows,
        "row_steps": sum(each.end.steps for each in exact),
        "streamed_steps": sum(len(each.steps) for each in exact),
        "counted": dict(Counter(kind for kind, _ in found)),
        "largest_difference_of_logits": max(far for _, far in found),
        "on_the_threshold_means": f"within {rounding:g} of it, relative",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=Path("bundles/graph/1"))
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=list(ROUNDING), default="ieee")
    parser.add_argument("--deterministic", action="store_true")
    parser.add_argument("--backend", choices=list(PROGRAMS), default="torchscript")
    asked = parser.parse_args()
    numerics = Numerics(asked.precision, asked.deterministic)
    found = report(read_bundle(asked.bundle), asked.rows, asked.device, numerics, PROGRAMS[asked.backend])
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    counted = found["counted"]
    assert isinstance(counted, dict)
    sys.exit(0 if counted.keys() <= {"equal", "on the threshold", "cancelled"} else 1)


if __name__ == "__main__":
    main()
