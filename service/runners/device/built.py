"""A bundle's network built from its configuration and weights, instead of loaded as TorchScript.

It is this project's own network code that runs, so only bundles of its networks have it; their model.ts,
where there is one, is what it is held against.
"""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from model.bundle import CONFIG, MANIFEST, TORCHSCRIPT, WEIGHTS, Bundle
from model.errors import first_line
from model.network.config import RecurrentConfig
from model.network.recurrent import RecurrentTransformer
from model.network.served import ServedModel
from service.errors import StartupError
from service.runners.device.lane import Lane
from service.runners.device.program import Module, Program, load_scripted


class BuiltNetwork:
    """The network with the signatures of the bundle's other forms."""

    def __init__(self, bundle: Bundle, lane: Lane, compiles: bool = False) -> None:
        """compiles: let TorchInductor write the steps' kernels, which needs Triton and a C compiler.

        Raises StartupError where the bundle has no such network, or its manifest describes another.
        """
        model = served(bundle).to(lane.device)
        self._takes_depth = bundle.manifest.takes_depth
        self._none = torch.zeros(1, dtype=torch.int64, device=lane.device)
        self._step, self._lean = model.step, model.lean
        if compiles:  # a few times: what is seen to change becomes a symbol, but for a single row
            self._step, self._lean = torch.compile(model.step), torch.compile(model.lean)
        self.embed = model.embed
        if bundle.manifest.lean is not None:
            self.lean = self._run_lean

    def step(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Context, state, memory (, depth) -> next state, next memory, logits, scores."""
        return self._step(*tensors, *(() if self._takes_depth else (self._none,)))

    def _run_lean(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return self._lean(*tensors, *(() if self._takes_depth else (self._none,)))


def served(bundle: Bundle) -> ServedModel:
    """The network on the CPU, ready to answer. Raises StartupError as BuiltNetwork does."""
    from safetensors.torch import load_file

    manifest = bundle.manifest
    remedy = "choose backend torchscript"
    if not (bundle.has(CONFIG) and bundle.has(WEIGHTS)):
        raise StartupError(f"{bundle.folder} has no {CONFIG} and {WEIGHTS} to build a network from: {remedy}")
    try:
        network = RecurrentTransformer(_config(json.loads(bundle.path(CONFIG).read_bytes())))
        network.load_state_dict(load_file(bundle.path(WEIGHTS)))
    except Exception as error:  # whatever a file makes of a network that is none of ours
        raise StartupError(
            f"{bundle.folder}: no network can be built ({first_line(error)}): {remedy}"
        ) from error
    model = ServedModel(network.eval(), manifest.lean[0] if manifest.lean else None)
    described = manifest.inputs, manifest.context, manifest.state, manifest.memory
    names = model.inputs, model.context, model.state, model.memory
    if manifest.score_names != model.scores or any(
        tuple(spec.name for spec in specs) != mine for specs, mine in zip(described, names, strict=True)
    ):
        raise StartupError(
            f"{bundle.folder}: {CONFIG} makes a network of other tensors or scores than {MANIFEST}: {remedy}"
        )
    return model


def _config(content: dict[str, Any]) -> RecurrentConfig:
    """Raises ValueError where there is a field that makes it another network, as a baseline's do."""
    known = {field.name for field in fields(RecurrentConfig)}
    if strange := [name for name, value in content.items() if name not in known and value]:
        raise ValueError(f"{', '.join(strange)} is of no network that can be served")
    return RecurrentConfig(**{name: value for name, value in content.items() if name in known})


def _exact(bundle: Bundle, lane: Lane) -> Module:
    return load_scripted(bundle, lane) if bundle.has(TORCHSCRIPT) else BuiltNetwork(bundle, lane)


BUILT = Program("torch", BuiltNetwork, exact=_exact)
COMPILED = Program("inductor", lambda bundle, lane: BuiltNetwork(bundle, lane, compiles=True), exact=_exact)
