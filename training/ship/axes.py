"""Which axes of a module's tensors vary in length, found by running it at other sizes.

What is there is repeated to make a problem longer, so that indices stay in range, or cut where the module
takes no more than its example has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.errors import BundleError, first_line
from training.ship.wrapped import IterativeModule, Named, Shape

LONGEST = 1024  # an axis is tried up to this size
NAMES = ("N", "M", "K", "L", "P", "Q", "R", "S")
Places = Sequence[tuple[str, int]]  # inputs, and which of their axes
Axes = dict[str, Places]  # by name: where an axis stands


@dataclass(frozen=True)
class Tensors:
    """What a module was seen to use."""

    context: Named
    state: Named
    logits: Tensor

    def named(self) -> Named:
        """All of them; a context and a state may have the same name."""
        parts = (("context", self.context), ("state", self.state), ("readout", {"logits": self.logits}))
        return {f"{part}.{name}": tensor for part, tensors in parts for name, tensor in tensors.items()}


def run(module: IterativeModule, inputs: Named) -> Tensors:
    """Embed and take two steps. Raises BundleError where the module fails."""
    try:
        with torch.no_grad():
            context, state = module.embed(**inputs)
            for _ in range(2):
                before, state = state, module.step(context, state)
                _check_kept(before, state)
            logits = module.readout(context, state)
    except BundleError:
        raise
    except Exception as error:  # it is somebody else's code
        raise BundleError(f"the module fails on {_sizes(inputs)}: {first_line(error)}") from error
    return Tensors(dict(context), dict(state), logits)


def axes_of(module: IterativeModule, inputs: Named) -> Axes:
    """The axes that the module declares, or else those found by running it at other sizes."""
    declared: Mapping[str, Mapping[int, str]] | None = getattr(module, "axes", None)
    if declared is None:
        return _found(module, inputs)
    axes: dict[str, list[tuple[str, int]]] = {}
    known = {*inputs, *run(module, inputs).state, *run(module, inputs).context, "logits"}
    for tensor, named in declared.items():
        if tensor not in known:
            raise BundleError(f"axes names the tensor {tensor!r}, which the module does not have")
        for place, axis in named.items():
            if place == 0:
                continue  # the batch
            if tensor in inputs:
                axes.setdefault(axis, []).append((tensor, place))
    for axis, places in axes.items():
        if len({inputs[tensor].shape[place] for tensor, place in places}) > 1:
            raise BundleError(f"the axis {axis} has several lengths in example_inputs; it must have one")
    return dict(axes)


def shapes_of(module: IterativeModule, inputs: Named, axes: Axes) -> dict[str, Shape]:
    """The shape of every tensor, by `part.name`: which sizes follow which axis, the batch first."""
    usual = run(module, inputs).named()
    shapes: dict[str, list[int | str]] = {name: list(tensor.shape) for name, tensor in usual.items()}
    more = run(module, {name: torch.cat((tensor, tensor[:1])) for name, tensor in inputs.items()}).named()
    for name, tensor in more.items():
        expected = (len(usual[name]) + 1, *usual[name].shape[1:]) if usual[name].dim() else ()
        if tensor.shape != expected:
            raise BundleError(
                f"{name} has the shape {list(usual[name].shape)} for {_rows(inputs)} rows and "
                f"{list(tensor.shape)} for one more; the batch must be its first axis and no other"
            )
        shapes[name][0] = "B"
    for axis, places in axes.items():
        size = _size(inputs, places)
        other = _works(module, inputs, places)
        if other is None:
            raise BundleError(f"the module only runs with {size} along {axis}; leave that axis out of axes")
        tried = run(module, with_size(inputs, places, other)).named()
        for name, tensor in tried.items():
            for place in range(1, tensor.dim()):
                if tensor.shape[place] == usual[name].shape[place]:
                    continue
                if (tensor.shape[place], usual[name].shape[place]) != (other, size):
                    raise BundleError(
                        f"{name} has {tensor.shape[place]} along its axis {place} where {axis} is {other}: "
                        "every axis must be as long as one of an input. Keep H and W apart instead of H * W, "
                        "or export at one size with axes = {}"
                    )
                shapes[name][place] = axis
    return {name: tuple(shape) for name, shape in shapes.items()}


def longest(module: IterativeModule, inputs: Named, places: Places) -> int:
    """The largest size of an axis that the module takes, up to LONGEST; other axes as in the example."""
    row = {name: tensor[:1] for name, tensor in inputs.items()}
    works = size = _size(inputs, places)
    while works < LONGEST:
        size = min(LONGEST, 2 * works)
        if not _runs(module, with_size(row, places, size)):
            break
        works = size
    low, high = works, size
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (middle, high) if _runs(module, with_size(row, places, middle)) else (low, middle)
    return low


def with_size(inputs: Named, places: Places, size: int) -> Named:
    """The inputs with another size along an axis: what is there is repeated, or cut."""
    changed = dict(inputs)
    for name, place in places:
        tensor = changed[name]
        changed[name] = tensor.index_select(place, torch.arange(size) % tensor.shape[place])
    return changed


def _found(module: IterativeModule, inputs: Named) -> Axes:
    """Each axis of an input that can vary alone, and those of one size that can vary together."""
    everywhere = [(name, place) for name, tensor in inputs.items() for place in range(1, tensor.dim())]
    alone = [place for place in everywhere if _works(module, inputs, [place]) is not None]
    together: dict[int, list[tuple[str, int]]] = {}
    for name, place in everywhere:
        if (name, place) not in alone:
            together.setdefault(inputs[name].shape[place], []).append((name, place))
    groups: list[Places] = [[place] for place in alone]
    groups += [places for places in together.values() if _works(module, inputs, places) is not None]
    if len(groups) > len(NAMES):
        raise BundleError(f"{len(groups)} axes vary in length; name them in the module's axes")
    groups.sort(key=lambda places: everywhere.index(places[0]))
    return dict(zip(NAMES, groups, strict=False))


def _works(module: IterativeModule, inputs: Named, places: Places) -> int | None:
    """A size other than the example's that the module takes, if it takes two such sizes."""
    size = _size(inputs, places)
    for tried in ((size + 1, 2 * size + 1), (size - 1, (size + 1) // 2)):
        fits = size > 3 or min(tried) > size  # a size of 1 may run by broadcasting
        if fits and all(_runs(module, with_size(inputs, places, other)) for other in tried):
            return tried[0]
    return None


def _runs(module: IterativeModule, inputs: Named) -> bool:
    try:
        run(module, inputs)
    except BundleError:
        return False
    return True


def _check_kept(before: Named, after: Named) -> None:
    """Raises BundleError where a step changes what a state is."""
    if list(before) != list(after):
        raise BundleError(f"step gives the state {', '.join(after)}, but takes {', '.join(before)}, in order")
    for name, tensor in after.items():
        was = before[name]
        if (tensor.shape, tensor.dtype) != (was.shape, was.dtype):
            raise BundleError(
                f"step changes the state {name} from {was.dtype} {list(was.shape)} to {tensor.dtype} "
                f"{list(tensor.shape)}; every step must give what it takes"
            )


def _size(inputs: Named, places: Places) -> int:
    name, place = places[0]
    return inputs[name].shape[place]


def _rows(inputs: Named) -> int:
    return len(next(iter(inputs.values())))


def _sizes(inputs: Named) -> str:
    return ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in inputs.items())
