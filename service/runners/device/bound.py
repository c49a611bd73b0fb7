"""ONNX Runtime on a torch device: it computes on torch's stream, in the memory of torch's tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from model.bundle import EMBED_ONNX, LEAN_ONNX, STEP_ONNX, Bundle
from model.errors import BundleError
from model.manifest import TensorSpec
from model.sessions import OnnxGraph, Placed
from service.errors import StartupError
from service.runners.device.embedder import dtype_of
from service.runners.device.lane import Lane
from service.runners.device.program import Program

Specs = Sequence[TensorSpec]
Bound = tuple[Callable[[], None], tuple[Tensor, ...]]  # what runs, and where its outputs are then


class OnnxModule:
    """A bundle's ONNX graphs: to a runner what a TorchScript module is, tensors in and new tensors out."""

    def __init__(self, bundle: Bundle, lane: Lane) -> None:
        """Raises StartupError where a graph cannot be loaded, or the logits have an axis of their own."""
        manifest = bundle.manifest
        self._bundle, self._lane = bundle, lane
        carried = (*manifest.state, *manifest.memory)
        known = {axis for spec in (*manifest.context, *manifest.state) for axis in spec.shape}
        for axis in manifest.axes:
            if axis in manifest.logits.shape and axis not in known:
                raise StartupError(
                    f"{manifest.name}: its logits have the axis {axis}, but no context or state has, so that "
                    "backend onnx cannot keep its rows on a GPU: choose backend torchscript"
                )
        embed = self._verb(EMBED_ONNX, manifest.inputs, (*manifest.context, *carried))
        self.embed = embed.once
        shown = (*carried, manifest.logits, *_scores(len(manifest.scores)))
        self.step = self._verb(STEP_ONNX, (*manifest.context, *carried), shown).again
        if manifest.lean is not None and bundle.has(LEAN_ONNX):
            shown = (*manifest.state, manifest.logits, *_scores(len(manifest.lean)))
            self.lean = self._verb(LEAN_ONNX, (*manifest.context, *manifest.state), shown).again

    def _verb(self, file: str, inputs: Specs, outputs: Specs) -> Verb:
        manifest, lane = self._bundle.manifest, self._lane
        given, made = {
            EMBED_ONNX: (tuple(spec.name for spec in inputs), manifest.embed_outputs),
            STEP_ONNX: (manifest.step_inputs, manifest.step_outputs),
            LEAN_ONNX: (manifest.lean_inputs, manifest.lean_outputs),
        }[file]
        path, device, tf32 = self._bundle.path(file), lane.device.type, lane.precision == "tf32"
        try:
            graph = OnnxGraph(path, given, made, "cuda" if device == "cuda" else "cpu", tf32, lane.address)
        except BundleError as error:
            raise StartupError(error.message) from error
        return Verb(graph, inputs, outputs, lane.device)


class Verb:
    """One of the graphs; inputs and outputs say what their tensors are, but for the depth, the last input."""

    def __init__(self, graph: OnnxGraph, inputs: Specs, outputs: Specs, device: torch.device) -> None:
        self._graph, self._inputs, self._outputs, self._device = graph, inputs, outputs, device
        self._bound: dict[tuple[tuple[int, torch.Size], ...], Bound] = {}  # by where the inputs lie

    def once(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """What it gives, in new tensors."""
        run, made = self._bind(tensors)
        run()
        return made

    def again(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The same, for tensors that stay where they are: bound once, which takes as long as a small step.

        What it gives is overwritten the next time.
        """
        where = tuple((tensor.data_ptr(), tensor.shape) for tensor in tensors)
        if where not in self._bound:
            self._bound[where] = self._bind(tensors)
        run, made = self._bound[where]
        run()
        return made

    def _bind(self, tensors: Sequence[Tensor]) -> Bound:
        sizes: dict[int | str, int] = {}
        for spec, tensor in zip(self._inputs, tensors, strict=False):
            sizes |= dict(zip(spec.shape, tensor.shape, strict=True))
        made = tuple(
            torch.empty(
                [size if isinstance(size, int) else sizes[size] for size in spec.shape],
                dtype=dtype_of(spec),
                device=self._device,
            )
            for spec in self._outputs
        )
        inputs, outputs = ([*map(_placed, each)] for each in (tensors, made))
        return self._graph.in_place(inputs, outputs, self._device.index or 0), made


# Not captured as CUDA graphs: what reckons with shapes is computed on the CPU and copied to the device, and a
# replayed copy would read whatever lies in that memory of the host by then.
BOUND = Program("onnx", OnnxModule, captures=False)


def _scores(count: int) -> Specs:
    """What a step shows of so many scores: nothing where there are none."""
    return [TensorSpec(name="scores", dtype="float32", shape=("B", count))] if count else []


def _placed(tensor: Tensor) -> Placed:
    assert tensor.is_contiguous(), "ONNX Runtime is told of no strides"
    dtype = np.dtype(str(tensor.dtype).removeprefix("torch."))
    return Placed(tensor.data_ptr(), dtype, tuple(tensor.shape))
