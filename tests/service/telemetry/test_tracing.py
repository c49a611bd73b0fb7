"""Traces: what a request's spans say, whose trace they go on with, and that off means off."""

from __future__ import annotations

import gzip
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import service.app
from service.errors import StartupError
from service.settings import read_settings
from service.telemetry.tracing import Tracing, open_tracing
from tests.service.servers import CountingRunner, Running, chain, events, eventually, graph_alone, serving
from tests.service.test_process import fathom_serve

TRACE, PARENT = 32 * "a", 16 * "b"
CALLER = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


@contextmanager
def traced(
    monkeypatch: pytest.MonkeyPatch, **given: object
) -> Iterator[tuple[Running, InMemorySpanExporter]]:
    exporter = InMemorySpanExporter()
    monkeypatch.setattr(service.app, "open_tracing", lambda _: Tracing(exporter, at_once=True))
    with serving(**given) as server:
        yield server, exporter


def spans(exporter: InMemorySpanExporter, whole: int = 1) -> dict[str, ReadableSpan]:
    """The spans by name, once so many requests are over."""

    def over() -> list[ReadableSpan]:
        spans = exporter.get_finished_spans()
        return [span for span in spans if span.kind is SpanKind.SERVER and "ready" not in span.name]

    eventually(lambda: len(over()) >= whole)
    return {span.name: span for span in exporter.get_finished_spans() if "ready" not in span.name}


def test_a_request_is_a_span_with_its_queue_embedding_and_steps_below(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with traced(monkeypatch, api_keys="one") as (server, exporter):
        land = server.runner.land
        monkeypatch.setattr(server.runner, "land", lambda: [embedded(landing) for landing in land()])
        headers = {"authorization": "Bearer one", "x-request-id": "mine"}
        body = {"input": [chain(3), chain(5)]}
        assert server.client.post("/v1/infer", json=body, headers=headers).is_success
        found = spans(exporter)
    assert set(found) == {"POST /v1/infer", "queue", "embedding", "steps"}
    whole = found["POST /v1/infer"]
    assert whole.kind is SpanKind.SERVER
    assert whole.parent is None
    assert dict(whole.attributes or {}) == {
        "http.request.method": "POST",
        "url.path": "/v1/infer",
        "http.route": "/v1/infer",
        "http.response.status_code": 200,
        "fathom.request.id": "mine",
        "fathom.model": "graph",
        "fathom.key": "api-key-1",
    }
    order = [found[name] for name in ("queue", "embedding", "steps")]
    for span in order:
        assert span.parent is not None
        assert span.parent.span_id == whole.context.span_id
        assert whole.start_time <= span.start_time <= span.end_time <= whole.end_time
    for earlier, later in itertools.pairwise(order):
        assert later.start_time == earlier.end_time
    assert dict(found["steps"].attributes or {}) == {
        "fathom.steps": 8,
        "fathom.version": "1",
        "fathom.halted.halted": 2,
    }
    told = [dict(event.attributes or {}) for event in found["steps"].events]
    assert told == [
        {"index": 0, "steps": 3, "halt_reason": "halted"},
        {"index": 1, "steps": 5, "halt_reason": "halted"},
    ]


def embedded(landing: Any) -> Any:
    import dataclasses

    return dataclasses.replace(landing, embed_seconds=1e-5)


def test_a_callers_trace_goes_on_and_is_told_back(monkeypatch: pytest.MonkeyPatch) -> None:
    with traced(monkeypatch) as (server, exporter):
        answer = server.client.post("/v1/infer", json={"input": chain(2)}, headers=CALLER)
        whole = spans(exporter)["POST /v1/infer"]
    assert format(whole.context.trace_id, "032x") == TRACE
    assert whole.parent is not None
    assert format(whole.parent.span_id, "016x") == PARENT
    assert answer.headers["traceresponse"] == f"00-{TRACE}-{whole.context.span_id:016x}-01"


@pytest.mark.parametrize(
    "parent", ["nonsense", f"00-{32 * '0'}-{PARENT}-01", f"00-{TRACE}-{16 * '0'}-01", ""]
)
def test_a_parent_that_is_none_begins_a_new_trace(monkeypatch: pytest.MonkeyPatch, parent: str) -> None:
    with traced(monkeypatch) as (server, exporter):
        assert server.client.get("/version", headers={"traceparent": parent}).is_success
        whole = spans(exporter)["GET /version"]
    assert whole.parent is None
    assert format(whole.context.trace_id, "032x") != TRACE


def test_a_trace_that_is_not_sampled_is_not_exported_but_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with traced(monkeypatch) as (server, exporter):
        answer = server.client.get("/version", headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
        assert answer.headers["traceresponse"].startswith(f"00-{TRACE}-")
        assert answer.headers["traceresponse"].endswith("-00")
    assert not [span for span in exporter.get_finished_spans() if "version" in span.name]


def test_failures_are_errors_and_refusals_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = CountingRunner(nan_nodes=4)
    with traced(monkeypatch, runner=runner) as (server, exporter):
        assert server.infer(chain(3)).status_code == 500
        failed = spans(exporter)["POST /v1/infer"]
        exporter.clear()
        assert server.infer("nothing").status_code == 422
        refused = spans(exporter)["POST /v1/infer"]
    assert failed.status.status_code is StatusCode.ERROR
    assert (failed.attributes or {})["error.type"] == "500"
    assert refused.status.status_code is StatusCode.UNSET


def test_a_client_that_leaves_ends_its_span(monkeypatch: pytest.MonkeyPatch) -> None:
    with traced(monkeypatch) as (server, exporter):
        server.runner.pace = 0.01
        body = {"input": chain(60), "max_steps": 60, "stream": True}
        with server.client.stream("POST", "/v1/infer", json=body) as response:
            next(events(response))
        assert (spans(exporter)["POST /v1/infer"].attributes or {})["http.response.status_code"] == 499


def test_what_cannot_be_set_up_ends_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    on = read_settings({"traces": "on"})
    with pytest.raises(StartupError, match="OTEL_TRACES_EXPORTER"):
        open_tracing(on, {"OTEL_TRACES_EXPORTER": "zipkin"})
    with pytest.raises(StartupError, match="http/protobuf"):
        open_tracing(on, {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(StartupError, match="extra otel"):
        open_tracing(on, {})


def test_traces_are_off_unless_something_asks_for_them() -> None:
    auto = read_settings({})
    assert open_tracing(auto, {}) is None
    assert open_tracing(auto, {"OTEL_SERVICE_NAME": "x"}) is None
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    assert open_tracing(auto, {**endpoint, "OTEL_SDK_DISABLED": "true"}) is None
    assert open_tracing(auto, {**endpoint, "OTEL_TRACES_EXPORTER": "none"}) is None
    assert open_tracing(read_settings({"traces": "off"}), endpoint) is None


def test_without_traces_nothing_of_opentelemetry_is_loaded_but_what_the_framework_loads() -> None:
    check = (
        "import sys, fastapi; before = set(sys.modules); "
        "from service.app import create_app; from service.settings import read_settings; "
        "create_app(read_settings({})); "
        "print([name for name in set(sys.modules) - before if name.startswith('opentelemetry')])"
    )
    bare = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, env=bare, check=True)
    assert done.stdout.strip() == "[]"


def test_a_server_sends_its_traces_to_where_the_variables_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    posted: list[tuple[str, bytes]] = []
    came = threading.Event()

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            zipped = self.headers.get("content-encoding") == "gzip"
            posted.append((self.path, gzip.decompress(body) if zipped else body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()
            came.set()

        def log_message(self, *_: object) -> None:
            pass

    collector = HTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=collector.serve_forever)
    thread.start()
    try:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
        with fathom_serve("--repository", str(graph_alone(tmp_path))) as server:
            assert server.client.get("/version", headers=CALLER).is_success
            assert server.stop() == 0  # what is left is handed over at the end
        assert came.is_set()
    finally:
        collector.shutdown()
        thread.join()
        collector.server_close()
    path, body = posted[0]
    assert path == "/v1/traces"
    for said in (bytes.fromhex(TRACE), b"GET /version", b"fathom", b"deployment.environment"):
        assert said in body
