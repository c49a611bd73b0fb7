"""The exported forms of a served model, one function each: ONNX and TorchScript.

Both are traced on an example and hold for any number of rows and any length. Neither keeps a path of
the machine that made it: exporters record the Python stack of every node unless told otherwise.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import onnx
import torch
from onnxscript import ir
from torch import Tensor, nn
from torch.export import Dim

from model.bundle import EMBED_ONNX, STEP_ONNX, TORCHSCRIPT
from model.manifest import Manifest
from model.network.served import ServedModel

# What torch 2.13 says whenever TorchScript is made or read (a DeprecationWarning or a FutureWarning, by
# version): the format stays because users ask for it. And what its ONNX exporter says of itself.
KNOWN_WARNINGS = (
    r"`torch\.jit\.(trace|trace_method|save|load)` is deprecated\.",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
)
EPOCH = (1980, 1, 1, 0, 0, 0)  # the time of every file in the archive: equal models, equal bytes


class _Verb(nn.Module):
    """One method of a served model as a module of its own, which is what exporters take."""

    def __init__(self, model: ServedModel, verb: str, takes_depth: bool) -> None:
        super().__init__()
        self.model = model
        self._verb = verb
        self._takes_depth = takes_depth

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        if self._verb == "embed":
            return self.model.embed(*tensors)
        return _step(self.model, tensors, self._takes_depth)


class _Scriptable(nn.Module):
    """A served model with the bundle's two signatures."""

    def __init__(self, model: ServedModel, takes_depth: bool) -> None:
        super().__init__()
        self.model = model
        self._takes_depth = takes_depth

    def embed(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return self.model.embed(*tensors)

    def step(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return _step(self.model, tensors, self._takes_depth)


def write_onnx(model: ServedModel, manifest: Manifest, inputs: tuple[Tensor, ...], folder: Path) -> None:
    """embed.onnx and step.onnx, by torch's exporter. inputs: an example with at least 2 rows."""
    carried = _step_example(model, manifest, inputs)
    specs = {
        spec.name: spec for spec in (*manifest.inputs, *manifest.context, *manifest.state, *manifest.memory)
    }
    for verb, file, example, names, outputs in (
        ("embed", EMBED_ONNX, inputs, tuple(s.name for s in manifest.inputs), manifest.embed_outputs),
        ("step", STEP_ONNX, carried, manifest.step_inputs, manifest.step_outputs),
    ):
        shapes = [specs[name].shape if name in specs else ("B",) for name in names]
        dynamic = tuple(
            {axis: Dim.DYNAMIC for axis, size in enumerate(shape) if isinstance(size, str)}
            for shape in shapes
        )
        with _known_warnings_ignored():
            program = torch.onnx.export(
                _Verb(model, verb, manifest.takes_depth).eval(),
                example,
                dynamo=True,
                dynamic_shapes=(dynamic,),
                input_names=list(names),
                output_names=list(outputs),
                verbose=False,
            )
        assert program is not None, "the exporter returns a program when dynamo is on"
        onnx.save(_anonymous(ir.to_proto(program.model)), folder / file)


def write_torchscript(
    model: ServedModel, manifest: Manifest, inputs: tuple[Tensor, ...], folder: Path
) -> None:
    """model.ts with the methods embed and step, by tracing."""
    with torch.no_grad(), _known_warnings_ignored():
        traced = torch.jit.trace_module(  # type: ignore[no-untyped-call]
            _Scriptable(model, manifest.takes_depth).eval(),
            {"embed": inputs, "step": _step_example(model, manifest, inputs)},
        )
        archive = io.BytesIO()
        torch.jit.save(traced, archive)
    (folder / TORCHSCRIPT).write_bytes(_without_debug_files(archive.getvalue()))


def read_torchscript(path: Path) -> torch.jit.ScriptModule:
    """A saved module, for the parity check."""
    with _known_warnings_ignored():
        module: torch.jit.ScriptModule = torch.jit.load(str(path))  # type: ignore[no-untyped-call]
    return module


@contextlib.contextmanager
def _known_warnings_ignored() -> Iterator[None]:
    chatter = logging.getLogger("torch.onnx")  # tells that torchvision is not installed, operator by operator
    level = chatter.level
    chatter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for message in KNOWN_WARNINGS:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        chatter.setLevel(level)


def _step(model: ServedModel, tensors: tuple[Tensor, ...], takes_depth: bool) -> tuple[Tensor, ...]:
    if takes_depth:
        return model.step(*tensors)
    return model.step(*tensors, torch.zeros(1, dtype=torch.int64, device=tensors[0].device))


def _step_example(model: ServedModel, manifest: Manifest, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Example inputs of a step, each a tensor of its own: exporters take one tensor given twice for one."""
    with torch.no_grad():
        carried = tuple(tensor.clone() for tensor in model.embed(*inputs))
    return (*carried, torch.zeros(len(carried[0]), dtype=torch.int64)) if manifest.takes_depth else carried


def _anonymous(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without stack traces and other notes of its making."""
    model = copy.deepcopy(model)
    graphs = [model.graph, *model.functions]
    for noted in (model, *graphs):
        del noted.metadata_props[:]
        noted.doc_string = ""
    for graph in graphs:
        for noted in (*graph.node, *graph.value_info):
            del noted.metadata_props[:]
            noted.doc_string = ""
    for noted in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        del noted.metadata_props[:]
        noted.doc_string = ""
    return model


def _without_debug_files(archive: bytes) -> bytes:
    """A TorchScript archive without *.debug_pkl, which hold the paths of source files."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as before, zipfile.ZipFile(result, "w") as after:
        for name in before.namelist():
            if not name.endswith(".debug_pkl"):
                after.writestr(zipfile.ZipInfo(name, EPOCH), before.read(name))
    return result.getvalue()
