"""What comes back, typed. What a newer server adds is kept in `more`, never an error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, Self

import numpy as np

from client.errors import ApiError
from client.tensors import Array, unpacked

One = bool | int | float | str
Shares = Mapping[str, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class Known:
    """Base of everything that is read from JSON: fields by name, and `more` with all others."""

    more: Mapping[str, Any] = field(default_factory=dict)
    kinds: ClassVar[Mapping[str, type[Known]]] = {}  # fields that are read into a kind of their own
    names: ClassVar[Mapping[str, str]] = {}  # what JSON calls a field, where that is something else

    @classmethod
    def read(cls, content: Any) -> Self:
        """Raises ApiError where something is missing that every server sends."""
        if not isinstance(content, Mapping):
            raise ApiError(f"the answer has no {cls.__name__} where one should be; is it a Fathom server?")
        known, rest = {}, dict(content)
        for part in fields(cls):
            name = cls.names.get(part.name, part.name)
            if name in rest and part.name != "more":
                known[part.name] = _inner(cls.kinds.get(part.name), rest.pop(name))
            elif part.default is MISSING and part.default_factory is MISSING:
                raise ApiError(f"the answer has no {name}; is it a Fathom server?")
        return cls(**known, more=rest)

    def as_dict(self) -> dict[str, Any]:
        """As the server's JSON has it: without what is absent, and with arrays as nested lists."""
        shown = {
            self.names.get(part.name, part.name): _outer(getattr(self, part.name))
            for part in fields(self)
            if part.name != "more" and (part.default is MISSING or getattr(self, part.name) is not None)
        }
        return {**shown, **_outer(self.more)}


def _inner(kind: type[Known] | None, value: Any) -> Any:
    if kind is None or value is None:
        return value
    return [kind.read(item) for item in value] if isinstance(value, list) else kind.read(value)


def _outer(value: Any) -> Any:
    match value:
        case Known():
            return value.as_dict()
        case np.ndarray():
            return value.tolist()
        case list():
            return [_outer(item) for item in value]
        case Mapping():
            return {name: _outer(item) for name, item in value.items()}
    return value


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown(Known):
    """What steps and results show. Lists, one item per token, where the model answers per token."""

    answer: One | list[One] | None
    label: str | list[str] | None
    probabilities: Shares | list[Shares] | None = None
    scores: Mapping[str, float | None] | None = None
    output: Array | None = None
    latents: Array | Mapping[str, Array] | None = None  # by name where the model has several states


@dataclass(frozen=True, kw_only=True, eq=False)
class TraceStep(Shown):
    """One step of one problem."""

    step: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Step(TraceStep):
    """One step of a stream; index is the problem's place in the input."""

    index: int
    sample: int | None = None  # which trajectory of the problem, where it has several


@dataclass(frozen=True, kw_only=True, eq=False)
class Effect(Known):
    """What interventions did: KL(clean || changed) of the answers, and whether the answer is another."""

    kl: float | None
    answer_changed: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Votes(Known):
    """How the samples of a problem answered, and the share of those that agree with the answer."""

    votes: Mapping[str, int]
    agreement: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Result(Shown):
    """The end of one problem. halt_reason is halted, budget, deadline, cancelled or error."""

    steps: int
    max_steps: int
    halt_reason: str
    trace: list[TraceStep] | None = None
    answer_entropy: float | list[float] | None = None  # of the answers over steps, in nats
    samples: Votes | None = None
    effect: Effect | None = None
    warnings: list[str] | None = None
    error: str | None = None
    kinds = {"trace": TraceStep, "samples": Votes, "effect": Effect}  # noqa: RUF012


@dataclass(frozen=True, kw_only=True, eq=False)
class Usage(Known):
    """Steps taken over all problems."""

    steps: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Timings(Known):
    """Milliseconds on the server. queue and compute are those of the problem that had most."""

    queue: float
    compute: float
    total: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer(Known):
    """The answer to a request; results are in the input's order."""

    id: str
    model: str
    version: str
    results: list[Result]
    usage: Usage
    timings: Timings
    dropped_steps: int | None = None  # of a stream: steps that were not read in time and were left out
    kinds = {"results": Result, "usage": Usage, "timings": Timings}  # noqa: RUF012
    names = {"timings": "timings_ms"}  # noqa: RUF012


@dataclass(frozen=True, kw_only=True, eq=False)
class Model(Known):
    """A model that is served. `more` has the rest of its manifest, in a list of models only a part."""

    name: str
    version: str
    task: str
    steps: Mapping[str, Any]
    halting: Mapping[str, Any]
    criteria: list[str]
    versions: list[str] | None = None
    default: bool | None = None  # whether the name alone means this version
    status: str | None = None
    backend: str | None = None
    device: str | None = None
    description: str | None = None
    domain: Mapping[str, Any] | None = None
    example: Any = None
    schema: Mapping[str, Any] | None = None


def content_of(body: bytes) -> Any:
    """The JSON of an answer, with arrays in place of tensors. Raises ApiError where it is none."""
    try:
        return json.loads(body, object_hook=unpacked)
    except (ValueError, TypeError) as error:
        raise ApiError(f"the answer cannot be read ({error}); is it a Fathom server?") from None


def part_of(content: Any, name: str) -> Any:
    """What an answer has under a name. Raises ApiError where it has nothing."""
    try:
        return content[name]
    except (KeyError, TypeError):
        raise ApiError(f"the answer has no {name}; is it a Fathom server?") from None
