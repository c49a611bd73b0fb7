"""A module of somebody else's as a bundle: `fathom export --module` (docs/own-model.md has the contract).

What it is, which axes vary and how long they may be is found out by running it. Nothing is written where
its rows influence each other, where it leaves something to chance, or where an export differs from torch.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.jit import TracerWarning  # type: ignore[attr-defined]

from model.bundle import (
    DRAFT,
    EMBED_ONNX,
    STEP_ONNX,
    TORCHSCRIPT,
    Bundle,
    read_bundle,
    sha256,
    write_manifest,
)
from model.check import CLOSE, faults, other_sizes, resized
from model.errors import BundleError, first_line
from model.manifest import Manifest
from model.row import Arrays, Layout, Row
from model.trial import Graphs
from training.checkpoint import unwritable
from training.drafts import swap
from training.errors import ExportFailed
from training.judge.backends import Backend, onnx_backend, served_backend, torchscript_backend
from training.judge.labelled import calibrate_labelled, read_labelled
from training.ship.anatomy import anatomy_of, description_of
from training.ship.export import place_of, provisional
from training.ship.exporters import write_onnx, write_torchscript
from training.ship.parity import check_steps, shapes_of
from training.ship.wrapped import IterativeModule, WrappedModule

PARITY_STEPS = 64
PARITY_ROWS = (1, 3, 8)
TRACED = "What Python works out from sizes is traced as it was: write x.shape[0] for len(x)"

Say = Callable[[str], None]


def read_module(where: str, checkpoint: Path | None = None) -> nn.Module:
    """What package.module:factory makes, with the checkpoint's weights. Raises BundleError.

    Checkpoints are safetensors, or torch's own as far as they hold tensors alone: nothing is unpickled.
    """
    package, _, name = where.partition(":")
    if not package or not name:
        raise BundleError(
            f"--module {where}: write package.module:factory, a function that returns the module"
        )
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        factory = getattr(importlib.import_module(package), name)
        module = factory()
    except Exception as error:  # it is somebody else's code
        raise BundleError(f"--module {where}: {type(error).__name__}: {first_line(error)}") from error
    if not isinstance(module, nn.Module):
        raise BundleError(f"--module {where}: gives a {type(module).__name__}, not a torch.nn.Module")
    if checkpoint is not None:
        try:
            if checkpoint.suffix == ".safetensors":
                weights = safetensors.torch.load(checkpoint.read_bytes())
            else:
                weights = torch.load(checkpoint, map_location="cpu", weights_only=True)
            module.load_state_dict(weights)
        except Exception as error:  # whatever readers of archives and tensors raise
            what = " ".join(str(error).split())[:300]
            raise BundleError(f"{checkpoint}: is no checkpoint of this module ({what})") from error
    return module


def export_module(
    module: nn.Module,
    out: Path,
    say: Say = print,
    *,
    problems: Path | None = None,
    replace: bool = False,
    aliases: tuple[str, ...] = (),
    facts: dict[str, Any] | None = None,
) -> Bundle:
    """Write a module's bundle to <repository>/<model>/<version>.

    problems: JSON lines, {"input": …, "label": …} each, to calibrate halting on. facts: what the manifest's
    `training` says beside torch's version and the number of parameters. Raises BundleError, and then nothing
    appears at `out`.
    """
    name, version = place_of(out)
    if out.exists() and not replace:
        raise BundleError(f"{out} exists: choose another version, or replace it with --replace")
    own = cast(IterativeModule, module)
    anatomy, inputs = anatomy_of(own)
    model = WrappedModule(module, anatomy)
    description = {
        **description_of(own, anatomy, inputs, model),
        "name": name,
        "version": version,
        "task": name,
        "aliases": aliases,
    }
    manifest = provisional(description)
    _tell(manifest, say)
    rows = _rows(manifest, inputs)
    torch_graphs = graphs_of(served_backend(model, len(manifest.context)))
    say("checking that rows do not influence each other")
    if found := faults(manifest, torch_graphs, rows[0]):
        training = "; it is in training mode: return it after .eval()" if module.training else ""
        raise BundleError(f"{found[0]}{training}; no bundle was written")
    labelled = None if problems is None else read_labelled(problems, manifest)
    draft = out.with_name(f"{out.name}{DRAFT}")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        files, parity = _forms(model, manifest, inputs, rows, draft, say)
        more: dict[str, Any] = {}
        if labelled is None:
            say("no labelled problems: halting is not calibrated, requests take the default number of steps")
        else:
            say(f"calibrating the halting thresholds on {len(labelled)} problems")
            more = calibrate_labelled(manifest, onnx_backend(manifest, draft), labelled)
        provenance = {
            **(facts or {}),
            "torch": torch.__version__,
            "parameters": sum(parameter.numel() for parameter in module.parameters()),
        }
        whole = {**description, **more, "parity": parity, "training": provenance}
        write_manifest(draft, whole, files)
        swap(draft, out)
    except OSError as error:
        raise unwritable(out, error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return read_bundle(out)


def facts_of(where: str, checkpoint: Path | None) -> dict[str, Any]:
    """Where a module came from, without a path of this machine."""
    if checkpoint is None:
        return {"module": where}
    return {"module": where, "checkpoint": checkpoint.name, "checkpoint_sha256": sha256(checkpoint)}


def graphs_of(backend: Backend) -> Graphs:
    """A backend on arrays, as the checks take it."""

    def embed(arrays: Arrays) -> Arrays:
        return [
            tensor.detach().numpy() for tensor in backend.embed([torch.from_numpy(array) for array in arrays])
        ]

    def step(arrays: Arrays) -> Arrays:
        depth = torch.zeros(len(arrays[0]), dtype=torch.int64)
        return [tensor.detach().numpy() for tensor in backend.step([*map(torch.from_numpy, arrays), depth])]

    return Graphs(embed, step)


def _forms(
    model: WrappedModule,
    manifest: Manifest,
    inputs: dict[str, Tensor],
    rows: list[Row],
    draft: Path,
    say: Say,
) -> tuple[list[str], dict[str, Any]]:
    """Write the graphs. Returns the files, and how far each is from torch.

    Raises BundleError where ONNX cannot be had; TorchScript, whose tracer follows less, may be left out.
    """
    reference = served_backend(model, len(manifest.context))
    batches = _batches(manifest, rows)
    example = tuple(inputs.values())
    steps = min(PARITY_STEPS, manifest.steps.default)
    shapes = [shapes_of(batch) for batch in batches]
    report: dict[str, Any] = {"steps": steps, "shapes": shapes, "tolerance": CLOSE}
    say(f"exporting to ONNX and TorchScript, and comparing both with torch over {steps} steps")
    try:
        write_onnx(model, manifest, example, draft, optimize=False)  # somebody may divide by x + 1e-9
    except Exception as error:  # whatever torch's exporter makes of somebody else's code
        raise ExportFailed(f"torch cannot export it to ONNX: {first_line(error)}; no bundle") from error
    try:
        backend = onnx_backend(manifest, draft)
        report["onnx"] = check_steps(reference, backend, manifest, batches, steps)
    except ExportFailed as error:
        raise ExportFailed(f"the ONNX export {error.message}; no bundle was written") from error
    try:
        with warnings.catch_warnings():  # the comparison tells what they only fear
            warnings.simplefilter("ignore", TracerWarning)
            write_torchscript(model, manifest, example, draft)
        backend = torchscript_backend(manifest, draft)
        report["torchscript"] = check_steps(reference, backend, manifest, batches, steps)
    except Exception as error:  # noqa: BLE001  or its tracer
        (draft / TORCHSCRIPT).unlink(missing_ok=True)
        say(f"without TorchScript: the traced module {first_line(error)}. {TRACED}")
    if (drift := max(report[name]["drift"] for name in ("onnx", "torchscript") if name in report)) > CLOSE:
        say(f"after {steps} steps they are {drift:.1e} apart: the module magnifies rounding errors")
    return [EMBED_ONNX, STEP_ONNX, *([TORCHSCRIPT] if "torchscript" in report else [])], report


def _rows(manifest: Manifest, inputs: dict[str, Tensor]) -> list[Row]:
    layout = Layout(manifest)
    arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
    count = len(next(iter(arrays.values())))
    return [layout.row({name: array[place] for name, array in arrays.items()}) for place in range(count)]


def _batches(manifest: Manifest, rows: list[Row]) -> list[list[Tensor]]:
    """The example's rows, so many of them together, and at other lengths."""
    layout = Layout(manifest)
    batches = [[rows[place % len(rows)] for place in range(count)] for count in PARITY_ROWS]
    for sizes in other_sizes(manifest, rows[0]):
        batches += [[resized(manifest, row, sizes) for row in rows[:2]]]
    return [[torch.from_numpy(array) for array in layout.stack(batch)] for batch in batches]


def _tell(manifest: Manifest, say: Say) -> None:
    axes = ", ".join(
        f"{axis} (up to {about.max}, {'padded' if about.padded else 'grouped by equal length'})"
        for axis, about in manifest.axes.items()
    )
    say(f"axes that vary: {axes or 'none'}; default budget: {manifest.steps.default} steps")
    say(f"scores: {', '.join(manifest.score_names) or 'none'}")
