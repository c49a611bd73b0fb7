"""Whether the exported forms compute what torch computes, step after step.

Each form runs on its own states, so that differences may grow as they would in service.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from model.bundle import EMBED_ONNX, STEP_ONNX, TORCHSCRIPT
from model.errors import BundleError
from model.manifest import Manifest
from model.served import ServedModel
from training.formats import read_torchscript
from training.task import Task

STEPS = 64
SHAPES = ((1, 1), (1, 7), (3, 16), (8, 33), (2, 70), (16, 20))  # (rows, length)
TOLERANCE = 1e-3  # of a state or logit; both are of the order of 1
SEED = 20_011

Arrays = list[NDArray[Any]]
Verb = Callable[[Arrays], Arrays]


@dataclass(frozen=True)
class Form:
    """One exported form: its two verbs on arrays."""

    embed: Verb
    step: Verb


def check_parity(model: ServedModel, manifest: Manifest, task: Task, folder: Path) -> dict[str, Any]:
    """The largest differences per form, for the manifest. Raises BundleError where they are too large."""
    reference = _torch_form(model)
    report: dict[str, Any] = {
        "steps": STEPS,
        "shapes": [list(shape) for shape in SHAPES],
        "tolerance": TOLERANCE,
    }
    for name, form in (("onnx", _onnx_form(manifest, folder)), ("torchscript", _torchscript_form(folder))):
        differences = _compare(reference, form, manifest, task)
        worst = max(differences["state"], differences["logits"])
        if not worst <= TOLERANCE or differences["answers"]:
            raise BundleError(
                f"the {name} export differs from torch: state {differences['state']:.1e}, logits "
                f"{differences['logits']:.1e}, {differences['answers']} answers; no bundle was written"
            )
        report[name] = differences
    return report


def _compare(reference: Form, form: Form, manifest: Manifest, task: Task) -> dict[str, Any]:
    rng = np.random.default_rng(SEED)
    contexts, states = len(manifest.context), len(manifest.state)
    carried = states + len(manifest.memory)
    worst = {"state": 0.0, "logits": 0.0, "scores": 0.0}
    answers = 0
    for rows, length in SHAPES:
        inputs = [tensor.numpy() for tensor in task.random_inputs(rng, rows, length)]
        ours, theirs = reference.embed(inputs), form.embed(inputs)
        fixed_ours, fixed_theirs = ours[:contexts], theirs[:contexts]
        ours, theirs = ours[contexts:], theirs[contexts:]
        for taken in range(STEPS):
            depth = [np.full(rows, taken, np.int64)]
            ours = reference.step([*fixed_ours, *ours[:carried], *depth])
            theirs = form.step([*fixed_theirs, *theirs[:carried], *(depth if manifest.takes_depth else [])])
            pairs = list(zip(ours, theirs, strict=True))
            for part, chosen in (("state", pairs[:states]), ("logits", pairs[-2:-1]), ("scores", pairs[-1:])):
                largest = max(float(np.abs(a - b).max()) for a, b in chosen)
                worst[part] = max(worst[part], largest) if largest == largest else float("inf")
            answers += int((ours[-2].argmax(-1) != theirs[-2].argmax(-1)).sum())
    return {**{part: float(f"{value:.3g}") for part, value in worst.items()}, "answers": answers}


def _torch_form(model: ServedModel) -> Form:
    return Form(_on_tensors(model.embed), _on_tensors(model.step))


def _torchscript_form(folder: Path) -> Form:
    module = read_torchscript(folder / TORCHSCRIPT)
    return Form(_on_tensors(module.embed), _on_tensors(module.step))


def _on_tensors(verb: Callable[..., tuple[torch.Tensor, ...]]) -> Verb:
    def run(arrays: Arrays) -> Arrays:
        with torch.inference_mode():
            return [tensor.numpy() for tensor in verb(*(torch.from_numpy(array) for array in arrays))]

    return run


def _onnx_form(manifest: Manifest, folder: Path) -> Form:
    return Form(
        _on_session(folder / EMBED_ONNX, [spec.name for spec in manifest.inputs], manifest.embed_outputs),
        _on_session(folder / STEP_ONNX, list(manifest.step_inputs), manifest.step_outputs),
    )


def _on_session(path: Path, inputs: list[str], outputs: tuple[str, ...]) -> Verb:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(arrays: Arrays) -> Arrays:
        return list(session.run(list(outputs), dict(zip(inputs, arrays, strict=True))))

    return run
