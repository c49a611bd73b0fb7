"""Whether the exported backends compute what torch computes, step after step.

Each backend runs on its own states, so that differences may grow as they would in service.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.bundle import LEAN_ONNX, TORCHSCRIPT
from model.check import CLOSE
from model.errors import first_line
from model.manifest import Manifest
from model.network.served import ServedModel
from model.sessions import OnnxGraph
from model.trial import apart, without_counts
from training.errors import ExportFailed
from training.judge.backends import (
    Backend,
    on_arrays,
    onnx_backend,
    torch_backend,
    torchscript_backend,
    unpacked,
)
from training.ship.exporters import read_torchscript
from training.task import Task

STEPS = 64
SHAPES = ((1, 1), (1, 7), (3, 16), (8, 33), (2, 70), (16, 20))  # (rows, length)
# Both are of the order of 1. A token that hangs between two answers magnifies a rounding error for some
# steps, so the states of odd problems are allowed more than what is said of them.
TOLERANCE = {"state": 1e-2, "logits": 1e-3}
SEED = 20_011
LEAN_STEPS, LEAN_CLOSE = 4, 1e-5


def check_parity(model: ServedModel, manifest: Manifest, task: Task, folder: Path) -> dict[str, Any]:
    """The largest differences per backend, for the manifest. Raises ExportFailed where they are too large."""
    reference = torch_backend(model.network)
    report: dict[str, Any] = {
        "steps": STEPS,
        "shapes": [list(shape) for shape in SHAPES],
        "tolerance": TOLERANCE,
    }
    for name, backend in (
        ("onnx", onnx_backend(manifest, folder)),
        ("torchscript", torchscript_backend(manifest, folder)),
    ):
        differences = _compare(reference, backend, manifest, task)
        close = all(differences[part] <= largest for part, largest in TOLERANCE.items())
        if not close or differences["answers"]:
            raise ExportFailed(
                f"the {name} export differs from torch: state {differences['state']:.1e}, logits "
                f"{differences['logits']:.1e}, {differences['answers']} answers; no bundle was written"
            )
        report[name] = differences
    return report


def check_lean(manifest: Manifest, task: Task, folder: Path) -> None:
    """Whether lean steps give what whole ones give. Raises ExportFailed where they do not."""
    rng = np.random.default_rng(SEED)
    module = read_torchscript(folder / TORCHSCRIPT)
    graphs = {
        "onnx": on_arrays(OnnxGraph(folder / LEAN_ONNX, manifest.lean_inputs, manifest.lean_outputs)),
        "torchscript": unpacked(module.lean),
    }
    backends = {"onnx": onnx_backend, "torchscript": torchscript_backend}
    columns = [manifest.score_names.index(name) for name in manifest.lean or ()]
    kept, memory = len(manifest.context), len(manifest.memory)
    for name, lean in graphs.items():
        whole = backends[name](manifest, folder)
        for rows, length in SHAPES:
            carried = list(whole.embed(task.random_inputs(rng, rows, length)))
            for taken in range(LEAN_STEPS):
                depth = torch.full((rows,), taken, dtype=torch.int64)
                said = list(whole.step([*carried, depth]))
                inputs = carried[: len(carried) - memory]
                *state, logits, scores = lean([*inputs, *([depth] if manifest.takes_depth else [])])
                pairs = [*zip(state, said, strict=False), (logits, said[-2]), (scores, said[-1][:, columns])]
                if not all(torch.allclose(one, other, atol=LEAN_CLOSE) for one, other in pairs):
                    raise ExportFailed(f"a lean step of the {name} export differs from a whole one")
                carried = [*carried[:kept], *said[:-2]]


def _compare(reference: Backend, backend: Backend, manifest: Manifest, task: Task) -> dict[str, Any]:
    rng = np.random.default_rng(SEED)
    states = len(manifest.state)
    worst = {"state": 0.0, "logits": 0.0, "scores": 0.0}
    answers = 0
    for rows, length in SHAPES:
        inputs = task.random_inputs(rng, rows, length)
        for ours, theirs in zip(reference.walk(inputs, STEPS), backend.walk(inputs, STEPS), strict=True):
            pairs = list(zip(ours, theirs, strict=True))
            for part, chosen in (("state", pairs[:states]), ("logits", pairs[-2:-1]), ("scores", pairs[-1:])):
                largest = max(float((a - b).abs().max()) for a, b in chosen)
                worst[part] = max(worst[part], largest) if largest == largest else float("inf")
            answers += int((ours[-2].argmax(-1) != theirs[-2].argmax(-1)).sum())
    return {**{part: float(f"{value:.3g}") for part, value in worst.items()}, "answers": answers}


def check_steps(
    reference: Backend,
    backend: Backend,
    manifest: Manifest,
    batches: Sequence[Sequence[Tensor]],
    steps: int,
) -> dict[str, float]:
    """The largest differences from torch over any batches, relative to 1 + the largest number of a tensor.

    Each step starts where torch stands, so that a model that magnifies rounding is not taken for a wrong
    export; `drift` is how far the backend comes from torch by itself. Raises ExportFailed where a step
    differs or does not run.
    """
    worst = dict.fromkeys(("state", "logits", "scores", "drift"), 0.0)
    for inputs in batches:
        shape = shapes_of(inputs)
        try:
            _follow(reference, backend, manifest, inputs, steps, worst)
        except Exception as error:  # a backend may raise anything
            raise ExportFailed(f"does not run on inputs of {shape} ({first_line(error)})") from error
        for part in ("state", "logits", "scores"):
            if worst[part] > CLOSE:
                raise ExportFailed(f"differs from torch on inputs of {shape}: {part} by {worst[part]:.1e}")
    return {part: float(f"{value:.3g}") for part, value in worst.items()}


def shapes_of(inputs: Sequence[Tensor]) -> str:
    """Of a batch, in words."""
    return ", ".join(str(list(tensor.shape)) for tensor in inputs)


def _follow(
    reference: Backend,
    backend: Backend,
    manifest: Manifest,
    inputs: Sequence[Tensor],
    steps: int,
    worst: dict[str, float],
) -> None:
    """Widen `worst` by what the backend does on these inputs."""
    ours, theirs = list(reference.embed(inputs)), list(backend.embed(inputs))
    _widen(worst, "state", ours, theirs)
    kept, states, carried = reference.context, len(manifest.state), len(ours) - reference.context
    for taken in range(steps):
        depth = torch.full((len(inputs[0]),), taken, dtype=torch.int64)
        said, alone = list(reference.step([*ours, depth])), list(backend.step([*theirs, depth]))
        followed = list(backend.step([*ours, depth]))
        _widen(worst, "state", said[:states], followed[:states])
        _widen(worst, "drift", said[:states], alone[:states])
        _widen(worst, "logits", said[carried : carried + 1], followed[carried : carried + 1])
        for one, other in zip(said[carried + 1 :], followed[carried + 1 :], strict=True):
            mine, its = (without_counts(manifest, scores.detach().numpy()) for scores in (one, other))
            worst["scores"] = max(worst["scores"], apart(mine, its))
        ours, theirs = [*ours[:kept], *said[:carried]], [*theirs[:kept], *alone[:carried]]


def _widen(worst: dict[str, float], part: str, ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        worst[part] = max(worst[part], apart(one.detach().numpy(), other.detach().numpy()))
