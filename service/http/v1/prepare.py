"""From a body to work: JSON -> InferRequest -> a submission, or an error that names the field."""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from pydantic import BaseModel, ValidationError

from model.bundle import Bundle
from model.codecs import Codec
from model.errors import RequestError
from model.row import Layout, Row
from service.engine.messages import EVENT_BYTES, READOUT_BYTES, Problem, Submission, Thought
from service.engine.worker import Worker
from service.errors import InvalidJson
from service.http.v1.interventions import check_tokens, interventions_of
from service.http.v1.kept import Keeping, Kept, bytes_of
from service.http.v1.schemas import MOST_INTERVENTIONS, Halting, InferRequest, Intervention, Latents, Samples
from service.http.v1.steering import check_samples, check_steering, others_of, steering_of
from service.http.v1.trajectories import Trajectories
from service.runners.runner import View
from service.settings import Settings
from service.terms import Asked, AskedRule, beyond, terms_of

EXPECTED = {  # what to say instead of the library's words, by its error type
    "missing": "is missing; every request needs it",
    "int_type": "must be an integer",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be a string",
    "string_unicode": "must be a string of valid Unicode",
    "list_type": "must be a list",
    "model_type": "must be an object",
    "literal_error": "must be {expected}",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be above {gt}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "too_long": "must have at most {max_length} items",
    "too_short": "must have at least {min_length} items",
}
MOST_CONTAINERS = 2**18  # lists and objects in one body: more than a graph's edges, and read within 50 ms
PARTS: dict[str, type[BaseModel]] = {
    "": InferRequest,
    "halting": Halting,
    "latents": Latents,
    "samples": Samples,
}


def parse_request(body: bytes) -> InferRequest:
    """Raises InvalidJson where it is not JSON, RequestError where it is not a request."""
    if not body.strip():
        raise InvalidJson("the body is empty; send a JSON object with an input")
    content = read_json(body)
    _refuse_unknown(content)
    try:
        return InferRequest.model_validate(content)
    except ValidationError as error:
        raise _explained(error) from None


def read_json(body: bytes) -> Any:
    """What a body says; none that would take long to read. Raises InvalidJson."""
    if body.count(b"[") + body.count(b"{") > MOST_CONTAINERS:
        raise InvalidJson(
            f"the body opens more than {MOST_CONTAINERS:,} lists and objects; send fewer at once"
        )
    try:
        with _collector_at_rest():
            return json.loads(body, parse_constant=_refuse_constant)
    except RecursionError:
        raise InvalidJson("the body is nested too deeply") from None
    except ValueError as error:  # bad syntax, bad UTF-8, or an integer of thousands of digits
        raise InvalidJson(f"the body is not JSON: {error}") from None


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """No search for cycles, which JSON has not: beside 350,000 new lists it stops everything for 0.1 s."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _refuse_unknown(content: object) -> None:
    """Name the first unknown field, before the library words a complaint about each of a hundred thousand."""
    for path, part in PARTS.items():
        found = content.get(path) if path and isinstance(content, dict) else content
        if isinstance(found, dict) and len(found) > len(part.model_fields):
            name = next(name for name in found if name not in part.model_fields)
            raise _unknown(".".join(filter(None, (path, name))), part)
    listed = content.get("interventions") if isinstance(content, dict) else None
    for place, found in enumerate(listed[:MOST_INTERVENTIONS] if isinstance(listed, list) else ()):
        for name in found if isinstance(found, dict) and len(found) > len(Intervention.model_fields) else ():
            if name not in Intervention.model_fields:
                raise _unknown(f"interventions.{place}.{name}", Intervention)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _explained(error: ValidationError) -> RequestError:
    """The library's first complaint in the contract's words."""
    fault = error.errors(include_input=False, include_url=False)[0]
    path = [str(part) for part in fault["loc"]]
    field = ".".join(path) or None
    if fault["type"] == "extra_forbidden":
        part = Intervention if path[0] == "interventions" else PARTS[".".join(path[:-1])]
        return _unknown(str(field), part)
    expected = EXPECTED.get(fault["type"])
    reason = expected.format(**fault.get("ctx", {})) if expected else fault["msg"]
    return RequestError(f"{field or 'the body'} {reason}", field)


def _unknown(field: str, part: type[BaseModel]) -> RequestError:
    return RequestError(f"{field} is an unknown field; known here: {', '.join(part.model_fields)}", field)


@dataclass(frozen=True)
class Job:
    """A request that has been understood: what to submit, and how to answer."""

    id: str
    submission: Submission
    reserved: int  # bytes of what must be kept for the answer
    bundle: Bundle
    include: frozenset[str]
    latents: Latents
    warnings: tuple[tuple[str, ...], ...]  # for each input, what to tell with its answer
    trajectories: Trajectories
    aggregate: Literal["last", "mode", "mean"] = "last"
    samples: Samples | None = None
    keeping: Keeping | None = None

    @property
    def max_steps(self) -> int:
        return self.submission.problems[0].max_steps  # the same for all problems of a request

    @property
    def steered(self) -> str | None:
        """The field that changes states, if one does."""
        steering = self.submission.problems[0].steering
        return None if steering is None else "interventions" if steering.interventions else "samples.noise"


@dataclass(frozen=True)
class Origin:
    """What is known of a request beside its body."""

    id: str
    key: str  # on whose account it thinks
    arrived: float  # seconds of time.monotonic(), from which the deadline counts
    streams: bool
    max_problems: int  # that its caller may ask about


def prepare(
    request: InferRequest, worker: Worker, settings: Settings, origin: Origin, kept: Kept | None = None
) -> Job:
    """Everything that can be refused about a request, and the work it asks for. Raises RequestError.

    kept: what it goes on from, where it names that instead of an input.
    """
    manifest = worker.bundle.manifest
    listed = isinstance(request.input, list)
    inputs = request.input if listed else [request.input]
    thoughts: Sequence[Thought | None] = [None] * len(inputs)
    if kept is not None:
        thoughts = kept.thoughts
        inputs = [None] * len(thoughts)
    if kept is None and "input" not in request.model_fields_set:
        raise RequestError("input is missing; give a problem, or continue_from", "input")
    if not inputs:
        raise RequestError("the list is empty; give at least one problem", "input")
    if len(inputs) > origin.max_problems:
        raise RequestError(
            f"{len(inputs)} problems are too many; this server takes {origin.max_problems}", "input"
        )
    halting = None if request.halting is None else AskedRule(**dict(request.halting))
    asked = Asked(request.max_steps, request.min_steps, halting, request.deadline_ms)
    terms = terms_of(asked, manifest, origin.arrived, None if kept is None else kept.before)
    check_steering(request, manifest, settings, kept)
    interventions = interventions_of(
        request.interventions or (), manifest, terms.max_steps, 0 if kept is None else kept.before.taken
    )
    trajectories = Trajectories(len(inputs), request.samples.count if request.samples else 1 + request.paired)
    check_samples(trajectories, settings.max_problems)
    latents = request.latents or Latents()
    single = len(manifest.state) == 1 and len(manifest.state[0].shape) == 3
    if latents.select in ("readout", "pooled") and not single:
        raise RequestError(
            f"{manifest.name} has no single state (N, D) to take the {latents.select} of; select full",
            "latents.select",
        )
    include = frozenset(["probabilities"] if request.include is None else request.include)
    tallies = request.aggregate in ("mode", "mean") or "answer_entropy" in include
    problems: list[Problem] = []
    others: list[Problem] = []
    warnings = []
    for index, (problem, thought) in enumerate(zip(inputs, thoughts, strict=True)):
        field = f"input.{index}" if listed else "input"
        if thought is None:
            row = worker.layout.row(worker.codec.encode(problem, field), field)
        else:
            row = thought.carry.row
        check_tokens(interventions, row, worker.layout)
        problems.append(
            Problem(
                row=row,
                max_steps=terms.max_steps,
                min_steps=terms.min_steps,
                rule=terms.rule,
                deadline=terms.deadline,
                every_step=origin.streams or "trace" in include,
                view=_view(latents, worker.codec, row),
                steering=steering_of(interventions, request.samples),
                tallies=tallies,
                keeps=request.keep is not None,
                before=thought,
            )
        )
        others += others_of(problems[-1], interventions, request)
        measured = worker.codec.measure(row.tensors) if manifest.domain and manifest.domain.limits else {}
        warnings.append((*terms.warnings, *beyond(manifest, measured)))
    keeping = None
    if request.keep is not None or kept is not None:
        nbytes = bytes_of(problems, worker.layout) if request.keep is not None else 0
        name = origin.key, origin.id
        keeping = Keeping(name, worker.bundle, len(inputs), terms.floor, request.keep, nbytes, kept)
    problems += others
    reserved = _reserved(problems, worker.layout, settings.max_event_bytes, origin.streams)
    submission = Submission(tuple(problems), origin.arrived, origin.key, origin.id)
    return Job(
        origin.id,
        submission,
        reserved,
        worker.bundle,
        include,
        latents,
        tuple(warnings),
        trajectories,
        request.aggregate or "last",
        request.samples,
        keeping,
    )


def _view(latents: Latents, codec: Codec, row: Row) -> View | None:
    if latents.select == "none":
        return None
    tokens = codec.readout_tokens(row.tensors) if latents.select == "readout" else ()
    return View(latents.select, tuple(tokens))


def _reserved(problems: list[Problem], layout: Layout, limit: int, streams: bool) -> int:
    """The bytes that the answer needs to be kept. Raises RequestError where they are over the limit.

    A stream keeps little: it drops what is not read in time, but for the last step of each problem.
    """
    kept = 0
    for problem in problems:
        steps = max(1, problem.steps_left) if problem.every_step and not streams else 1
        readout = READOUT_BYTES * math.prod(layout.shape(layout.manifest.logits, problem.row.lengths))
        kept += readout if problem.tallies else 0
        kept += steps * (EVENT_BYTES + readout + _bytes_of(problem.view, problem.row, layout))
    if kept <= limit:
        return 0 if streams else kept
    raise RequestError(
        f"the steps and latents of the answer could take {kept} bytes, and this server keeps {limit} for a "
        "request; lower max_steps, send fewer problems, select fewer latents, or stream",
        "include" if problems[0].view is None else "latents.select",
    )


def _bytes_of(view: View | None, row: Row, layout: Layout) -> int:
    """What a view of a row's state takes."""
    if view is None:
        return 0
    whole = layout.bytes_of(layout.manifest.state, row.lengths)
    if view.select == "full":
        return whole
    tokens = layout.shape(layout.manifest.state[0], row.lengths)[0]
    return whole // tokens * max(1, len(view.tokens))
