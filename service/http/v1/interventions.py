"""Interventions as a caller writes them -> what the engine does to a state, or the field that is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from model.errors import RequestError
from model.halting import FAR
from model.manifest import Manifest
from model.row import Layout, Row
from service.engine.steering import StateChange
from service.http.v1 import schemas

NEEDS_A_VALUE = ("scale", "set", "add")
TAKES_NO_VALUE = ("zero", "mean")


def interventions_of(
    asked: Sequence[schemas.Intervention], manifest: Manifest, max_steps: int, taken: int
) -> tuple[StateChange, ...]:
    """What is to be done to each row that has taken so many steps. Raises RequestError."""
    return tuple(
        _intervention(each, f"interventions.{place}", manifest, max_steps, taken)
        for place, each in enumerate(asked)
    )


def check_tokens(interventions: Sequence[StateChange], row: Row, layout: Layout) -> None:
    """Raises RequestError where a row has not all of the tokens that are named."""
    for place, each in enumerate(interventions):
        if each.tokens is None:
            continue
        size = layout.shape(layout.manifest.state[each.state], row.lengths)[0]
        for at, token in enumerate(each.tokens):
            if token >= size:
                raise RequestError(
                    f"there is no token {token}: the state of this problem has {size}, counted from 0",
                    f"interventions.{place}.tokens.{at}",
                )


def _intervention(
    asked: schemas.Intervention, field: str, manifest: Manifest, max_steps: int, taken: int
) -> StateChange:
    if asked.step > max_steps:
        raise RequestError(
            f"step {asked.step} is beyond max_steps of {max_steps}; raise that, or intervene earlier",
            f"{field}.step",
        )
    if asked.step <= taken:
        raise RequestError(
            f"step {asked.step} has been taken: the thought goes on after step {taken}", f"{field}.step"
        )
    state = _state(asked.state, field, manifest)
    spec = manifest.state[state]
    if not np.issubdtype(spec.numpy_dtype, np.floating):
        raise RequestError(f"{spec.name} holds {spec.dtype}; only floats can be changed", f"{field}.state")
    tokens = _tokens(asked.tokens, f"{field}.tokens")
    if tokens is not None and len(spec.shape) < 3:
        raise RequestError(f"{spec.name} has no tokens; intervene on all", f"{field}.tokens")
    width = spec.shape[-1] if len(spec.shape) > 1 else 1
    value = _value(asked, f"{field}.value", width)
    return StateChange(asked.step, asked.op, state, tokens, value, asked.seed)


def _state(name: str | None, field: str, manifest: Manifest) -> int:
    names = [spec.name for spec in manifest.state]
    if name is None and len(names) > 1:
        raise RequestError(
            f"{manifest.name} has several states; name one of {', '.join(names)}", f"{field}.state"
        )
    if name is not None and name not in names:
        raise RequestError(f"there is no state {name!r}; there is {', '.join(names)}", f"{field}.state")
    return 0 if name is None else names.index(name)


def _tokens(asked: Any, field: str) -> tuple[int, ...] | None:
    if asked == "all":
        return None
    if not isinstance(asked, list) or not 1 <= len(asked) <= schemas.MOST_TOKENS:
        raise RequestError(f'tokens is "all", or a list of 1 to {schemas.MOST_TOKENS} places', field)
    for at, token in enumerate(asked):
        if not isinstance(token, int) or isinstance(token, bool) or token < 0:
            raise RequestError("a token is a place, counted from 0", f"{field}.{at}")
    if len(set(asked)) < len(asked):
        raise RequestError("a token is named twice", field)
    return tuple(asked)


def _value(asked: schemas.Intervention, field: str, width: int | str) -> Any:
    """A number, or a vector as wide as the state; None where there is none."""
    op, value = asked.op, asked.value
    if value is None:
        if op in NEEDS_A_VALUE:
            raise RequestError(f"{op} needs a value", field)
        return None
    if op in TAKES_NO_VALUE:
        raise RequestError(f"{op} takes no value", field)
    if not isinstance(value, list):
        _check_number(value, field)
        return float(value)
    if op == "noise":
        raise RequestError("the size of noise is one number", field)
    if isinstance(width, int) and len(value) != width:
        raise RequestError(f"value has {len(value)} numbers, and the state has {width} channels", field)
    if isinstance(width, str):
        raise RequestError("the state has no channels of its own; give one number", field)
    for at, number in enumerate(value):
        _check_number(number, f"{field}.{at}")
    return np.array(value, np.float64)


def _check_number(value: object, field: str) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= FAR:
        raise RequestError(f"must be a number from -{FAR:g} to {FAR:g}, or a list of them", field)
