"""What Prometheus and Grafana are given works: the queries ask for metrics that are there, the rules fire."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.deploy.processes import ROOT, eventually, exactly, fathom_serve, running

PROMETHEUS = ROOT / "deploy/prometheus"
DASHBOARD = ROOT / "deploy/grafana/dashboards/fathom.json"
OF_OTHERS = {"up", "ALERTS"}  # Prometheus's own
WORD = re.compile(r"\b(?:fathom_\w+|up|ALERTS)\b")
needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="the programs prometheus and promtool are not installed"
)


def dashboard_queries() -> list[str]:
    """Every PromQL expression of the dashboard, wherever in its JSON."""

    def found(node: object) -> Iterator[str]:
        if isinstance(node, dict):
            if isinstance(node.get("expr"), str):
                yield node["expr"]
            node = list(node.values())
        if isinstance(node, list):
            for child in node:
                yield from found(child)

    return list(found(json.loads(DASHBOARD.read_text(encoding="utf-8"))))


def rule_queries() -> list[str]:
    """Every expression of the recording and alert rules."""
    content = yaml.safe_load((PROMETHEUS / "rules.yml").read_text(encoding="utf-8"))
    return [rule["expr"] for group in content["groups"] for rule in group["rules"]]


def exported() -> set[str]:
    """Names of all time series that a server exports, the parts of histograms included."""
    metrics = Metrics(Settings())
    metrics.of_model("graph", 64)
    metrics.answered("graph", 200, 0.1)
    families = text_string_to_metric_families(metrics.page().decode())
    return {sample.name for family in families for sample in family.samples}


@pytest.mark.parametrize("query", [*dashboard_queries(), *rule_queries()])
def test_every_query_names_metrics_that_the_service_exports(query: str) -> None:
    named = set(WORD.findall(query)) - OF_OTHERS
    assert named <= exported(), f"nobody exports {named - exported()}"
    assert named or OF_OTHERS & set(WORD.findall(query)), f"{query} asks for nothing"


def test_every_metric_is_on_the_dashboard() -> None:
    named = set(WORD.findall(" ".join(dashboard_queries())))
    bases = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name in exported()}
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in named}
    assert {base for base in bases if base not in shown and f"{base}_total" not in shown} == set()


@needs_prometheus
def test_promtool_accepts_the_configuration_and_the_rules_fire_as_described() -> None:
    for check in (
        ["check", "config", PROMETHEUS / "prometheus.yml"],
        ["test", "rules", ROOT / "tests/deploy/rules_test.yml"],
    ):
        done = subprocess.run(["promtool", *check], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@needs_prometheus
def test_prometheus_scrapes_a_server_and_every_query_of_the_dashboard_returns_data(tmp_path: Path) -> None:
    with fathom_serve(tmp_path) as url, prometheus_of(url, tmp_path) as prometheus:

        def query(expression: str) -> list[object]:
            answer = httpx.get(f"{prometheus}/api/v1/query", params={"query": expression}).json()
            assert answer["status"] == "success", f"{expression}: {answer}"
            result: list[object] = answer["data"]["result"]
            return result

        eventually(lambda: query('up{job="fathom"} == 1') != [], "the first scrape")
        until = time.monotonic() + 5  # several scrapes see traffic, or there are no rates
        while time.monotonic() < until:
            for steps in (1, 5, 40):
                httpx.post(f"{url}/v1/infer", json=exactly(steps)).raise_for_status()
            assert httpx.post(f"{url}/v1/infer", json={"input": 7}).status_code == 422
        silent = [one for one in map(filled, dashboard_queries()) if "ALERTS" not in one and not query(one)]
        assert not silent, f"no data for {silent}"
        rules = httpx.get(f"{prometheus}/api/v1/rules").json()["data"]["groups"]
        assert [rule["name"] for group in rules for rule in group["rules"] if rule["health"] == "err"] == []


def filled(query: str) -> str:
    """A dashboard's query with its variables set."""
    return query.replace("$__rate_interval", "10s").replace("$instance", ".*").replace("$model", ".*")


@contextmanager
def prometheus_of(url: str, folder: Path) -> Iterator[str]:
    """Prometheus on loopback with our configuration, but for where the server is; gives its address."""
    content = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    content["global"] = {"scrape_interval": "500ms", "evaluation_interval": "1s"}
    for job in content["scrape_configs"]:
        del job["dns_sd_configs"]
        if job["job_name"] == "fathom":
            job["static_configs"] = [{"targets": [url.removeprefix("http://")]}]
    (folder / "prometheus.yml").write_text(json.dumps(content))  # JSON is YAML
    shutil.copy(PROMETHEUS / "rules.yml", folder)
    with socket.create_server(("127.0.0.1", 0)) as found_free:
        address = f"127.0.0.1:{found_free.getsockname()[1]}"
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    ]
    with running(command, folder / "prometheus.log"):
        eventually(lambda: httpx.get(f"http://{address}/-/ready").is_success, "Prometheus's start")
        yield f"http://{address}"
