"""From events to JSON: what a step shows, how a problem ended, and the answer to a whole request."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic_core import PydanticSerializationError
from pydantic_core import to_json as quick_json

from model.errors import RequestError
from model.halting import HaltReason
from model.readout import Shown, answer_of
from model.row import Floats
from service.engine.messages import NOT_EMBEDDED, NOT_FINITE, READOUT_BYTES, Event, Finished, Stepped
from service.errors import ModelFailed, Unavailable
from service.http.v1.latents import Packer, on_the_wire
from service.http.v1.prepare import Prepared
from service.http.v1.trajectories import Sampled, chosen, divergence, sureness

FEW_EVENTS = 64
FEW_BYTES = 2**14  # of readouts
Traces = Mapping[int, Sequence[bytes]]  # the steps of each problem, by its index, as JSON
FAILED = (HaltReason.ERROR, HaltReason.CANCELLED)


def to_json(content: object) -> bytes:
    """Compact JSON; null for what is not a number."""
    try:
        return quick_json(content, inf_nan_mode="null")
    except PydanticSerializationError:  # an error may quote a caller whose text is not valid Unicode
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


class Answers:
    """Turns the events of one job into JSON; latents become what the packer makes of them."""

    def __init__(self, prepared: Prepared, packer: Packer) -> None:
        self._prepared = prepared
        self._pack = packer
        self._manifest = prepared.bundle.manifest
        self._names = self._manifest.score_names

    def step(self, event: Stepped) -> dict[str, Any]:
        """One step of one problem: the data of `event: step`."""
        answer = answer_of(self._manifest, event.logits)
        place, which = self._prepared.fan_out.place(event.index)
        return {
            "index": place,
            **({} if self._prepared.samples is None else {"sample": which}),
            "step": event.step,
            "answer": answer.answer,
            "label": answer.label,
            "probabilities": answer.probabilities,
            "scores": self._scores(event.scores),
            **self._output(answer),
            **self._latents(event),
        }

    def are_small(self, events: Sequence[Event]) -> bool:
        """Whether turning them into JSON takes no more than about a millisecond."""
        readouts = states = 0
        for event in events:
            readouts += 0 if event.logits is None else READOUT_BYTES * event.logits.size
            states += sum(values.nbytes for values in (event.state or {}).values())
        few = len(events) <= FEW_EVENTS and readouts <= FEW_BYTES
        return few and states <= self._pack.few_bytes

    def trace(self, steps: Sequence[Stepped]) -> list[tuple[int, bytes]]:
        """Steps as JSON, without the index that comes with each."""
        shown = [self.step(event) for event in steps]
        for step in shown:
            step.pop("index")
            step.pop("sample", None)
        return [(event.index, to_json(step)) for event, step in zip(steps, shown, strict=True)]

    def whole(self, ends: Iterable[Finished]) -> dict[str, Any]:
        """The answer to the request, without traces."""
        return self._whole(ends)[0]

    def _whole(self, ends: Iterable[Finished]) -> tuple[dict[str, Any], list[int]]:
        """The answer, and which problem each of its results is of."""
        ordered = sorted(ends, key=lambda end: end.index)
        results = [self._settled(place, ordered) for place in range(self._prepared.fan_out.inputs)]
        total = time.monotonic() - self._prepared.submission.arrived
        content = {
            "id": self._prepared.id,
            "model": self._manifest.name,
            "version": self._manifest.version,
            "results": [result for _, result in results],
            "usage": {"steps": sum(end.taken for end in ordered)},
            "timings_ms": {
                "queue": _milliseconds(max(end.queue_seconds for end in ordered)),
                "compute": _milliseconds(max(end.compute_seconds for end in ordered)),
                "total": _milliseconds(total),
            },
        }
        return content, [index for index, _ in results]

    def json(self, ends: Iterable[Finished], traces: Traces) -> bytes:
        """The answer to the request; what has been JSON already is put into its place."""
        content, problems = self._whole(ends)
        if "trace" not in self._prepared.include:
            return to_json(content)
        results = [
            b'%b,"trace":[%b]}' % (to_json(result)[:-1], b",".join(traces.get(index, ())))
            for index, result in zip(problems, content["results"], strict=True)
        ]
        # No text can be taken for the place: its quotes would be escaped.
        return to_json({**content, "results": []}).replace(
            b'"results":[]', b'"results":[%b]' % b",".join(results), 1
        )

    def _settled(self, place: int, ends: Sequence[Finished]) -> tuple[int, dict[str, Any]]:
        """The problem that answers an input, and the result."""
        end, prepared = ends[place], self._prepared
        if prepared.fan_out.each == 1 and prepared.samples is None:
            return place, self._result(place, end)
        family = [ends[index] for index in prepared.fan_out.of(place)]
        if prepared.samples is None:
            return place, {**self._result(place, end), **self._effect(clean=family[1], changed=end)}
        answers = [(end, self._answer(end)) for end in family]
        samples = [Sampled(end, answer, self._sureness(end)) for end, answer in answers if answer is not None]
        if not samples:
            return place, self._result(place, end)
        best, votes = chosen(samples, prepared.samples.choose)
        return best.end.index, {**self._result(place, best.end), "samples": votes}

    def _effect(self, clean: Finished, changed: Finished) -> dict[str, Any]:
        if clean.logits is None or changed.logits is None:
            return {}
        before, after = self._answer(clean), self._answer(changed)
        differs = before is not None and after is not None and before.label != after.label
        return {"effect": {"kl": divergence(clean.logits, changed.logits), "answer_changed": differs}}

    def _sureness(self, end: Finished) -> float:
        assert end.logits is not None, "without an answer there is nothing to be sure of"
        rule = self._prepared.submission.trajectories[0].rule
        score = None
        if rule.criterion in self._names and end.scores is not None:
            score = float(end.scores[self._names.index(rule.criterion)])
        return sureness(end.logits, score, self._manifest.criteria[rule.criterion])

    def _answer(self, end: Finished) -> Shown | None:
        """What a problem's end shows, or all of its steps together; None where it has taken none."""
        logits, aggregate = end.logits, self._prepared.aggregate
        if logits is not None and end.tally is not None and aggregate != "last":
            logits = end.tally.logits(aggregate, logits.shape)
        return None if logits is None else answer_of(self._manifest, logits)

    def _result(self, place: int, end: Finished) -> dict[str, Any]:
        answer = self._answer(end)
        result: dict[str, Any] = {
            "answer": answer and answer.answer,
            "label": answer and answer.label,
            "steps": end.steps,
            "max_steps": self._prepared.max_steps,
            "halt_reason": end.reason.value,
        }
        include = self._prepared.include
        if "probabilities" in include:
            result["probabilities"] = answer and answer.probabilities
        if "scores" in include:
            result["scores"] = None if end.scores is None else self._scores(end.scores)
        if "answer_entropy" in include:
            result["answer_entropy"] = self._entropy(end)
        if answer is not None:
            result |= self._output(answer)
        result |= self._latents(end)
        if warnings := self._prepared.warnings[place]:
            result["warnings"] = list(warnings)
        if end.error is not None:
            result["error"] = end.error
        return result

    def _entropy(self, end: Finished) -> float | list[float] | None:
        if end.tally is None or not end.tally.steps:
            return None
        entropy = end.tally.entropy().tolist()
        return entropy if self._manifest.readout.kind == "tokens" else float(entropy[0])

    def _scores(self, scores: Floats) -> dict[str, float | None]:
        """By name; null where a score is not a number."""
        return {
            name: value if math.isfinite(value) else None
            for name, value in zip(self._names, scores.tolist(), strict=True)
        }

    def _latents(self, event: Event) -> dict[str, Any]:
        """The state where there is one, otherwise all of them by name."""
        if event.state is None:
            return {}
        dtype = self._prepared.latents.dtype
        packed = {name: self._pack(on_the_wire(values, dtype)) for name, values in event.state.items()}
        return {"latents": packed if len(packed) > 1 else next(iter(packed.values()))}

    def _output(self, answer: Shown) -> dict[str, Any]:
        """The readout itself, where that is the answer."""
        return {} if answer.output is None else {"output": self._pack(on_the_wire(answer.output))}


def raise_if_all_failed(
    ends: Iterable[Finished], stopped: bool = False, steered: str | None = None, encoded: str | None = None
) -> None:
    """An answer without one result is an error: ModelFailed, or Unavailable where the server cut it short.

    stopped: the caller did, and takes what there is. steered, encoded: the field of the request that has
    changed states, and the one that has the first row as the model reads it, if there is one; RequestError
    where that is what cannot be computed.
    """
    ends = list(ends)
    if stopped and any(end.reason is HaltReason.CANCELLED for end in ends):
        return
    if any(end.reason not in FAILED for end in ends):
        return
    errors = [end.error for end in ends if end.error]
    if steered and set(errors) == {NOT_FINITE}:
        raise RequestError("the state was changed beyond all numbers; change it by less", steered)
    if encoded and errors and all(error.startswith(NOT_EMBEDDED) for error in errors):
        raise RequestError(f"{errors[0]}; give values that the model knows", encoded)
    if errors:
        raise ModelFailed(f"{errors[0]}; try again, and report it if it persists")
    raise Unavailable("the server is shutting down and did not finish; send the request again")


def _milliseconds(seconds: float) -> float:
    return round(1000 * seconds, 3)
