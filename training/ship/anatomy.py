"""What a module of somebody else's is made of, and what a manifest says of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from model.bounds import LONGEST_EXAMPLE
from model.codecs.tensors import packed
from model.errors import BundleError
from model.halting import MOST_STEPS
from training.ship.axes import Axes, axes_of, longest, run, shapes_of
from training.ship.wrapped import Anatomy, IterativeModule, Named, Shape, WrappedModule

MAX_STEPS = 64  # the default budget of a module that does not say
STEP_LIMIT = 4096  # what a request may ask for, if the module's own budget is not larger
THRESHOLD = 0.5  # of a score whose usual threshold nobody has said or measured
KINDS = ("classes", "tokens", "tensor")
NEEDED = ("example_inputs", "embed", "step", "readout", "readout_kind")


def anatomy_of(module: IterativeModule) -> tuple[Anatomy, Named]:
    """The module's tensors, and its example inputs. Raises BundleError where it breaks the contract."""
    missing = [name for name in NEEDED if not hasattr(module, name)]
    if missing:
        raise BundleError(f"the module has no {', '.join(missing)}; docs/own-model.md says what it must have")
    kind, mask = module.readout_kind, getattr(module, "mask", None)
    if kind not in KINDS:
        raise BundleError(f"readout_kind is {kind!r}, but must be one of {', '.join(KINDS)}")
    inputs = _example(module)
    if mask is not None and mask not in inputs:
        raise BundleError(f"mask names {mask!r}, but the inputs are {', '.join(inputs)}")
    own = tuple(_rules(module))
    axes = axes_of(module, inputs)
    shapes = shapes_of(module, inputs, axes)
    found = run(module, inputs)
    moving = tuple(name for name, tensor in found.state.items() if tensor.is_floating_point())
    anatomy = Anatomy(
        kind,
        {name: _shape_of_input(name, inputs[name], axes) for name in inputs},
        {name: shapes[f"context.{name}"] for name in found.context},
        {name: shapes[f"state.{name}"] for name in found.state},
        shapes["readout.logits"],
        axes,
        own,
        mask,
        moving,
    )
    _check_readout(module, anatomy)
    return anatomy, inputs


def description_of(
    module: IterativeModule, anatomy: Anatomy, inputs: Named, model: WrappedModule
) -> dict[str, Any]:
    """What the manifest says of a module, but for its name, where it came from and what was measured."""
    given: Mapping[str, int] = getattr(module, "longest", {})
    spoken = anatomy.inputs[anatomy.mask] if anatomy.mask else ()
    embedded = model.embed(*inputs.values())
    stable: Shape = anatomy.logits[:-1]
    memory_shapes = [*([anatomy.logits, stable] if anatomy.kind != "tensor" else [])]
    memory_shapes += [anatomy.state[name] for name in anatomy.moving]
    context = {anatomy.context_name(name): shape for name, shape in anatomy.context.items()}
    if anatomy.carried_mask is not None:
        context[anatomy.carried_mask] = spoken
    memory = dict(zip(anatomy.memory, memory_shapes, strict=True))
    carried = [*context.items(), *anatomy.state.items(), *memory.items()]
    specs = [_spec(name, tensor, shape) for (name, shape), tensor in zip(carried, embedded, strict=True)]
    logits = run(module, inputs).logits
    steps = getattr(module, "max_steps", MAX_STEPS)
    if type(steps) is not int or not 1 <= steps <= MOST_STEPS:
        raise BundleError(f"max_steps is {steps!r}, but must be a whole number from 1 to {MOST_STEPS}")
    places = anatomy.logits[1:-1]
    readout = {"axis": places[0] if len(places) == 1 else places} if anatomy.kind == "tokens" else {}
    return {
        "description": " ".join((type(module).__doc__ or "").split("\n\n")[0].split()),
        "codec": {"name": "tensors"},
        "readout": {"kind": anatomy.kind, **readout},
        "classes": [_class(label) for label in getattr(module, "labels", [])],
        "inputs": [_spec(name, inputs[name], shape) for name, shape in anatomy.inputs.items()],
        "context": specs[: len(context)],
        "state": specs[len(context) : len(context) + len(anatomy.state)],
        "memory": specs[len(context) + len(anatomy.state) :],
        "logits": _spec("logits", logits, anatomy.logits),
        "scores": [
            _own_score(module, name) if name in anatomy.own_scores else name for name in anatomy.scores
        ],
        "axes": {
            axis: {"max": given.get(axis) or longest(module, inputs, places), "padded": axis in spoken}
            for axis, places in anatomy.axes.items()
        },
        "mask": anatomy.mask,
        "steps": {"default": steps, "limit": max(steps, STEP_LIMIT)},
        "example": _problem(anatomy, inputs),
    }


def _own_score(module: IterativeModule, name: str) -> dict[str, Any]:
    defaults: Mapping[str, float] = getattr(module, "score_defaults", {})
    return {"name": name, "halts": _rules(module)[name], "default": defaults.get(name, THRESHOLD)}


def _example(module: IterativeModule) -> Named:
    inputs = module.example_inputs()
    if not isinstance(inputs, dict) or not inputs:
        raise BundleError("example_inputs gives no tensors by name")
    rows = {len(tensor) for tensor in inputs.values() if isinstance(tensor, Tensor) and tensor.dim()}
    if len(rows) != 1 or min(rows) < 2:
        raise BundleError("example_inputs gives no batch of at least 2 rows, the same number in every tensor")
    return {name: tensor.detach().cpu().contiguous() for name, tensor in inputs.items()}


def _rules(module: IterativeModule) -> Mapping[str, Any]:
    rules: Mapping[str, Any] = getattr(module, "score_rules", {})
    if bool(rules) != hasattr(module, "scores"):
        raise BundleError("a module with scores of its own has both, scores and score_rules")
    for name, halts in rules.items():
        if halts not in ("above", "below"):
            raise BundleError(f"score_rules[{name!r}] is {halts!r}, but a row halts above or below")
    return rules


def _check_readout(module: IterativeModule, anatomy: Anatomy) -> None:
    labels, shape = list(getattr(module, "labels", [])), anatomy.logits
    if anatomy.kind == "tensor":
        if labels:
            raise BundleError("readout_kind is tensor, which has no labels; leave them out")
        return
    answers = "[rows, labels]" if anatomy.kind == "classes" else "[rows, tokens, labels]"
    fits = len(shape) == 2 if anatomy.kind == "classes" else len(shape) > 2
    if not fits or shape[-1] != len(labels):
        raise BundleError(
            f"readout gives {list(shape)} and there are {len(labels)} labels; readout_kind {anatomy.kind} "
            f"must give {answers}"
        )


def _shape_of_input(name: str, tensor: Tensor, axes: Axes) -> Shape:
    named = {
        place: axis for axis, places in axes.items() for tensor_name, place in places if tensor_name == name
    }
    return ("B", *(named.get(place, tensor.shape[place]) for place in range(1, tensor.dim())))


def _spec(name: str, tensor: Tensor, shape: Shape) -> dict[str, Any]:
    return {"name": name, "dtype": str(tensor.dtype).removeprefix("torch."), "shape": shape}


def _class(label: str) -> dict[str, Any]:
    """A label that reads as a number or a truth value means that, any other itself."""
    try:
        answer = json.loads(label, parse_constant=str)
    except ValueError:
        answer = label
    return {"label": label, "answer": answer if isinstance(answer, bool | int | float) else label}


def _problem(anatomy: Anatomy, inputs: Named) -> dict[str, Any]:
    """The first row as a problem: numbers where they are few, bytes where they are many."""
    rows = {name: tensor[0].numpy() for name, tensor in inputs.items() if name != anatomy.mask}
    problem = {"tensors": {name: _plain(row) for name, row in rows.items()}}
    if len(json.dumps(problem)) > LONGEST_EXAMPLE:
        problem = {"tensors": {name: packed(row) for name, row in rows.items()}}
    return problem


def _plain(row: np.ndarray[Any, Any]) -> Any:
    """Nested lists, each number as short as its type allows."""
    if row.dtype.kind != "f":
        return row.tolist()
    return np.vectorize(lambda value: float(str(value)), otypes=[object])(row).tolist() if row.size else []
