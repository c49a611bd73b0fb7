"""Whether the exported forms compute what torch computes, step after step.

Each form runs on its own states, so that differences may grow as they would in service.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from model.errors import BundleError
from model.manifest import Manifest
from model.network.served import ServedModel
from training.judge.backends import Form, onnx_form, torch_form, torchscript_form
from training.task import Task

STEPS = 64
SHAPES = ((1, 1), (1, 7), (3, 16), (8, 33), (2, 70), (16, 20))  # (rows, length)
# Both are of the order of 1. A token that hangs between two answers magnifies a rounding error for some
# steps, so the states of odd problems are allowed more than what is said of them.
TOLERANCE = {"state": 1e-2, "logits": 1e-3}
SEED = 20_011


def check_parity(model: ServedModel, manifest: Manifest, task: Task, folder: Path) -> dict[str, Any]:
    """The largest differences per form, for the manifest. Raises BundleError where they are too large."""
    reference = torch_form(model.network)
    report: dict[str, Any] = {
        "steps": STEPS,
        "shapes": [list(shape) for shape in SHAPES],
        "tolerance": TOLERANCE,
    }
    for name, form in (
        ("onnx", onnx_form(manifest, folder)),
        ("torchscript", torchscript_form(manifest, folder)),
    ):
        differences = _compare(reference, form, manifest, task)
        close = all(differences[part] <= largest for part, largest in TOLERANCE.items())
        if not close or differences["answers"]:
            raise BundleError(
                f"the {name} export differs from torch: state {differences['state']:.1e}, logits "
                f"{differences['logits']:.1e}, {differences['answers']} answers; no bundle was written"
            )
        report[name] = differences
    return report


def _compare(reference: Form, form: Form, manifest: Manifest, task: Task) -> dict[str, Any]:
    rng = np.random.default_rng(SEED)
    states = len(manifest.state)
    worst = {"state": 0.0, "logits": 0.0, "scores": 0.0}
    answers = 0
    for rows, length in SHAPES:
        inputs = task.random_inputs(rng, rows, length)
        for ours, theirs in zip(reference.walk(inputs, STEPS), form.walk(inputs, STEPS), strict=True):
            pairs = list(zip(ours, theirs, strict=True))
            for part, chosen in (("state", pairs[:states]), ("logits", pairs[-2:-1]), ("scores", pairs[-1:])):
                largest = max(float((a - b).abs().max()) for a, b in chosen)
                worst[part] = max(worst[part], largest) if largest == largest else float("inf")
            answers += int((ours[-2].argmax(-1) != theirs[-2].argmax(-1)).sum())
    return {**{part: float(f"{value:.3g}") for part, value in worst.items()}, "answers": answers}
