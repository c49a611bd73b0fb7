"""What an operator meets: models, health, overload, keys, metrics, OpenAPI, and what gets imported."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model.bundle import version_order
from service.http.routes import fathom_version
from service.settings import read_settings
from service.telemetry.metrics import Metrics
from tests.service.servers import CountingRunner, Running, chain, counting_bundle, eventually, serving
from tests.service.v1.test_streams import FOREVER, begin

METRICS = {
    "fathom_requests_total",
    "fathom_steps_total",
    "fathom_request_depth",
    "fathom_halt_total",
    "fathom_queue_seconds",
    "fathom_step_seconds",
    "fathom_request_seconds",
    "fathom_ready",
    "fathom_build_info",
    "fathom_running",
    "fathom_waiting",
    "fathom_slot_occupancy",
    "fathom_yields_total",
    "fathom_restarts_total",
    "fathom_dropped_steps_total",
    "fathom_held_bytes",
}


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(counting_bundle(version="9"), counting_bundle(version="10")) as running:
        yield running


def test_the_models_are_listed_with_their_limits(server: Running) -> None:
    models = server.client.get("/v1/models").json()["models"]
    assert [(model["name"], model["version"], model["default"]) for model in models] == [
        ("graph", "9", False),
        ("graph", "10", True),
    ]
    assert models[0]["steps"] == {"default": 16, "limit": 1_000_000}
    assert models[0]["criteria"] == [
        "none",
        "confidence",
        "entropy",
        "kl",
        "argmax_stability",
        "agreement",
    ]


def test_a_model_shows_its_manifest(server: Running) -> None:
    for name, version in (("graph", "10"), ("graph@9", "9")):
        model = server.client.get(f"/v1/models/{name}").json()
        assert (model["version"], model["versions"]) == (version, ["9", "10"])
        assert model["calibration"] is None
        assert model["codec"]["name"] == "graph"
        assert server.infer(model["example"]).status_code == 200
        assert model["schema"]["title"] == "GraphProblem"
    missing = server.client.get("/v1/models/nobody")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "unknown_model")


def test_versions_sort_as_people_count() -> None:
    written = ["10", "9", "nightly", "1.10", "1.9", "2", "2-rc1", "2.post1"]
    ordered = ["nightly", "1.9", "1.10", "2-rc1", "2", "2.post1", "9", "10"]
    assert sorted(written, key=version_order) == ordered


def test_live_at_once_and_ready_after_a_real_step() -> None:
    runner = CountingRunner()
    runner.may_step.clear()
    with serving(runner=runner, wait_for_ready=False) as server:
        assert server.client.get("/health/live").json() == {"status": "live"}
        waiting = server.client.get("/health/ready")
        assert waiting.status_code == 503
        assert "starting" in waiting.json()["error"]["message"]
        assert server.infer(chain(2)).status_code == 503
        runner.may_step.set()


def test_a_hung_engine_is_not_ready() -> None:
    with serving(stall_seconds=0.05) as server:
        server.runner.may_step.clear()
        held = begin(server, chain(3))
        while (ready := server.client.get("/health/ready")).status_code == 200:
            pass
        assert "stalled" in ready.json()["error"]["message"]
        held.close()
        server.runner.may_step.set()


def test_a_full_queue_answers_at_once_and_says_when_to_return() -> None:
    with serving(slots=1, queue_seconds=0.01) as server:
        running = begin(server, chain(2), **FOREVER)
        server.runner.wait_until(taken=1)
        server.runner.may_step.clear()
        waiting = begin(server, chain(2), max_steps=1)  # little enough to wait for
        eventually(lambda: server.served.waiting == 1)
        for streams in (False, True):
            refused = server.infer(chain(2), stream=streams, **FOREVER)
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "overloaded")
            assert int(refused.headers["retry-after"]) >= 1
        running.close()
        waiting.close()
        server.runner.may_step.set()
        server.runner.wait_until(taken=0)


def test_with_keys_the_api_wants_one_and_operations_stay_open() -> None:
    with serving(api_keys="first, second") as server:
        for headers, status in (
            ({}, 401),
            ({"authorization": "Bearer third"}, 401),
            ({"authorization": "first"}, 401),
            ({"authorization": "Bearer first"}, 200),
            ({"authorization": "Bearer second"}, 200),
        ):
            response = server.client.post("/v1/infer", json={"input": chain(2)}, headers=headers)
            assert response.status_code == status
            assert server.client.get("/v1/models", headers=headers).status_code == status
        refused = server.client.get("/v1/models/graph")
        assert refused.json()["error"]["code"] == "unauthorized"
        assert refused.headers["www-authenticate"] == "Bearer"
        for path in ("/health/live", "/health/ready", "/metrics", "/version"):
            assert server.client.get(path).status_code == 200


def test_metrics_count_requests_steps_and_reasons() -> None:
    with serving() as server:
        for problem in (chain(3), chain(40), [chain(2), chain(5)]):
            server.infer(problem)
        server.infer(chain(3), model="not-a-label")
        server.infer(chain(3), max_steps=0)
        server.client.get("/v1/models")
        page = server.client.get("/metrics")
        assert page.headers["content-type"].startswith("text/plain")
        for line in (
            'fathom_requests_total{code="200",model="graph"} 3.0',
            'fathom_requests_total{code="404",model="unknown"} 1.0',
            'fathom_requests_total{code="422",model="unknown"} 1.0',
            'fathom_steps_total{model="graph"} 26.0',
            'fathom_halt_total{model="graph",reason="halted"} 3.0',
            'fathom_halt_total{model="graph",reason="budget"} 1.0',
            'fathom_halt_total{model="graph",reason="error"} 0.0',
            'fathom_request_depth_bucket{le="4.0",model="graph"} 2.0',
            'fathom_request_seconds_count{model="graph"} 3.0',
            'fathom_request_seconds_count{model="unknown"} 2.0',
            'fathom_queue_seconds_count{model="graph"} 4.0',
            'fathom_ready{model="graph"} 1.0',
            f'fathom_build_info{{version="{fathom_version()}"}} 1.0',
            'fathom_running{model="graph"} 0.0',
            'fathom_waiting{model="graph"} 0.0',
            'fathom_slot_occupancy{model="graph"} 0.0',
            'fathom_yields_total{model="graph"} 0.0',
            'fathom_restarts_total{model="graph"} 0.0',
            'fathom_dropped_steps_total{model="graph"} 0.0',
            "fathom_held_bytes 0.0",
        ):
            assert line in page.text.splitlines()
        assert "not-a-label" not in page.text
        assert server.metric("process_resident_memory_bytes") > 2**20


def test_gauges_show_what_runs_and_waits() -> None:
    with serving(slots=2) as server:
        held = begin(server, [chain(2)] * 3, **FOREVER)
        server.runner.wait_until(taken=2)
        eventually(lambda: server.metric("fathom_waiting", model="graph") == 1)
        assert server.metric("fathom_running", model="graph") == 2
        assert server.metric("fathom_slot_occupancy", model="graph") == 1
        held.close()
        server.runner.wait_until(taken=0)


def test_what_is_held_for_a_trace_shows_until_it_is_answered() -> None:
    with serving() as server:
        server.runner.may_step.clear()
        terms = {"include": ["trace"], "max_steps": 50, "halting": {"criterion": "none"}}
        held = begin(server, chain(3), **terms)
        eventually(lambda: server.metric("fathom_held_bytes") > 0)
        server.runner.may_step.set()
        eventually(lambda: server.metric("fathom_held_bytes") == 0)
        held.close()


def test_gauges_are_by_model_and_go_with_it() -> None:
    metrics = Metrics(read_settings({}))
    first, second, logic = (metrics.of_model(name, 8) for name in ("graph", "graph", "logic"))
    first.load(2, 1, 8)
    second.load(4, 0, 8)
    logic.load(8, 5, 8)

    def gauges() -> dict[str, float]:
        lines = re.findall(
            r'^fathom_(running|waiting|slot_occupancy){model="(\w+)"} (\S+)$',
            metrics.page().decode(),
            re.MULTILINE,
        )
        return {f"{name} {model}": float(value) for name, model, value in lines}

    graph = {"running graph": 6, "waiting graph": 1, "slot_occupancy graph": 6 / 16}
    assert gauges() == {**graph, "running logic": 8, "waiting logic": 5, "slot_occupancy logic": 1}
    metrics.forget(logic)
    assert gauges() == graph


def test_buckets_are_the_operators_choice() -> None:
    metrics = Metrics(read_settings({"depth_buckets": "3,30", "queue_buckets": "0.5"}))
    metrics.of_model("graph", slots=1)
    page = metrics.page().decode()
    assert re.findall(r'depth_bucket{le="([^"]+)"', page) == ["3.0", "30.0", "+Inf"]
    assert re.findall(r'queue_seconds_bucket{le="([^"]+)"', page) == ["0.5", "+Inf"]


def test_every_metric_is_documented_and_none_but_those() -> None:
    metrics = Metrics(read_settings({}))
    names = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in metrics.registry.collect()
        if not family.name.startswith("process_")  # the Prometheus client's own, the same everywhere
    }
    assert names == METRICS
    documented = re.findall(r"`(fathom_\w+)[{`]", Path("docs/metrics.md").read_text(encoding="utf-8"))
    assert set(documented) == METRICS


def test_the_version_says_what_runs_where(server: Running) -> None:
    version = server.client.get("/version").json()
    assert set(version) == {"fathom", "python", "runtimes", "device", "models"}
    assert version["device"] == "cpu"
    assert version["models"]["graph@10"] == {"backend": "fake", "device": "cpu"}


def test_openapi_describes_requests_streams_and_errors(server: Running) -> None:
    assert server.client.get("/docs").status_code == 200
    schema = server.client.get("/openapi.json").json()
    infer = schema["paths"]["/v1/infer"]["post"]
    body = infer["requestBody"]["content"]["application/json"]
    assert resolve(schema, body["schema"])["additionalProperties"] is False
    examples = {name: example["value"] for name, example in body["examples"].items()}
    assert server.client.post("/v1/infer", json=examples["graph"]).status_code == 200
    assert resolve(schema, body["schema"])["examples"] == [examples["graph"]], "the models, each once"
    kinds = resolve(schema, body["schema"])["properties"]["input"]["anyOf"]
    assert [kind.get("title") for kind in kinds] == ["GraphProblem", None]
    assert {"400", "404", "408", "413", "422", "429", "500", "503"} <= set(infer["responses"])
    assert {"application/json", "text/event-stream", "application/vnd.fathom.frames"} == set(
        infer["responses"]["200"]["content"]
    )
    for status in ("404", "422", "429"):
        error = resolve(schema, infer["responses"][status]["content"]["application/json"]["schema"])
        assert error["title"] == "ErrorBody"
    for reference in re.findall(r'"\$ref":"([^"]+)"', server.client.get("/openapi.json").text):
        resolve(schema, {"$ref": reference})


def resolve(schema: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference; KeyError where it leads nowhere."""
    found: Any = schema
    for step in part["$ref"].removeprefix("#/").split("/"):
        found = found[step]
    return dict(found)


def test_serving_imports_no_training_library() -> None:
    code = "import service.app, sys; print([m for m in ('torch', 'onnx', 'onnxruntime') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
