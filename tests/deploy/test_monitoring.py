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
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.deploy.processes import ROOT, eventually, exactly, fathom_serve, running

PROMETHEUS = ROOT / "deploy/prometheus"
DASHBOARD = ROOT / "deploy/grafana/dashboards/fathom.json"
RULES = PROMETHEUS / "rules.yml"
OF_OTHERS = ("up", "ALERTS", "haproxy_", "DCGM_")  # Prometheus's own, the proxy's, the GPU exporter's
WORD = re.compile(r"\b(?:fathom_\w+|process_\w+|haproxy_\w+|DCGM_\w+|up|ALERTS)\b")
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


def rules() -> list[dict[str, Any]]:
    """The recording and alert rules."""
    content = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    return [rule for group in content["groups"] for rule in group["rules"]]


def exported() -> set[str]:
    """Names of all time series that a server exports, the parts of histograms included."""
    metrics = Metrics(Settings())
    metrics.of_model("graph", 64)
    metrics.of_server("1", lambda: 0.0, lambda: {"graph": True})
    metrics.answered("graph", 200, 0.1)
    families = text_string_to_metric_families(metrics.page().decode())
    return {sample.name for family in families for sample in family.samples}


@pytest.mark.parametrize("query", [*dashboard_queries(), *(rule["expr"] for rule in rules())])
def test_every_query_names_metrics_that_the_service_exports(query: str) -> None:
    named = set(WORD.findall(query))
    ours = {name for name in named if not name.startswith(OF_OTHERS)}
    assert ours <= exported(), f"nobody exports {ours - exported()}"
    assert named, f"{query} asks for nothing"


@pytest.mark.parametrize("query", dashboard_queries())
def test_every_query_of_the_dashboard_keeps_to_what_is_selected(query: str) -> None:
    metrics = Metrics(Settings())
    metrics.of_model("graph", 64)
    by_model = {
        family.name
        for family in metrics.registry.collect()
        for one in family.samples
        if "model" in one.labels
    }
    for metric, labels in re.findall(r"\b((?:fathom|process)_\w+)\{([^}]*)\}", query):
        assert 'job=~"$job",instance=~"$instance"' in labels
        base = re.sub(r"_(total|bucket|sum|count)$", "", metric)
        assert base not in by_model or 'model=~"$model"' in labels, f"{metric} is of all models"


def test_neither_rules_nor_dashboard_know_the_name_of_a_job() -> None:
    for file in (RULES, DASHBOARD):
        assert not re.search(r'job=~?\\?"(?!\$job)', file.read_text(encoding="utf-8")), file


@pytest.mark.parametrize(
    "rule", [rule for rule in rules() if "alert" in rule], ids=lambda rule: rule["alert"]
)
def test_every_alert_leads_to_what_to_do_about_it(rule: dict[str, Any]) -> None:
    page, _, place = rule["annotations"]["runbook_url"].partition("#")
    assert place == rule["alert"].lower()
    assert f'<a id="{place}"></a>' in (ROOT / page).read_text(encoding="utf-8")


def test_every_metric_is_on_the_dashboard() -> None:
    named = set(WORD.findall(" ".join(dashboard_queries())))
    ours = {name for name in exported() if name.startswith("fathom_")}
    bases = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name in ours}
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in named}
    assert {base for base in bases if base not in shown and f"{base}_total" not in shown} == set()


@needs_prometheus
def test_promtool_accepts_the_configuration_and_the_rules_fire_as_described() -> None:
    for check in (
        ["promtool", "check", "config", PROMETHEUS / "prometheus.yml"],
        ["promtool", "test", "rules", ROOT / "tests/deploy/rules_test.yml"],
    ):
        done = subprocess.run(check, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("amtool") is None, reason="the program amtool is not installed")
def test_amtool_accepts_the_example_for_the_alertmanager() -> None:
    command = ["amtool", "check-config", PROMETHEUS / "alertmanager.yml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_prometheus
def test_prometheus_scrapes_a_server_and_every_query_of_the_dashboard_returns_data(tmp_path: Path) -> None:
    with fathom_serve(tmp_path) as url, prometheus_of(url, tmp_path) as prometheus:

        def query(expression: str) -> list[object]:
            answer = httpx.get(f"{prometheus}/api/v1/query", params={"query": expression}).json()
            assert answer["status"] == "success", f"{expression}: {answer}"
            result: list[object] = answer["data"]["result"]
            return result

        eventually(lambda: query("fathom_build_info") != [], "the first scrape")
        until = time.monotonic() + 5  # several scrapes see traffic, or there are no rates
        while time.monotonic() < until:
            for steps in (1, 5, 40):
                httpx.post(f"{url}/v1/infer", json=exactly(steps)).raise_for_status()
            assert httpx.post(f"{url}/v1/infer", json={"input": 7}).status_code == 422
        ours = [filled(one) for one in dashboard_queries() if re.search(r"\b(fathom|process)_", one)]
        silent = [one for one in ours if not query(one)]
        assert not silent, f"no data for {silent}"
        groups = httpx.get(f"{prometheus}/api/v1/rules").json()["data"]["groups"]
        assert [rule["name"] for group in groups for rule in group["rules"] if rule["health"] == "err"] == []


def filled(query: str) -> str:
    """A dashboard's query with its variables set."""
    return re.sub(r"\$(job|instance|model)\b", ".*", query.replace("$__rate_interval", "10s"))


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
    shutil.copy(RULES, folder)
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
