"""What can be asked of one request, in the names and shapes that docs/http.md has, and whether it is that.

Only what is certainly wrong is refused here: an unknown name, a value of a type that no server takes. Limits,
and what is inside of an object, are the server's to judge, which says so in the same words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, Literal, Required, TypedDict

from client.errors import Invalid


class Halting(TypedDict, total=False):
    """When to stop before max_steps: a criterion with its threshold, or an accuracy to keep."""

    criterion: str
    threshold: float | None
    patience: int | None
    target_accuracy: float | None


class Latents(TypedDict, total=False):
    """Which part of the state to return, as NumPy arrays of `dtype`."""

    select: Literal["none", "readout", "pooled", "full"]
    dtype: Literal["float32", "float16"]


class Samples(TypedDict, total=False):
    """Noisy trajectories of each problem, and how the answer is chosen among them."""

    count: Required[int]
    noise: float
    seed: int
    choose: Literal["majority", "surest"]


class Intervention(TypedDict, total=False):
    """What is done to the state just before `step`, at some tokens or all of them."""

    step: Required[int]
    op: Required[Literal["zero", "mean", "noise", "scale", "set", "add"]]
    tokens: Sequence[int] | Literal["all"]
    value: float | Sequence[float] | None
    seed: int
    state: str | None


class Terms(TypedDict, total=False):
    """Everything that `infer` and `stream` take beside the model and the problem; None is the same as absent.

    halting may be a criterion's name, latents a selection's. keep is in seconds.
    """

    max_steps: int | None
    min_steps: int | None
    halting: Halting | str | None
    deadline_ms: float | None
    include: Sequence[str] | None
    latents: Latents | str | None
    aggregate: Literal["last", "mode", "mean"] | None
    samples: Samples | None
    interventions: Sequence[Intervention] | None
    paired: bool | None
    keep: float | None
    continue_from: str | None
    request_id: str | None


WHOLE, NUMBER, WORD = (Integral, "an integer"), (Real, "a number"), (str, "a string")
LIST = ((list, tuple), "a list")
TAKES: dict[str, tuple[Any, str]] = {  # what a value must be an instance of, and what to say where it is not
    "max_steps": WHOLE,
    "min_steps": WHOLE,
    "halting": ((str, Mapping), "a criterion's name, or an object"),
    "deadline_ms": NUMBER,
    "include": LIST,
    "latents": ((str, Mapping), "a selection's name, or an object"),
    "aggregate": WORD,
    "samples": (Mapping, "an object"),
    "interventions": LIST,
    "paired": (bool, "true or false"),
    "keep": NUMBER,
    "continue_from": WORD,
    "request_id": WORD,
}
SHORT = {"halting": "criterion", "latents": "select"}  # what a bare word stands for


def checked(terms: Mapping[str, Any]) -> dict[str, Any]:
    """The terms that are given, in their long form. TypeError: an unknown name. Invalid: a wrong value."""
    given: dict[str, Any] = {}
    for name, value in terms.items():
        if name not in TAKES:
            raise TypeError(f"{name!r} is no argument of a request; known here: {', '.join(TAKES)}")
        if value is None:
            continue
        kinds, said = TAKES[name]
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
            raise Invalid(f"{name} must be {said}", field=name)
        given[name] = {SHORT[name]: value} if name in SHORT and isinstance(value, str) else value
    return given
