"""What kustomize makes of deploy/kubernetes: valid resources, closed doors, selectors that agree."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from typing import Any

import pytest
import yaml

from service.settings import Settings, variable_of
from tests.deploy.processes import ROOT

FOLDER = ROOT / "deploy/kubernetes"
RULES = FOLDER / "components/monitoring/prometheusrule.yaml"
VERSION = "1.37"  # of the schemas
OF_OPERATORS = ("ServiceMonitor", "PodMonitor", "PrometheusRule", "ScaledObject", "RayService")
SERVING = ("base", "overlays/production", "overlays/gpu")
Resource = dict[str, Any]
needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


@cache
def rendered(place: str) -> dict[str, Resource]:
    """The resources of a kustomization, by kind: no kind is there twice."""
    command = ["kubectl", "kustomize", str(FOLDER / place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    resources = list(yaml.safe_load_all(done.stdout))
    by_kind = {resource["kind"]: resource for resource in resources}
    assert len(by_kind) == len(resources)
    return by_kind


def as_resource() -> str:
    """deploy/prometheus/rules.yml as the resource that the Prometheus operator wants."""
    rules = yaml.safe_load((ROOT / "deploy/prometheus/rules.yml").read_text(encoding="utf-8"))
    resource = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "fathom", "labels": {"release": "prometheus"}},
        "spec": rules,
    }
    head = "# Written by `python -m tests.deploy.test_kubernetes` from deploy/prometheus/rules.yml.\n"
    return head + yaml.safe_dump(resource, sort_keys=False, width=110)


def pods(place: str) -> list[Resource]:
    """The pod templates of a kustomization."""
    resources = rendered(place)
    if place != "ray":
        return [resources["Deployment"]["spec"]["template"]]
    cluster = resources["RayService"]["spec"]["rayClusterConfig"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"] for group in groups]


def test_the_rules_of_the_operator_are_those_of_prometheus() -> None:
    assert RULES.read_text(encoding="utf-8") == as_resource(), "run: python -m tests.deploy.test_kubernetes"


@needs_kubectl
@pytest.mark.parametrize("place", [*SERVING, "ray"])
def test_every_resource_is_valid_by_the_schemas_of_kubernetes(place: str) -> None:
    validate = pytest.importorskip("kubernetes_validate").validate
    ours = [resource for kind, resource in rendered(place).items() if kind not in OF_OPERATORS]
    templates = [
        {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "pod"}, "template": template}
        for template in pods(place)
    ]
    for resource in (*ours, *templates):
        validate(resource, VERSION, strict=True)


@needs_kubectl
@pytest.mark.parametrize("place", [*SERVING, "ray"])
def test_pods_have_no_privileges_and_no_door_is_open_to_all(place: str) -> None:
    for template in pods(place):
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 10001, "the user of the image"
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["enableServiceLinks"] is False, "a Service named fathom would set FATHOM_PORT"
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            keys = {variable["name"]: variable for variable in container["env"]}["FATHOM_API_KEYS"]
            assert keys["valueFrom"]["secretKeyRef"] == {"name": "fathom", "key": "api-keys"}
        policy = rendered(place)["NetworkPolicy"]["spec"]
        assert policy["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        assert all(rule["from"] for rule in policy["ingress"])


@needs_kubectl
@pytest.mark.parametrize("place", SERVING)
def test_every_variable_is_a_setting_and_a_pod_is_given_longer_to_end_than_a_drain(place: str) -> None:
    (template,) = pods(place)
    (container,) = template["spec"]["containers"]
    assert {one["name"] for one in container["env"]} <= {variable_of(name) for name in Settings.model_fields}
    drain = Settings.model_fields["drain_seconds"].get_default()
    assert template["spec"]["terminationGracePeriodSeconds"] >= drain + 5 + 10
    assert {one["topologyKey"] for one in template["spec"]["topologySpreadConstraints"]} == {
        "topology.kubernetes.io/zone",
        "kubernetes.io/hostname",
    }


@needs_kubectl
@pytest.mark.parametrize("place", SERVING[1:])
def test_an_overlay_is_watched_scaled_and_reached_from_outside_without_its_metrics(place: str) -> None:
    resources = rendered(place)
    service = resources["Service"]
    monitor = resources["ServiceMonitor"]["spec"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    assert resources["ScaledObject"]["spec"]["scaleTargetRef"] == {"name": "fathom"}
    assert "replicas" not in resources["Deployment"]["spec"], "every apply would undo the scaling"
    paths = resources["Ingress"]["spec"]["rules"][0]["http"]["paths"]
    assert {path["path"] for path in paths} == {"/v1", "/v2"}
    assert {resource["metadata"]["namespace"] for resource in resources.values()} == {"fathom"}


@needs_kubectl
def test_the_gpu_overlay_asks_for_a_gpu_and_never_falls_back() -> None:
    (container,) = pods("overlays/gpu")[0]["spec"]["containers"]
    assert container["image"] == "fathom:gpu"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {"name": "FATHOM_DEVICE", "value": "cuda"} in container["env"]


@needs_kubectl
def test_ray_wants_a_token_and_only_its_own_pods_and_its_operator_reach_its_ports() -> None:
    resources = rendered("ray")
    assert resources["RayService"]["spec"]["rayClusterConfig"]["authOptions"] == {"mode": "token"}
    assert "RAY_AUTH_MODE" not in yaml.safe_dump(resources["RayService"]), "the operator sets it"
    for rule in resources["NetworkPolicy"]["spec"]["ingress"]:
        ports = {port["port"] for port in rule.get("ports", [])}
        selected = [source.get("podSelector", {}).get("matchLabels", {}) for source in rule["from"]]
        if not ports:
            assert selected == [{"app.kubernetes.io/name": "fathom-ray"}]
        if 8265 in ports:
            assert selected == [{"app.kubernetes.io/name": "kuberay-operator"}]


if __name__ == "__main__":
    RULES.write_text(as_resource(), encoding="utf-8")
