"""From events to JSON: what a step shows, how a problem ended, and the answer to a whole request."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic_core import PydanticSerializationError
from pydantic_core import to_json as quick_json

from model.halting import HaltReason
from model.readout import Shown, answer_of
from model.row import Floats
from service.engine.work import READOUT_BYTES, Event, Finished, Stepped
from service.errors import ModelFailed, Unavailable
from service.http.latents import Packer, on_the_wire
from service.http.requests import Job

FEW_EVENTS = 64
FEW_BYTES = 2**14  # of states and readouts
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

    def __init__(self, job: Job, packer: Packer) -> None:
        self._job = job
        self._pack = packer
        self._manifest = job.bundle.manifest
        self._names = self._manifest.score_names

    def step(self, event: Stepped) -> dict[str, Any]:
        """One step of one problem: the data of `event: step`."""
        answer = answer_of(self._manifest, event.logits)
        return {
            "index": event.index,
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
        held = 0
        for event in events:
            held += 0 if event.logits is None else READOUT_BYTES * event.logits.size
            held += sum(values.nbytes for values in (event.state or {}).values())
        return len(events) <= FEW_EVENTS and held <= FEW_BYTES

    def trace(self, steps: Sequence[Stepped]) -> list[tuple[int, bytes]]:
        """Steps as JSON, without the index that comes with each."""
        shown = [self.step(event) for event in steps]
        return [(step.pop("index"), to_json(step)) for step in shown]

    def whole(self, ends: Iterable[Finished]) -> dict[str, Any]:
        """The answer to the request, without traces."""
        ordered = sorted(ends, key=lambda end: end.index)
        total = time.monotonic() - self._job.submission.arrived
        return {
            "id": self._job.id,
            "model": self._manifest.name,
            "version": self._manifest.version,
            "results": [self._result(end) for end in ordered],
            "usage": {"steps": sum(end.steps for end in ordered)},
            "timings_ms": {
                "queue": _milliseconds(max(end.queue_seconds for end in ordered)),
                "compute": _milliseconds(max(end.compute_seconds for end in ordered)),
                "total": _milliseconds(total),
            },
        }

    def json(self, ends: Iterable[Finished], traces: Traces) -> bytes:
        """The answer to the request; what has been JSON already is put into its place."""
        content = self.whole(ends)
        if "trace" not in self._job.include:
            return to_json(content)
        results = [
            b'%b,"trace":[%b]}' % (to_json(result)[:-1], b",".join(traces.get(index, ())))
            for index, result in enumerate(content["results"])
        ]
        # No text can be taken for the place: its quotes would be escaped.
        return to_json({**content, "results": []}).replace(
            b'"results":[]', b'"results":[%b]' % b",".join(results), 1
        )

    def _result(self, end: Finished) -> dict[str, Any]:
        answer = None if end.logits is None else answer_of(self._manifest, end.logits)
        result: dict[str, Any] = {
            "answer": answer and answer.answer,
            "label": answer and answer.label,
            "steps": end.steps,
            "max_steps": self._job.max_steps,
            "halt_reason": end.reason.value,
        }
        include = self._job.include
        if "probabilities" in include:
            result["probabilities"] = answer and answer.probabilities
        if "scores" in include:
            result["scores"] = None if end.scores is None else self._scores(end.scores)
        if answer is not None:
            result |= self._output(answer)
        result |= self._latents(end)
        if warnings := self._job.warnings[end.index]:
            result["warnings"] = list(warnings)
        if end.error is not None:
            result["error"] = end.error
        return result

    def _scores(self, scores: Floats) -> dict[str, float | None]:
        """By name; null where a score is not a number."""
        return {
            name: value if np.isfinite(value) else None
            for name, value in zip(self._names, scores.tolist(), strict=True)
        }

    def _latents(self, event: Event) -> dict[str, Any]:
        """The state where there is one, otherwise all of them by name."""
        if event.state is None:
            return {}
        dtype = self._job.latents.dtype
        packed = {name: self._pack(on_the_wire(values, dtype)) for name, values in event.state.items()}
        return {"latents": packed if len(packed) > 1 else next(iter(packed.values()))}

    def _output(self, answer: Shown) -> dict[str, Any]:
        """The readout itself, where that is the answer."""
        return {} if answer.output is None else {"output": self._pack(on_the_wire(answer.output))}


def raise_if_all_failed(ends: Iterable[Finished]) -> None:
    """An answer without one result is an error: ModelFailed, or Unavailable where the server cut it short."""
    ends = list(ends)
    if any(end.reason not in FAILED for end in ends):
        return
    errors = [end.error for end in ends if end.error]
    if errors:
        raise ModelFailed(f"{errors[0]}; try again, and report it if it persists")
    raise Unavailable("the server is shutting down and did not finish; send the request again")


def _milliseconds(seconds: float) -> float:
    return round(1000 * seconds, 3)
