"""From a body to work: JSON -> InferRequest -> a submission, or an error that names the field."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from model.bundle import Bundle
from model.codecs import Codec
from model.errors import RequestError
from model.manifest import Manifest
from model.row import Bucket, Layout, Row
from service.engine.messages import EVENT_BYTES, READOUT_BYTES, Submission, Thought, Trajectory
from service.engine.served_model import ServedModel
from service.errors import InvalidJson
from service.http.envelope import Envelope
from service.http.json_body import read_json, validated
from service.http.v1.combinations import check_combinations
from service.http.v1.interventions import check_tokens, interventions_of
from service.http.v1.kept import Continuation, KeptRequest, bytes_of
from service.http.v1.schemas import InferRequest, Latents, Samples
from service.http.v1.trajectories import FanOut, check_samples, others_of, steering_of
from service.runners.runner import View
from service.settings import Settings
from service.terms import RequestedRule, RequestedTerms, beyond, terms_of

NO_LATENTS = Latents()


def parse_request(body: bytes) -> InferRequest:
    """Raises InvalidJson where it is not JSON, RequestError where it is not a request."""
    if not body.strip():
        raise InvalidJson("the body is empty; send a JSON object with an input")
    try:
        return validated(read_json(body), InferRequest)
    except RequestError as error:
        raise RequestError(" ".join(filter(None, (error.field, error.message))), error.field) from None


@dataclass(frozen=True)
class Prepared:
    """A request that has been understood: what to submit, and how to answer."""

    id: str
    submission: Submission
    reserved: int  # bytes of what must be kept for the answer
    bundle: Bundle
    include: frozenset[str]
    latents: Latents
    warnings: tuple[tuple[str, ...], ...]  # for each input, what to tell with its answer
    fan_out: FanOut
    aggregate: Literal["last", "mode", "mean"] = "last"
    samples: Samples | None = None
    continuation: Continuation | None = None
    encoded: str | None = None  # the field of the first row, where callers give rows as the model reads them

    @property
    def max_steps(self) -> int:
        return self.submission.trajectories[0].max_steps  # the same for all problems of a request

    @property
    def steered(self) -> str | None:
        """The field that changes states, or goes on from one that was changed, if one does."""
        first = self.submission.trajectories[0]
        if first.steering is not None:
            return "interventions" if first.steering.interventions else "samples.noise"
        return "continue_from" if first.before is not None and first.before.steered else None


def prepare(
    request: InferRequest,
    served: ServedModel,
    settings: Settings,
    envelope: Envelope,
    kept: KeptRequest | None = None,
) -> Prepared:
    """Everything that can be refused about a request, and the work it asks for. Raises RequestError.

    kept: what it goes on from, where it names that instead of an input.
    """
    manifest = served.bundle.manifest
    inputs = _inputs(request, envelope, kept)
    halting = None
    if (rule := request.halting) is not None:
        halting = RequestedRule(rule.criterion, rule.threshold, rule.patience, rule.target_accuracy)
    asked = RequestedTerms(request.max_steps, request.min_steps, halting, request.deadline_ms)
    terms = terms_of(asked, manifest, envelope.arrived, None if kept is None else kept.before)
    check_combinations(request, manifest, settings, kept)
    interventions = interventions_of(
        request.interventions or (), manifest, terms.max_steps, 0 if kept is None else kept.before.taken
    )
    fan_out = FanOut(len(inputs), request.samples.count if request.samples else 1 + request.paired)
    check_samples(fan_out, settings.max_problems)
    latents = _latents(request, manifest)
    include = frozenset(["probabilities"] if request.include is None else request.include)
    tallies = request.aggregate in ("mode", "mean") or "answer_entropy" in include
    trajectories: list[Trajectory] = []
    others: list[Trajectory] = []
    warnings = []
    for field, problem, thought in inputs:
        if thought is None:
            row = served.layout.row(served.codec.encode(problem, field), field)
        else:
            row = thought.carry.row
        check_tokens(interventions, row, served.layout)
        trajectories.append(
            Trajectory(
                row=row,
                max_steps=terms.max_steps,
                min_steps=terms.min_steps,
                rule=terms.rule,
                deadline=terms.deadline,
                every_step=envelope.streams or "trace" in include,
                view=_view(latents, served.codec, row),
                steering=steering_of(interventions, request.samples),
                tallies=tallies,
                keeps=request.keep is not None,
                before=thought,
                scored=envelope.streams or bool(include & {"trace", "scores"}),
            )
        )
        others += others_of(trajectories[-1], interventions, request)
        measured = served.codec.measure(row.tensors) if manifest.domain and manifest.domain.limits else {}
        warnings.append((*terms.warnings, *beyond(manifest, measured)))
    continuation = None
    if request.keep is not None or kept is not None:
        nbytes = bytes_of(trajectories, served.layout) if request.keep is not None else 0
        name = envelope.key, envelope.id
        continuation = Continuation(name, served.bundle, len(inputs), terms.floor, request.keep, nbytes, kept)
    trajectories += others
    reserved = _reserved(trajectories, served.layout, settings.max_event_bytes, envelope.streams)
    submission = Submission(tuple(trajectories), envelope.arrived, envelope.key, envelope.id)
    return Prepared(
        envelope.id,
        submission,
        reserved,
        served.bundle,
        include,
        latents,
        tuple(warnings),
        fan_out,
        request.aggregate or "last",
        request.samples,
        continuation,
        inputs[0][0] if manifest.codec.name == "tensors" else None,
    )


def _inputs(
    request: InferRequest, envelope: Envelope, kept: KeptRequest | None
) -> list[tuple[str, Any, Thought | None]]:
    """The field of each problem, what stands there, and where it goes on from. Raises RequestError."""
    if kept is not None:
        return [("input", None, thought) for thought in kept.thoughts]
    if "input" not in request.model_fields_set:
        raise RequestError("input is missing; give a problem, or continue_from", "input")
    if not isinstance(request.input, list):
        return [("input", request.input, None)]
    if not request.input:
        raise RequestError("the list is empty; give at least one problem", "input")
    if len(request.input) > envelope.max_problems:
        raise RequestError(
            f"{len(request.input)} problems are too many; this server takes {envelope.max_problems}", "input"
        )
    return [(f"input.{index}", problem, None) for index, problem in enumerate(request.input)]


def _latents(request: InferRequest, manifest: Manifest) -> Latents:
    """What of the states is asked for. Raises RequestError where the model has no such thing."""
    latents = request.latents or NO_LATENTS
    single = len(manifest.state) == 1 and len(manifest.state[0].shape) == 3
    if latents.select in ("readout", "pooled") and not single:
        raise RequestError(
            f"{manifest.name} has no single state (N, D) to take the {latents.select} of; select full",
            "latents.select",
        )
    return latents


def _view(latents: Latents, codec: Codec, row: Row) -> View | None:
    if latents.select == "none":
        return None
    tokens = codec.readout_tokens(row.tensors) if latents.select == "readout" else ()
    return View(latents.select, tuple(tokens))


def _reserved(trajectories: list[Trajectory], layout: Layout, limit: int, streams: bool) -> int:
    """The bytes that the answer needs to be kept. Raises RequestError where they are over the limit.

    A stream keeps little: it drops what is not read in time, but for the last step of each problem.
    """
    kept = 0
    readouts: dict[Bucket, int] = {}  # bytes, by the lengths of a row
    for problem in trajectories:
        steps = max(1, problem.steps_left) if problem.every_step and not streams else 1
        lengths = problem.row.lengths
        readout = readouts.get(lengths)
        if readout is None:
            readout = READOUT_BYTES * math.prod(layout.shape(layout.manifest.logits, lengths))
            readouts[lengths] = readout
        kept += readout if problem.tallies else 0
        kept += steps * (EVENT_BYTES + readout + _bytes_of(problem.view, problem.row, layout))
    if kept <= limit:
        return 0 if streams else kept
    raise RequestError(
        f"the steps and latents of the answer could take {kept} bytes, and this server keeps {limit} for a "
        "request; lower max_steps, send fewer problems, select fewer latents, or stream",
        "include" if trajectories[0].view is None else "latents.select",
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
