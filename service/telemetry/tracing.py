"""Traces for OpenTelemetry: a span for each request, with its queue, its embedding and its steps below it.

Nothing here is imported from OpenTelemetry until tracing is on. Spans are made when a request is over, from
what is known of it by then, so that thinking costs the same with and without them.
"""

from __future__ import annotations

import importlib
import logging
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from service.errors import StartupError
from service.http.record import RequestRecord

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

    from service.settings import Settings

log = logging.getLogger("fathom")
EXPORTERS = ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
NAME = "fathom"
FLUSH_MS = 5000  # to hand over the last spans when the server stops


def open_tracing(settings: Settings, environment: Mapping[str, str] = os.environ) -> Tracing | None:
    """Tracing as the settings and the OTEL_ variables have it; None where it is off.

    Raises StartupError where it is asked for and the extra is not installed, or its exporter is not known.
    """
    named = [name for name in EXPORTERS if environment.get(name)]
    disabled = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    if settings.traces == "off" or disabled or exporter == "none":
        return None
    if settings.traces == "auto" and not named:
        return None
    if exporter != "otlp":
        raise StartupError(f"OTEL_TRACES_EXPORTER: {exporter!r} is not known here; it is otlp or none")
    protocol = environment.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environment.get(
        "OTEL_EXPORTER_OTLP_PROTOCOL"
    )
    if protocol not in (None, "", "http/protobuf"):
        raise StartupError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL: {protocol!r} is not known here; it is http/protobuf"
        )
    try:
        otlp = importlib.import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
        importlib.import_module("opentelemetry.sdk.trace")
    except ModuleNotFoundError as error:
        what = "traces (--traces, FATHOM_TRACES)" if settings.traces == "on" else named[0]
        raise StartupError(
            f"{what}: traces need {error.name}; install the extra otel, or set FATHOM_TRACES=off"
        ) from None
    log.info("traces go to OpenTelemetry")
    return Tracing(otlp.OTLPSpanExporter())


class Tracing:
    """Makes spans of requests and hands them to an exporter, from a thread of the SDK's."""

    def __init__(self, exporter: SpanExporter, at_once: bool = False) -> None:
        """at_once: export every span as it ends, for tests; otherwise in batches."""
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win over the name; OTEL_TRACES_SAMPLER says how many.
        unnamed = not os.environ.get("OTEL_SERVICE_NAME")
        resource = Resource.create()
        if unnamed and str(resource.attributes.get("service.name", "")).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": NAME}))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        processor = SimpleSpanProcessor(exporter) if at_once else BatchSpanProcessor(exporter)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer(NAME)
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, record: RequestRecord, headers: Mapping[str, str]) -> RequestSpan:
        """The span of a request that has just arrived, below its caller's where it names one."""
        from opentelemetry.trace import SpanKind, format_trace_id

        clock = Clock()
        carrier = {name: headers[name] for name in ("traceparent", "tracestate") if name in headers}
        span = self._tracer.start_span(
            record.method,
            context=self._propagator.extract(carrier),
            kind=SpanKind.SERVER,
            start_time=clock(record.arrived),
            attributes={"http.request.method": record.method, "url.path": record.path},
        )
        record.trace = format_trace_id(span.get_span_context().trace_id)
        return RequestSpan(self, span, clock)

    def child(self, parent: Span, name: str, began: int, **attributes: Any) -> Span:
        """A span of something that has happened, since a time in nanoseconds; the caller ends it."""
        from opentelemetry.trace import set_span_in_context

        return self._tracer.start_span(
            name,
            context=set_span_in_context(parent),
            start_time=began,
            attributes={f"fathom.{name}": value for name, value in attributes.items()},
        )

    def close(self) -> None:
        """Hand over what is left. May take seconds; harmless when repeated."""
        self._provider.force_flush(FLUSH_MS)
        self._provider.shutdown()


class RequestSpan:
    """A request's span while it is open."""

    def __init__(self, tracing: Tracing, span: Span, clock: Clock) -> None:
        self._tracing = tracing
        self._span = span
        self._clock = clock

    @property
    def context(self) -> str:
        """Where the trace goes on, as the headers traceparent and traceresponse have it."""
        from opentelemetry.trace import format_span_id, format_trace_id

        own = self._span.get_span_context()
        return f"00-{format_trace_id(own.trace_id)}-{format_span_id(own.span_id)}-{own.trace_flags:02x}"

    def end(self, record: RequestRecord, route: str | None) -> None:
        """The request is over, and the facts say how it went."""
        from opentelemetry.trace import Status, StatusCode

        span = self._span
        if span.is_recording():
            span.update_name(f"{record.method} {route}" if route else record.method)
            span.set_attribute("http.response.status_code", record.status)
            span.set_attribute("fathom.request.id", record.id)
            for name, value in (
                ("http.route", route),
                ("fathom.model", record.model),
                ("fathom.key", record.key),
            ):
                if value:
                    span.set_attribute(name, value)
            if record.status >= 500:
                span.set_attribute("error.type", str(record.status))
                span.set_status(Status(StatusCode.ERROR))
            if record.halts:
                self._thinking(record)
        span.end(self._clock(time.monotonic()))

    def _thinking(self, record: RequestRecord) -> None:
        """Spans of what the engine did. Where there are several problems, of the one that took longest."""
        begun = max(record.arrived + record.queue_seconds, record.ended - record.compute_seconds)
        embedded = min(record.ended, begun + record.embed_seconds)
        child, clock = self._tracing.child, self._clock
        queue = child(self._span, "queue", clock(begun - record.queue_seconds), problems=record.problems)
        queue.end(clock(begun))
        if record.embed_seconds:
            child(self._span, "embedding", clock(begun)).end(clock(embedded))
        steps = child(
            self._span,
            "steps",
            clock(embedded),
            steps=record.steps,
            version=record.version,
            **{f"halted.{reason}": count for reason, count in record.halts.items()},
        )
        for end in record.ends:
            attributes: dict[str, int | str] = {
                "index": end.index,
                "steps": end.steps,
                "halt_reason": end.reason,
            }
            steps.add_event("problem ended", attributes, clock(end.at))
        steps.end(clock(record.ended))


class Clock:
    """Times of time.monotonic(), in seconds -> nanoseconds of the epoch, the same way for a whole request."""

    def __init__(self) -> None:
        self._offset = time.time_ns() - time.monotonic_ns()

    def __call__(self, moment: float) -> int:
        return round(1e9 * moment) + self._offset
