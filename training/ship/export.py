"""From a run to a bundle: export, check parity, calibrate, and only then vouch for it all."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from pydantic import ValidationError
from rich.console import Console
from torch import Tensor

from model.bundle import (
    ASIDE,
    CONFIG,
    DRAFT,
    EMBED_ONNX,
    LEAN_ONNX,
    STEP_ONNX,
    TORCHSCRIPT,
    WEIGHTS,
    Bundle,
    read_bundle,
    write_manifest,
)
from model.calibration import Calibration, HaltingDefault
from model.errors import BundleError
from model.manifest import Axis, Domain, Manifest, StepLimits, TensorSpec
from model.network.recurrent import RecurrentTransformer
from model.network.served import LEAN_SCORES, ServedModel
from training import run
from training.checkpoint import unwritable
from training.config import as_dict
from training.drafts import swap
from training.judge.backends import onnx_backend
from training.judge.calibrate import CalibrationSize, calibrate, choose_default
from training.ship.exporters import write_lean, write_onnx, write_torchscript
from training.ship.parity import check_lean, check_parity
from training.task import Task

MAX_LENGTH = 1024  # tokens; attention is quadratic in them
DEFAULT_STEPS, STEP_LIMIT = 256, 4096  # the default covers any path in the 256 nodes a server takes
KEEPS_UP = 0.99  # accuracy at the hardest calibrated difficulty
EXAMPLE = (2, 7)  # rows and length that the exporters trace
EXAMPLE_SEED = 5


def export(
    folder: Path,
    out: Path,
    size: CalibrationSize,
    replace: bool,
    console: Console,
    aliases: tuple[str, ...] = (),
) -> Bundle:
    """Write the bundle of a run to <repository>/<model>/<version>.

    Raises RunError where the folder is no run, BundleError where serve would not find the result or it
    would be unsound; in all cases nothing appears at `out`.
    """
    name, version = place_of(out)
    if out.exists() and not replace:
        raise BundleError(f"{out} exists: choose another version, or replace it with --replace")
    network, saved = run.read_network(folder)
    config = run.read_config(folder)
    if config.baseline.compares:
        raise BundleError(
            f"{folder} holds a baseline, for comparison only: its steps are no steps to be served"
        )
    task, model = config.task, ServedModel(network).eval()
    description = {**_describe(model, task, name, version), "aliases": aliases}
    draft = out.with_name(f"{out.name}{DRAFT}")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        manifest = provisional(description)
        console.print("exporting to ONNX and TorchScript")
        example = tuple(task.random_inputs(_rng(EXAMPLE_SEED), *EXAMPLE))
        write_onnx(model, manifest, example, draft)
        write_torchscript(model, manifest, example, draft)
        weights = {key: value.contiguous() for key, value in network.state_dict().items()}
        (draft / WEIGHTS).write_bytes(safetensors.torch.save(weights))
        (draft / CONFIG).write_text(json.dumps(asdict(network.config), indent=2) + "\n", encoding="utf-8")
        console.print("comparing both with torch")
        parity = check_parity(model, manifest, task, draft)
        console.print("calibrating the halting thresholds")
        calibration = calibrate(onnx_backend(manifest, draft), task, size, console)
        default = choose_default(calibration)
        facts: dict[str, Any] = {
            **description,
            "halting": default,
            "calibration": calibration,
            "domain": domain_of(task, calibration),
            "parity": parity,
            "training": {
                **run.read_provenance(folder),
                "updates": saved.update,
                "seconds": round(float(saved.state["seconds"]), 1),
                "seed": config.seed,
                "data_seed": config.data_seed,
                "parameters": sum(parameter.numel() for parameter in network.parameters()),
                "config": as_dict(config),
            },
        }
        lean = add_lean(model.network, provisional(description), default, task, draft)
        files = [EMBED_ONNX, STEP_ONNX, TORCHSCRIPT, WEIGHTS, CONFIG, *([LEAN_ONNX] if lean else [])]
        write_manifest(draft, {**facts, "lean": lean}, files)
        swap(draft, out)
    except OSError as error:
        raise unwritable(out, error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return read_bundle(out)


def add_lean(
    network: RecurrentTransformer, manifest: Manifest, default: HaltingDefault, task: Task, folder: Path
) -> tuple[str, ...] | None:
    """Write the lean step of a model: what rows need that halt by its default rule, or not at all.

    Returns its scores; None, and nothing is written, where the rule looks back further than a step. Raises
    ExportFailed where a lean step differs from a whole one.
    """
    if default.criterion not in LEAN_SCORES:
        return None
    lean = (default.criterion,)
    manifest = manifest.model_copy(update={"lean": lean})
    example = tuple(task.random_inputs(_rng(EXAMPLE_SEED), *EXAMPLE))
    write_lean(ServedModel(network, default.criterion).eval(), manifest, example, folder)
    check_lean(manifest, task, folder)
    return lean


def place_of(out: Path) -> tuple[str, str]:
    """The model and the version that a folder is for. Raises BundleError where serve would not find it."""
    name, version = out.parts[-2:] if len(out.parts) > 2 else ("", "")
    if not name or ".." in (name, version) or out.suffix in (DRAFT, ASIDE):
        raise BundleError(
            f"serve would not find a bundle in {out}: give REPOSITORY/MODEL/VERSION, such as bundles/graph/2"
        )
    return name, version


def _describe(model: ServedModel, task: Task, name: str, version: str) -> dict[str, Any]:
    """The part of the manifest that the exporters need: names, types and shapes of every tensor.

    Which axes follow the length is seen by embedding problems of two lengths.
    """
    short, long = (tuple(task.random_inputs(_rng(EXAMPLE_SEED), 2, length)) for length in (5, 7))
    with torch.no_grad():
        pairs = [*zip(short, long, strict=True), *zip(model.embed(*short), model.embed(*long), strict=True)]
    names = (*model.inputs, *model.context, *model.state, *model.memory)
    specs = {name: _spec(name, *pair) for name, pair in zip(names, pairs, strict=True)}
    return {
        "name": name,
        "version": version,
        "task": task.name,
        "codec": task.codec,
        "classes": task.classes,
        "inputs": [specs[name] for name in model.inputs],
        "context": [specs[name] for name in model.context],
        "state": [specs[name] for name in model.state],
        "memory": [specs[name] for name in model.memory],
        "logits": TensorSpec(name="logits", dtype="float32", shape=("B", len(task.classes))),
        "scores": model.scores,
        "axes": {"N": Axis(max=MAX_LENGTH)},
        "takes_depth": model.network.config.depth_embedding > 0,
        "mask": "mask",
        "steps": StepLimits(default=DEFAULT_STEPS, limit=STEP_LIMIT),
    }


def _spec(name: str, short: Tensor, long: Tensor) -> TensorSpec:
    shape = ["B", *(a if a == b else "N" for a, b in zip(short.shape[1:], long.shape[1:], strict=True))]
    return TensorSpec.model_validate(
        {"name": name, "dtype": str(short.dtype).removeprefix("torch."), "shape": shape}
    )


def domain_of(task: Task, calibration: Calibration) -> Domain | None:
    """What the shipped recipe is right about, for a network that keeps up with it where it is calibrated."""
    best = max((point.hardest_accuracy for point in calibration.points), default=0.0)
    return task.domain if best >= KEEPS_UP else None


def provisional(description: dict[str, Any]) -> Manifest:
    """A manifest of a bundle without files. Raises BundleError where the name or version is not one."""
    try:
        return Manifest(
            **description, halting=HaltingDefault(criterion="none", threshold=0.0), files={}, format_version=1
        )
    except ValidationError as error:
        fault = error.errors()[0]
        raise BundleError(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error


def _rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)
