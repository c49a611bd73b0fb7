"""The backends that run a served model: torch, TorchScript and ONNX Runtime.

A backend is the two verbs of model/network/served.py on tensors. What is measured with one holds for the
others as far as the parity check goes (training/ship/parity.py), so calibration and evaluation take the
fastest there is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from model.bundle import EMBED_ONNX, STEP_ONNX, TORCHSCRIPT
from model.manifest import Manifest
from model.network.recurrent import RecurrentTransformer
from model.network.served import ServedModel
from model.sessions import OnnxGraph
from training.ship.exporters import Served, read_torchscript

Verb = Callable[[Sequence[Tensor]], Sequence[Tensor]]


@dataclass(frozen=True)
class Backend:
    """A served model, ready to run.

    embed: inputs -> context, state, memory
    step:  context, state, memory, depth -> next state, next memory, logits, scores
    """

    embed: Verb
    step: Verb
    scores: tuple[str, ...]  # the columns of the scores
    context: int  # how many of embed's results stay the same from step to step
    device: str = "cpu"
    tokens: int = 1024  # of the problems run together; on a CPU what stays in cache is fastest

    def walk(self, inputs: Sequence[Tensor], steps: int) -> Iterator[Sequence[Tensor]]:
        """What each of so many steps gives: next state, next memory, logits, scores."""
        embedded = self.embed(inputs)
        context, carried = embedded[: self.context], embedded[self.context :]
        for taken in range(steps):
            depth = torch.full((len(inputs[0]),), taken, dtype=torch.int64, device=self.device)
            said = self.step([*context, *carried, depth])
            carried = said[: len(carried)]
            yield said


def torch_backend(network: RecurrentTransformer, device: str = "cpu") -> Backend:
    """The network itself; on another device a copy of it."""
    model = ServedModel(network if device == "cpu" else copy.deepcopy(network).to(device)).eval()
    tokens = 1024 if device == "cpu" else 2**17
    return replace(served_backend(model, len(model.context)), device=device, tokens=tokens)


def served_backend(model: Served, context: int) -> Backend:
    """A served model in torch; how many of embed's results stay the same from step to step."""
    return Backend(unpacked(model.embed), unpacked(model.step), model.scores, context)


def torchscript_backend(manifest: Manifest, folder: Path) -> Backend:
    """The exported model.ts."""
    module = read_torchscript(folder / TORCHSCRIPT)
    return _exported(manifest, unpacked(module.embed), unpacked(module.step))


def onnx_backend(manifest: Manifest, folder: Path) -> Backend:
    """The exported embed.onnx and step.onnx in ONNX Runtime, on one thread."""
    inputs = [spec.name for spec in manifest.inputs]
    embed = OnnxGraph(folder / EMBED_ONNX, inputs, manifest.embed_outputs)
    step = OnnxGraph(folder / STEP_ONNX, manifest.step_inputs, manifest.step_outputs)
    return _exported(manifest, on_arrays(embed), on_arrays(step))


def _exported(manifest: Manifest, embed: Verb, step: Verb) -> Backend:
    """An exported step takes the depth only where the network looks at it."""
    whole = step if manifest.takes_depth else lambda tensors: step(tensors[:-1])
    return Backend(embed, whole, manifest.score_names, len(manifest.context))


def unpacked(verb: Callable[..., tuple[Tensor, ...]]) -> Verb:
    """A method of a module as a verb."""

    def run(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        with torch.inference_mode():
            return [tensor.detach() for tensor in verb(*tensors)]  # it may be a view of a parameter

    return run


def on_arrays(graph: OnnxGraph) -> Verb:
    """A graph as a verb."""

    def run(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        return [torch.from_numpy(array) for array in graph.run([tensor.numpy() for tensor in tensors])]

    return run
