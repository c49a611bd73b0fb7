"""From a body to work: JSON -> InferRequest -> a submission, or an error that names the field."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, NoReturn

from pydantic import BaseModel, ValidationError

from model.bundle import Bundle
from model.codecs import Codec
from model.errors import RequestError
from model.halting import CRITERIA, HaltingRule
from model.manifest import CalibrationPoint, Manifest
from service.engine.work import Problem, Submission
from service.errors import InvalidJson
from service.http.schemas import Halting, InferRequest, Latents
from service.settings import Settings

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
}
PARTS: dict[str, type[BaseModel]] = {"": InferRequest, "halting": Halting, "latents": Latents}


def parse_request(body: bytes) -> InferRequest:
    """Raises InvalidJson where it is not JSON, RequestError where it is not a request."""
    if not body.strip():
        raise InvalidJson("the body is empty; send a JSON object with an input")
    try:
        content = json.loads(body, parse_constant=_refuse_constant)
    except RecursionError:
        raise InvalidJson("the body is nested too deeply") from None
    except ValueError as error:  # bad syntax, bad UTF-8, or an integer of thousands of digits
        raise InvalidJson(f"the body is not JSON: {error}") from None
    try:
        return InferRequest.model_validate(content)
    except ValidationError as error:
        raise _explained(error) from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _explained(error: ValidationError) -> RequestError:
    """The library's first complaint in the contract's words."""
    fault = error.errors(include_input=False, include_url=False)[0]
    path = [str(part) for part in fault["loc"]]
    field = ".".join(path) or None
    if fault["type"] == "extra_forbidden":
        known = ", ".join(PARTS[".".join(path[:-1])].model_fields)
        return RequestError(f"{field} is an unknown field; known here: {known}", field)
    expected = EXPECTED.get(fault["type"])
    reason = expected.format(**fault.get("ctx", {})) if expected else fault["msg"]
    return RequestError(f"{field or 'the body'} {reason}", field)


@dataclass(frozen=True)
class Job:
    """A request that has been understood: what to submit, and how to answer."""

    id: str
    submission: Submission
    bundle: Bundle
    include: frozenset[str]
    latents: Latents
    readout_tokens: tuple[list[int], ...]  # per problem; empty lists unless latents select them

    @property
    def max_steps(self) -> int:
        return self.submission.problems[0].max_steps  # the same for all problems of a request


def prepare(
    request: InferRequest,
    bundle: Bundle,
    codec: Codec,
    settings: Settings,
    arrived: float,
    id_: str,
    streams: bool,
) -> Job:
    """Everything that can be refused about a request, and the work it asks for. Raises RequestError.

    arrived is in seconds of time.monotonic(), from which the deadline counts.
    """
    manifest = bundle.manifest
    listed = isinstance(request.input, list)
    inputs = request.input if listed else [request.input]
    if not inputs:
        raise RequestError("the list is empty; give at least one problem", "input")
    if len(inputs) > settings.max_problems:
        raise RequestError(
            f"{len(inputs)} problems are too many; this server takes {settings.max_problems}", "input"
        )
    rule, floor, budget = _rule(request.halting, manifest)
    max_steps, min_steps = _steps(request, manifest, floor, budget)
    latents = request.latents or Latents()
    if latents.select != "none" and (len(manifest.state) != 1 or len(manifest.state[0].shape) != 3):
        raise RequestError(f"{manifest.name} has no single state (N, D); leave latents out", "latents.select")
    include = frozenset(["probabilities"] if request.include is None else request.include)

    fields = [f"input.{index}" if listed else "input" for index in range(len(inputs))]
    encoded = [codec.encode(problem, field) for problem, field in zip(inputs, fields, strict=True)]
    deadline = None if request.deadline_ms is None else arrived + request.deadline_ms / 1000
    problems = tuple(
        Problem(
            tensors=tensors,
            max_steps=max_steps,
            min_steps=min_steps,
            rule=rule,
            deadline=deadline,
            every_step=streams or "trace" in include,
            with_state=latents.select != "none",
        )
        for tensors in encoded
    )
    if latents.select != "none":
        _check_latents(problems, manifest, settings.max_latent_bytes)
    tokens = tuple(codec.readout_tokens(row) if latents.select == "readout" else [] for row in encoded)
    return Job(id_, Submission(problems, arrived), bundle, include, latents, tokens)


def _rule(halting: Halting | None, manifest: Manifest) -> tuple[HaltingRule, int, int]:
    """The halting rule, with the min_steps and max_steps that go with it where the caller gives none."""
    default, budget = manifest.halting, manifest.steps.default
    if halting is None:
        return default.rule(), default.min_steps, budget
    if halting.target_accuracy is not None:
        point = _calibrated(halting, manifest)
        measured = manifest.calibration.max_steps if manifest.calibration else budget
        return point.rule(), default.min_steps, min(measured, manifest.steps.limit)
    if halting.criterion is None:
        raise RequestError("give a criterion, or a target_accuracy instead", "halting.criterion")
    criterion = CRITERIA.get(halting.criterion)
    computed = ", ".join(("none", *manifest.scores))
    if criterion is None or criterion.name not in ("none", *manifest.scores):
        what = "is unknown" if criterion is None else f"is not computed by {manifest.name}"
        raise RequestError(
            f"criterion {halting.criterion!r} {what}; choose one of {computed}", "halting.criterion"
        )
    threshold = criterion.default if halting.threshold is None else halting.threshold
    try:  # the criterion is known and the patience positive: what is left to refuse is the threshold
        return HaltingRule(criterion.name, threshold, halting.patience or 1), 1, budget
    except ValueError as error:
        raise RequestError(str(error), "halting.threshold") from None


def _calibrated(halting: Halting, manifest: Manifest) -> CalibrationPoint:
    """The cheapest measured threshold whose guarantee is what the caller asks for."""
    field = "halting.target_accuracy"
    assert halting.target_accuracy is not None, "only called with a target"
    for name in ("criterion", "threshold", "patience"):
        if getattr(halting, name) is not None:
            raise RequestError(f"target_accuracy chooses the {name}; give one of the two", f"halting.{name}")
    calibration = manifest.calibration
    if calibration is None or not calibration.points:
        raise RequestError(f"{manifest.name} has no calibration; give a criterion and a threshold", field)
    point = calibration.cheapest(halting.target_accuracy)
    if point is None:
        best = max(point.guaranteed for point in calibration.points)
        raise RequestError(f"{manifest.name} guarantees {best:.4f} at best; ask for that or less", field)
    return point


def _steps(request: InferRequest, manifest: Manifest, floor: int, budget: int) -> tuple[int, int]:
    """max_steps and min_steps; a floor that is only a default gives way to the caller's budget."""
    limit = manifest.steps.limit
    max_steps = budget if request.max_steps is None else request.max_steps
    if max_steps > limit:
        raise RequestError(f"max_steps is over the {limit} steps that {manifest.name} allows", "max_steps")
    if request.min_steps is None:
        return max_steps, min(floor, max_steps)
    if request.min_steps > max_steps:
        where = "your max_steps" if request.max_steps is not None else "the default max_steps"
        raise RequestError(
            f"min_steps is over {where} of {max_steps}; lower one or raise the other", "min_steps"
        )
    return max_steps, request.min_steps


def _check_latents(problems: tuple[Problem, ...], manifest: Manifest, limit: int) -> None:
    """Refuse what would fill the memory: a slow reader makes the server hold every state it asked for."""
    spec = manifest.state[0]
    fixed = [size for size in spec.shape[1:] if isinstance(size, int)]
    width = math.prod(fixed, start=spec.numpy_dtype.itemsize)  # bytes per token
    total = 0
    for problem in problems:
        lengths = _lengths(problem.tensors, manifest)
        tokens = math.prod(lengths[axis] for axis in spec.shape[1:] if isinstance(axis, str))
        total += width * tokens * (problem.max_steps if problem.every_step else 1)
    if total > limit:
        raise RequestError(
            f"the states could fill {total} bytes and this server holds {limit} per request; lower max_steps,"
            " send fewer problems, or take only the last step's latents (no stream, no trace)",
            "latents.select",
        )


def _lengths(tensors: dict[str, Any], manifest: Manifest) -> dict[str, int]:
    return {
        axis: size
        for spec in manifest.inputs
        for axis, size in zip(spec.shape[1:], tensors[spec.name].shape, strict=True)
        if isinstance(axis, str)
    }
