"""A module that is not ours (docs/own-model.md) as a bundle has it: flat tensors, and scores of every step.

The built-in scores are those of model/network/scores.py. Where there is more than one answer the least
settled counts: the least sure token, the part of the state that moved most, whatever its rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from model.network.scores import latent_scores, readout_scores

Named = dict[str, Tensor]
Kind = Literal["classes", "tokens", "tensor"]
Shape = tuple[int | str, ...]  # sizes and names of axes, the batch first
OF_READOUT = ("confidence", "entropy", "entropy_diff", "kl", "argmax_stability")
OF_LATENT = ("latent_diff", "cosine", "acceleration")
LAST, STABLE, MOVED = "last_logits", "stable_for", "moved_"  # what scores remember


class IterativeModule(Protocol):
    """What a module of somebody else has; docs/own-model.md has the rest, which it may leave out."""

    readout_kind: Kind

    def example_inputs(self) -> Named:
        """A batch of at least 2, by input name."""
        ...

    def embed(self, **inputs: Tensor) -> tuple[Named, Named]:
        """-> context, state."""
        ...

    def step(self, context: Named, state: Named) -> Named:
        """-> the next state."""
        ...

    def readout(self, context: Named, state: Named) -> Tensor:
        """-> logits, or the output."""
        ...


@dataclass(frozen=True)
class Anatomy:
    """The tensors of a module: what they are called, and how they are shaped."""

    kind: Kind
    inputs: Mapping[str, Shape]
    context: Mapping[str, Shape]
    state: Mapping[str, Shape]
    logits: Shape
    axes: Mapping[str, Sequence[tuple[str, int]]] = field(default_factory=dict)  # where in the inputs each is
    own_scores: tuple[str, ...] = ()
    mask: str | None = None
    moving: tuple[str, ...] = ()  # the states of floating point, which latent scores look at

    @property
    def carried_mask(self) -> str | None:
        """What the mask is called on its way to the step."""
        return None if self.mask is None else f"{self.mask}_carried"

    def context_name(self, name: str) -> str:
        """A tensor of the context in the bundle, where inputs and context may not share a name."""
        return f"context_{name}" if name in {*self.inputs, *self.state} else name

    @property
    def scores(self) -> tuple[str, ...]:
        """The columns of the scores."""
        readout = () if self.kind == "tensor" else OF_READOUT
        return (*readout, *(OF_LATENT if self.moving else ()), *self.own_scores)

    @property
    def memory(self) -> tuple[str, ...]:
        """What the scores remember, by name."""
        readout = () if self.kind == "tensor" else (LAST, STABLE)
        return (*readout, *(f"{MOVED}{name}" for name in self.moving))


class WrappedModule(nn.Module):
    """embed(*inputs) -> *context, *state, *memory

    step(*context, *state, *memory, depth) -> *state', *memory', logits, scores (B, S) where there are any
    """

    def __init__(self, module: nn.Module, anatomy: Anatomy) -> None:
        super().__init__()
        self.module = module
        self.anatomy = anatomy
        self.scores = anatomy.scores

    def embed(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Tensors in the order of the names above."""
        known, parts = dict(zip(self.anatomy.inputs, inputs, strict=True)), self.anatomy
        own: Any = self.module
        context, state = own.embed(**known)
        kept = [context[name] for name in parts.context]
        if parts.mask is not None:
            kept.append(known[parts.mask])
        begun = [state[name] for name in parts.state]
        memory: list[Tensor] = []
        if parts.kind != "tensor":
            logits = own.readout(context, state)
            memory += [logits, torch.zeros_like(logits[..., 0], dtype=torch.float32)]
        memory += [torch.zeros_like(state[name]) for name in parts.moving]
        return _apart([*inputs], [*kept, *begun, *memory])

    def step(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """One step with its scores; the depth, which comes last, is not looked at."""
        parts, given = self.anatomy, iter(tensors)
        context = {name: next(given) for name in parts.context}
        mask = next(given) if parts.mask is not None else None
        before = {name: next(given) for name in parts.state}
        memory = {name: next(given) for name in parts.memory}
        own: Any = self.module
        after = own.step(context, before)
        logits = own.readout(context, after)
        remembered: list[Tensor] = []
        columns: list[Tensor] = []
        if parts.kind != "tensor":
            stable, scored = self._readout(logits, memory, mask)
            columns += scored
            remembered += [logits, stable]
        if parts.moving:
            columns += self._latent(after, before, memory, mask)
            remembered += [after[name] - before[name] for name in parts.moving]
        if parts.own_scores:
            said = own.scores(context, after, before)
            columns += [said[name].float() for name in parts.own_scores]
        scores = [torch.stack(columns, dim=-1)] if columns else []
        given_back = [*(after[name] for name in parts.state), *remembered, logits, *scores]
        return _apart(tensors, given_back)

    def _readout(self, logits: Tensor, memory: Named, mask: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """For how long each answer has stood, and the scores, each (B,)."""
        told = readout_scores(logits.float(), memory[LAST].float(), memory[STABLE])
        places = self.anatomy.logits[1:-1]
        if not places:
            return told[-1], list(told)
        real = self._real(mask, places, told[0])
        sure, *changes, stable = (score.flatten(1) for score in told)
        largest = [torch.where(real, score, 0.0).amax(dim=1) for score in changes]
        least = [torch.where(real, score, torch.inf).amin(dim=1) for score in (sure, stable)]
        return told[-1], [least[0], *largest, least[1]]

    def _latent(self, after: Named, before: Named, memory: Named, mask: Tensor | None) -> list[Tensor]:
        """Of the state that moved most, the place that moved most: each (B,)."""
        parts = []
        for name in self.anatomy.moving:
            shape = self.anatomy.state[name]
            features, places = _split(shape)
            ordered = [
                tensor.float().permute(0, *places, *features)
                for tensor in (after[name], before[name], memory[f"{MOVED}{name}"])
            ]
            like = ordered[0].flatten(1 + len(places))[..., 0] if features else ordered[0]
            real = self._real(mask, [shape[place] for place in places], like)
            now, then, moved = (_flat(tensor, len(places)) for tensor in ordered)
            parts.append(torch.stack(latent_scores(now, then, moved, real), dim=-1))
        return list(torch.stack(parts).amax(dim=0).unbind(dim=-1))

    def _real(self, mask: Tensor | None, places: Sequence[int | str], like: Tensor) -> Tensor:
        """Which places of `like` (B, *places) are no padding, (B, P); all where the mask does not say."""
        whole = torch.ones_like(like, dtype=torch.bool)
        spoken = self.anatomy.inputs[self.anatomy.mask][1:] if self.anatomy.mask else ()
        if mask is not None and spoken and set(spoken) <= set(places):
            real = mask if mask.dtype == torch.bool else mask > 0
            if len(spoken) == 1:  # pairs of tokens are real where both are
                for at in (at for at, place in enumerate(places, start=1) if place == spoken[0]):
                    shape = [1] * at + [-1] + [1] * (len(places) - at)
                    whole = whole & real.reshape(real.shape[0], *shape[1:])
            elif tuple(place for place in places if place in spoken) == spoken:
                for at in (at for at, place in enumerate(places, start=1) if place not in spoken):
                    real = real.unsqueeze(at)
                whole = whole & real
        return whole.flatten(1) if places else whole.unsqueeze(1)


def _split(shape: Shape) -> tuple[list[int], list[int]]:
    """The axes of a state that make up what one place holds, and those that count places.

    Places are along axes that vary in length. Where none does, the last axis is what a place holds, and
    of maps (B, C, H, W) the first.
    """
    axes = range(1, len(shape))
    places = [axis for axis in axes if isinstance(shape[axis], str)]
    if not places and len(shape) > 2:
        held = 1 if len(shape) == 4 else len(shape) - 1
        places = [axis for axis in axes if axis != held]
    return [axis for axis in axes if axis not in places], places


def _flat(tensor: Tensor, places: int) -> Tensor:
    """(B, so many places ..., features ...) -> (B, places, features)."""
    tensor = tensor.flatten(1 + places) if tensor.dim() > 1 + places else tensor.unsqueeze(-1)
    return tensor.flatten(1, places) if places else tensor.unsqueeze(1)


def _apart(given: Sequence[Tensor], found: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The tensors found; copies of those that were given or come twice, which exporters take for one."""
    seen = {id(tensor) for tensor in given}
    result = []
    for tensor in found:
        result.append(tensor.clone() if id(tensor) in seen else tensor)
        seen.add(id(tensor))
    return tuple(result)
