"""The exports of a served model, one function each: ONNX and TorchScript.

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

from model.bundle import EMBED_ONNX, LEAN_ONNX, STEP_ONNX, TORCHSCRIPT
from model.manifest import Manifest
from model.network.served import ServedModel
from training.ship.wrapped import WrappedModule

Served = ServedModel | WrappedModule  # embed and step on flat tuples of tensors

# What torch 2.13 says whenever TorchScript is made or read (a DeprecationWarning or a FutureWarning, by
# version): the format stays because users ask for it. And what its ONNX exporter says of itself.
KNOWN_WARNINGS = (
    r"`torch\.jit\.(trace|trace_method|save|load)` is deprecated\.",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
)
EPOCH = (1980, 1, 1, 0, 0, 0)  # the time of every file in the archive: equal models, equal bytes


class _Verb(nn.Module):
    """One method of a served model as a module of its own, which is what exporters take."""

    def __init__(self, model: Served, verb: str, takes_depth: bool) -> None:
        super().__init__()
        self.model = model
        self._verb = verb
        self._takes_depth = takes_depth

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        if self._verb == "embed":
            return self.model.embed(*tensors)
        return _step(self.model, tensors, self._takes_depth, self._verb)


class _Scriptable(nn.Module):
    """A served model with the bundle's two signatures."""

    def __init__(self, model: Served, takes_depth: bool) -> None:
        super().__init__()
        self.model = model
        self._takes_depth = takes_depth

    def embed(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return self.model.embed(*tensors)

    def step(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return _step(self.model, tensors, self._takes_depth, "step")

    def lean(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return _step(self.model, tensors, self._takes_depth, "lean")


def write_onnx(
    model: Served, manifest: Manifest, inputs: tuple[Tensor, ...], folder: Path, optimize: bool = True
) -> None:
    """embed.onnx and step.onnx, by torch's exporter. inputs: an example with at least 2 rows.

    optimize: let onnxscript simplify the graphs, which takes a number of 1e-8 for none and leaves out what
    only adds it. ONNX Runtime simplifies them, too, when it loads them, and does not do that.
    """
    inputs_of = {"embed": tuple(spec.name for spec in manifest.inputs), "step": manifest.step_inputs}
    outputs_of = {"embed": manifest.embed_outputs, "step": manifest.step_outputs}
    for verb, file in (("embed", EMBED_ONNX), ("step", STEP_ONNX)):
        example = inputs if verb == "embed" else _step_example(model, manifest, inputs)
        names = inputs_of[verb], outputs_of[verb]
        _write_graph(
            _Verb(model, verb, manifest.takes_depth), manifest, example, names, folder / file, optimize
        )


def write_lean(model: ServedModel, manifest: Manifest, inputs: tuple[Tensor, ...], folder: Path) -> None:
    """lean.onnx, and model.ts anew with the method lean."""
    names = manifest.lean_inputs, manifest.lean_outputs
    example = _step_example(model, manifest, inputs, lean=True)
    _write_graph(_Verb(model, "lean", manifest.takes_depth), manifest, example, names, folder / LEAN_ONNX)
    write_torchscript(model, manifest, inputs, folder)


def _write_graph(
    verb: _Verb,
    manifest: Manifest,
    example: tuple[Tensor, ...],
    names: tuple[tuple[str, ...], tuple[str, ...]],
    place: Path,
    optimize: bool = True,
) -> None:
    """One ONNX graph; names are those of its inputs and of its outputs."""
    specs = {
        spec.name: spec for spec in (*manifest.inputs, *manifest.context, *manifest.state, *manifest.memory)
    }
    shapes = [specs[name].shape if name in specs else ("B",) for name in names[0]]
    dynamic = tuple(
        {axis: Dim.DYNAMIC for axis, size in enumerate(shape) if isinstance(size, str)} for shape in shapes
    )
    with _known_warnings_ignored():
        program = torch.onnx.export(
            verb.eval(),
            example,
            dynamo=True,
            optimize=optimize,
            dynamic_shapes=(dynamic,),
            input_names=list(names[0]),
            output_names=list(names[1]),
            verbose=False,
        )
    assert program is not None, "the exporter returns a program when dynamo is on"
    onnx.save(_anonymous(ir.to_proto(program.model)), place)


def write_torchscript(model: Served, manifest: Manifest, inputs: tuple[Tensor, ...], folder: Path) -> None:
    """model.ts with the methods embed and step, and lean where the manifest has one, by tracing."""
    methods = {"embed": inputs, "step": _step_example(model, manifest, inputs)}
    if manifest.lean is not None:
        methods["lean"] = _step_example(model, manifest, inputs, lean=True)
    with torch.no_grad(), _known_warnings_ignored():
        traced = torch.jit.trace_module(  # type: ignore[no-untyped-call]
            _Scriptable(model, manifest.takes_depth).eval(), methods
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


def _step(model: Served, tensors: tuple[Tensor, ...], takes_depth: bool, verb: str) -> tuple[Tensor, ...]:
    if not takes_depth:
        tensors = (*tensors, torch.zeros(1, dtype=torch.int64, device=tensors[0].device))
    if verb == "lean":
        assert isinstance(model, ServedModel), "only this project's own networks have a lean step"
        return model.lean(*tensors)
    return model.step(*tensors)


def _step_example(
    model: Served, manifest: Manifest, inputs: tuple[Tensor, ...], lean: bool = False
) -> tuple[Tensor, ...]:
    """Example inputs of a step, each a tensor of its own: exporters take one tensor given twice for one."""
    with torch.no_grad():
        carried = tuple(tensor.clone() for tensor in model.embed(*inputs))
    if lean:
        carried = carried[: len(carried) - len(manifest.memory)]
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
