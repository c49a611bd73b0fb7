"""POST /v1/infer: validate and admit before the first byte, then answer whole or as a stream."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from service.engine.messages import Finished, Stepped, Submission
from service.engine.served_model import ServedModel
from service.engine.ticket import Ticket
from service.fleet import Fleet
from service.http.envelope import Envelope
from service.http.keys import Caller, check_key, enter, first_of
from service.http.limits import Limits
from service.http.peer import GONE, Bodies, WaitingClient
from service.http.threads import Threads
from service.http.v1.answer_schemas import ErrorBody, InferAnswer, StepEvent
from service.http.v1.answers import Answers, raise_if_all_failed
from service.http.v1.kept import KeptThoughts
from service.http.v1.latents import JsonPacker
from service.http.v1.prepare import Prepared, parse_request, prepare
from service.http.v1.streaming import FRAMES, SSE, EventStream, Format, FrameFormat, SseFormat
from service.settings import Settings
from service.telemetry.capture import Capture, captured
from service.telemetry.metrics import Metrics

SMALL_BODY = 4096  # bytes; parsing and encoding that much takes about a millisecond


class Service:
    """What the routes work with."""

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        fleet: Fleet,
        limits: Limits,
        capture: Capture | None = None,
    ) -> None:
        self.settings = settings
        self.limits = limits
        self.capture = capture
        self.metrics = metrics
        self.fleet = fleet
        self.threads = Threads()
        self.bodies = Bodies(settings, limits)
        self.kept = KeptThoughts(settings)

    def admit(
        self,
        request: Request,
        served: ServedModel,
        submission: Submission,
        reserved: int = 0,
        streams: bool = False,
    ) -> Ticket:
        """Submit what a request asks for, within its caller's limits, and take note of what becomes of it.

        Raises Overloaded or Unavailable.
        """
        state = request.scope["state"]
        ticket = self.limits.admit(state["caller"], served, submission, reserved, streams)
        state["record"].follow(ticket, served)
        return ticket


def _error(description: str) -> dict[str, Any]:
    return {"model": ErrorBody, "description": description}


RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "model": InferAnswer,
        "description": "The whole answer; or with `stream`, its steps and then `done` or `error`.",
        "content": {
            SSE: {
                "itemSchema": {
                    "type": "object",
                    "required": ["event", "data"],
                    "properties": {
                        "event": {"enum": ["step", "done", "error"]},
                        "data": {
                            "type": "string",
                            "contentMediaType": "application/json",
                            "contentSchema": {
                                "anyOf": [
                                    {"$ref": f"#/components/schemas/{part.__name__}"}
                                    for part in (StepEvent, InferAnswer, ErrorBody)
                                ]
                            },
                        },
                    },
                },
                "example": 'event: step\ndata: {"index":0,"step":1}\n\nevent: done\ndata: {"id":"req_1"}\n\n',
            },
            FRAMES: {"schema": {"type": "string", "format": "binary"}},
        },
    },
    404: _error("`unknown_model`: no such model or version; `unknown_request`: nothing to go on from."),
    500: _error("`model_failed` or `internal`: not the caller's fault."),
    503: _error("`unavailable`: not ready, draining or failed."),
}
BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/InferRequest"},
            }
        },
    }
}
router = APIRouter(dependencies=[Depends(check_key)], tags=["inference"])


@router.post(
    "/v1/infer", summary="Think about one problem or several", responses=RESPONSES, openapi_extra=BODY
)
async def infer(request: Request) -> Response:
    """Applies the model's step until the halting rule, the step budget or the deadline says stop.

    With `"stream": true` every step is sent as it is taken; `Accept: application/vnd.fathom.frames`
    sends the same events as binary frames. A client that goes away frees its slots at the next step.
    """
    service: Service = request.app.state.service
    frames = FRAMES.encode() in first_of(request.scope["headers"], b"accept")
    served, prepared, streams = await _understood(request, service, frames)
    ticket = service.kept.admitted(
        prepared.continuation,
        lambda: service.admit(request, served, prepared.submission, prepared.reserved, streams),
    )
    if streams:
        form: Format = FrameFormat() if frames else SseFormat(prepared)
        return EventStream(ticket, prepared, form, service.settings.ping_seconds, service.threads)
    answers = Answers(prepared, JsonPacker(prepared.latents.encoding))
    return await _whole(request, ticket, answers, prepared, service.threads)


async def infer_directly(request: Request) -> Response:
    """The same, key and all, without the framework around a route, which takes longer than the rest."""
    enter(request)
    return await infer(request)


async def _understood(request: Request, service: Service, frames: bool) -> tuple[ServedModel, Prepared, bool]:
    """Whom a request is for, what it asks for, and whether as a stream; its body is let go of here."""
    state = request.scope["state"]
    with await service.bodies.read(request) as body:
        small = len(body) <= SMALL_BODY
        asked = await service.threads.run(small, lambda: parse_request(body))
        caller: Caller = state["caller"]
        wanted, kept = asked.model, None
        if asked.continue_from is not None:
            wanted, kept = service.kept.resume(caller.name, asked.continue_from, wanted, service.fleet)
        await service.fleet.fetch(wanted)
        with service.fleet.asking(wanted) as served:
            state["model"] = served.bundle.manifest.name
            most = service.limits.of(caller).max_problems
            envelope = Envelope(state["id"], caller.name, state["arrived"], frames or asked.stream, most)
            prepared = await service.threads.run(
                small, lambda: prepare(asked, served, service.settings, envelope, kept)
            )
            if service.capture is not None and kept is None:
                service.capture.offer(captured(asked, served), len(body))
    return served, prepared, envelope.streams


async def _whole(
    request: Request, ticket: Ticket, answers: Answers, prepared: Prepared, threads: Threads
) -> Response:
    """Wait for the end of every problem; steps become JSON as they come."""
    traces: dict[int, list[bytes]] = defaultdict(list)
    ends: list[Finished] = []
    with WaitingClient(request.scope, request.receive, ticket) as client:
        async for events in ticket:
            ends += [event for event in events if isinstance(event, Finished)]
            steps = [event for event in events if isinstance(event, Stepped)]
            for index, step in await threads.run(answers.are_small(steps), partial(answers.trace, steps)):
                traces[index].append(step)
        if client.gone:
            return Response(status_code=GONE)
        raise_if_all_failed(ends, ticket.stopped, prepared.steered, prepared.encoded)
        small = answers.are_small(ends) and not traces
        content = await threads.run(small, lambda: answers.json(ends, traces))
    return Response(content, media_type="application/json")
