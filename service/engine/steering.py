"""Steering: what is done to a row's state just before a step, the same whoever is beside it.

Step-wise interventions after arXiv 2602.08783, and noise of many trajectories after arXiv 2605.19943.
Whatever is drawn depends on the seed, the step and the sample, so nothing has to be remembered between
steps, and a row that has yielded its slot goes on as if it had not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from model.row import Layout
from service.runners.runner import Carry

Op = Literal["zero", "mean", "noise", "scale", "set", "add"]
Values = NDArray[Any]
NEVER = 2**62  # a step that does not come
USUAL_NOISE = 0.5  # of the paper: sigma = 0.5 mean ||h|| / sqrt(d)


@dataclass(frozen=True)
class StateChange:
    """One do-operation on one state, just before a step."""

    step: int  # 1 is the first
    op: Op
    state: int = 0  # place in the manifest
    tokens: tuple[int, ...] | None = None  # along the state's first axis; None: all
    value: float | Values | None = None  # a number, or a vector (D,)
    seed: int = 0

    def apply(self, state: Values) -> None:
        """Change a row's state (N, D) in place, without its padding.

        zero: h = 0; mean: h = the mean over all N tokens; noise: h + value sigma e, sigma = mean over
        tokens of ||h|| / sqrt(d), e ~ N(0, I); scale: value h; set: value; add: h + value.
        """
        where: Any = ... if self.tokens is None else list(self.tokens)
        chosen = state[where]
        match self.op:
            case "zero":
                changed: Any = 0
            case "mean":
                changed = state.mean(axis=0, dtype=np.float64)
            case "noise":
                wide = np.atleast_1d(state).astype(np.float64)
                sigma = np.linalg.norm(wide, axis=-1).mean() / np.sqrt(wide.shape[-1])
                amount = USUAL_NOISE if self.value is None else self.value
                draw = np.random.default_rng((self.seed, self.step, self.state))
                drawn = draw.standard_normal(chosen.shape)
                changed = chosen + amount * sigma * drawn
            case "scale":
                changed = chosen * self.value
            case "set":
                changed = self.value
            case "add":
                changed = chosen + self.value
        state[where] = changed


@dataclass(frozen=True)
class Noise:
    """Noise before every step, relative to the root mean square of the row's state."""

    amount: float
    seed: int
    sample: int  # which of the trajectories

    def apply(self, state: Values, step: int, place: int) -> None:
        """Change a row's state in place, without its padding; place is the state's in the manifest."""
        size = np.sqrt(np.square(state, dtype=np.float64).mean())
        drawn = np.random.default_rng((self.seed, self.sample, step, place)).standard_normal(state.shape)
        state[...] = state + self.amount * size * drawn


@dataclass(frozen=True)
class Steering:
    """All that is done to one row, step by step: interventions in their order, then noise."""

    interventions: tuple[StateChange, ...] = ()
    noise: Noise | None = None

    def next(self, step: int) -> int:
        """The first step from this one on before which something is done."""
        if self.noise is not None:
            return step
        return min((each.step for each in self.interventions if each.step >= step), default=NEVER)

    def applied(self, carry: Carry, step: int, layout: Layout) -> Carry:
        """An embedded carry as it is just before this step. Its padding stays as it was."""
        assert carry.arrays is not None, "a row has a state once it is embedded"
        arrays = list(carry.arrays)
        first = len(layout.manifest.context)
        for place, spec in enumerate(layout.manifest.state):
            mine = [each for each in self.interventions if each.step == step and each.state == place]
            noisy = self.noise is not None and np.issubdtype(spec.numpy_dtype, np.floating)
            if not mine and not noisy:
                continue
            whole = np.array(arrays[first + place])
            real = layout.cut(spec, whole, carry.row.lengths)
            with np.errstate(over="ignore", invalid="ignore"):  # the readout tells of what is no number
                for each in mine:
                    each.apply(real)
                if noisy and self.noise is not None:
                    self.noise.apply(real, step, place)
            arrays[first + place] = whole
        return replace(carry, arrays=arrays)


def states_of(carry: Carry, layout: Layout) -> dict[str, Values]:
    """The states of an embedded carry by name, without padding: views."""
    assert carry.arrays is not None, "a row has a state once it is embedded"
    first, lengths = len(layout.manifest.context), carry.row.lengths
    specs: Sequence[Any] = layout.manifest.state
    return {
        spec.name: layout.cut(spec, carry.arrays[place], lengths) for place, spec in enumerate(specs, first)
    }
