"""The Ray Serve application on a real local cluster: `serve run`, two replicas, one of them killed."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import yaml

from service.settings import Settings
from tests.deploy.processes import ROOT, Body, chain, eventually, exactly, running

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install '.[ray]'")

DEPTHS = (1, 3, 9, 40, 300, 2000)
REQUESTS = 60
AT_ONCE = 8
ATTEMPTS = 6
START_SECONDS = 180  # Ray, its controller, its proxy and the replicas, one after the other
REPLICA = b"ray::ServeReplica:fathom"


@contextmanager
def serve_run(**arguments: object) -> Iterator[str]:
    """`serve run` with a configuration file, on loopback; gives the address of Ray's proxy."""
    with socket.create_server(("127.0.0.1", 0)) as found_free:
        port = found_free.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # Ray's sockets need a short path
    application = {
        "name": "fathom",
        "import_path": "deploy.ray_app:app",
        "args": {"cpus": 0.5, "settings": {"repository": str(ROOT / "bundles")}, **arguments},
    }
    config = {"http_options": {"host": "127.0.0.1", "port": port}, "applications": [application]}
    (folder / "serve.yaml").write_text(json.dumps(config))  # JSON is YAML
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", str(folder))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")  # or Ray leaves a token in the home of whoever runs this
        command = [Path(sys.executable).parent / "serve", "run", str(folder / "serve.yaml")]
        try:
            with running(command, folder / "log") as process:
                url = f"http://127.0.0.1:{port}"
                try:
                    eventually(
                        lambda: httpx.get(f"{url}/health/ready").is_success, "a replica", START_SECONDS
                    )
                    yield url
                finally:
                    process.send_signal(signal.SIGINT)  # as Ctrl-C: replicas and cluster end
                    process.wait(START_SECONDS)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def replicas_of(ancestor: int) -> list[int]:
    """Process ids of the replicas whose cluster a process started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if not (folder / "cmdline").read_bytes().startswith(REPLICA):
                continue
            pid = int(folder.name)
            while pid > 1 and pid != ancestor:
                pid = int((Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has just ended
            continue
        if pid == ancestor:
            found.append(int(folder.name))
    return found


async def think(client: httpx.AsyncClient, steps: int) -> str:
    """Stream a request; says how that ended: `done`, or what came instead."""
    try:
        async with client.stream("POST", "/v1/infer", json=exactly(steps, stream=True)) as response:
            if response.status_code != 200:
                return str(response.status_code)
            lines = [line async for line in response.aiter_lines()]
    except httpx.TransportError as error:
        return type(error).__name__
    events = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    if events[-1:] != ["done"]:
        return "cut off"
    answer = json.loads(lines[-2].removeprefix("data: "))
    assert events.count("step") == steps, "a stream that ends well has every step"
    assert answer["results"][0]["steps"] == steps
    return "done"


async def think_until_done(client: httpx.AsyncClient, steps: int, endings: Counter[str]) -> None:
    """What a sound client does: a request that was not answered is sent again."""
    for attempt in range(ATTEMPTS):
        ending = await think(client, steps)
        endings[ending] += 1
        if ending == "done":
            return
        await asyncio.sleep(0.5 * attempt)
    pytest.fail(f"a request of {steps} steps was lost for good: {endings}")


async def lose_a_replica(url: str) -> Counter[str]:
    """Mixed-depth streams, during which one replica is killed; counts how every attempt ended."""
    endings: Counter[str] = Counter()
    gate = asyncio.Semaphore(AT_ONCE)
    started = 0

    async def one(client: httpx.AsyncClient, steps: int) -> None:
        nonlocal started
        async with gate:
            started += 1
            if started == REQUESTS // 3:
                await asyncio.sleep(0.1)  # the other seven are in the middle of something
                os.kill(replicas_of(os.getpid())[0], signal.SIGKILL)
            await think_until_done(client, steps, endings)

    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        await asyncio.gather(*(one(client, DEPTHS[number % len(DEPTHS)]) for number in range(REQUESTS)))
    return endings


def test_a_killed_replica_loses_no_request_that_is_sent_again() -> None:
    with serve_run(min_replicas=2, max_replicas=2) as url:
        eventually(lambda: len(replicas_of(os.getpid())) == 2, "two replicas", START_SECONDS)
        endings = asyncio.run(lose_a_replica(url))
        assert endings["done"] == REQUESTS
        assert endings.total() < REQUESTS + 2 * AT_ONCE, f"the survivor failed requests, too: {endings}"
        eventually(lambda: len(replicas_of(os.getpid())) == 2, "a new replica", START_SECONDS)


def two_versions(folder: Path) -> Path:
    """A repository with the shipped bundle as version 1 and, under another number, as version 2."""
    for version in ("1", "2"):
        bundle = folder / "graph" / version
        shutil.copytree(ROOT / "bundles/graph/1", bundle)
        manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
        (bundle / "manifest.json").write_text(json.dumps(manifest | {"version": version}))
    return folder


def test_a_replica_opens_models_as_they_are_asked_for_and_keeps_the_last(tmp_path: Path) -> None:
    settings = {"repository": str(two_versions(tmp_path))}
    with serve_run(models_per_replica=1, settings=settings) as url:

        def ask(name: str, header: bool) -> httpx.Response:
            body: Body = {"model": name, "input": chain(2)}
            headers = {"serve_multiplexed_model_id": name} if header else {}
            return httpx.post(f"{url}/v1/infer", json=body, headers=headers, timeout=60)

        def listed() -> dict[str, str]:
            models = httpx.get(f"{url}/v1/models").json()["models"]
            return {f"{model['name']}@{model['version']}": model["status"] for model in models}

        waits = "opened when it is asked for"
        assert listed() == {"graph@1": waits, "graph@2": waits}
        for name, version, header in (("graph@1", 1, True), ("graph@2", 2, False), ("graph@1", 1, False)):
            assert ask(name, header).json()["results"][0]["answer"] is True
            assert listed() == {f"graph@{version}": "ready", f"graph@{3 - version}": waits}
        for header in (False, True):
            assert ask("graph", header).json()["version"] == "2", "the newest of the repository"
            assert listed() == {"graph@1": waits, "graph@2": "ready"}
        assert httpx.get(f"{url}/v2/models/graph/versions/1", timeout=60).json()["name"] == "graph"
        assert listed() == {"graph@1": "ready", "graph@2": waits}
        missing = ask("../graph", header=False)
        assert missing.status_code == 404
        assert missing.json()["error"]["code"] == "unknown_model"


@pytest.mark.filterwarnings("ignore")  # importing Ray warns of what it does to pydantic
def test_the_manifest_for_kubernetes_holds_what_ray_and_the_application_accept() -> None:
    from ray.serve.schema import ServeDeploySchema

    from deploy.ray_app import ClusterSettings

    manifest = yaml.safe_load((ROOT / "deploy/kubernetes/ray/rayservice.yaml").read_text(encoding="utf-8"))
    config = ServeDeploySchema.model_validate(yaml.safe_load(manifest["spec"]["serveConfigV2"]))
    (application,) = config.applications
    assert application.import_path == "deploy.ray_app:app"
    settings = ClusterSettings.model_validate(application.args)
    assert set(settings.settings) <= set(Settings.model_fields)
    workers = manifest["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert sum(group["maxReplicas"] for group in workers) >= settings.max_replicas * settings.gpus


@pytest.mark.filterwarnings("ignore")  # importing Ray warns of what it does to pydantic
def test_a_replica_computes_on_as_many_threads_as_ray_counts_cores_for_it() -> None:
    from deploy.ray_app import ClusterSettings, service_settings

    assert service_settings(ClusterSettings(cpus=1.5)).cpu_threads == 2
    assert service_settings(ClusterSettings(cpus=4, settings={"cpu_threads": 3})).cpu_threads == 3
    assert service_settings(ClusterSettings(cpus=0)).cpu_threads == 0, "Ray counts none: as found"


@pytest.mark.filterwarnings("ignore")  # importing Ray warns of what it does to pydantic
def test_replicas_are_wanted_for_steps_and_not_for_requests() -> None:
    from deploy.ray_app import ScaleOnSteps

    def wanted(occupancy: dict[str, float], waiting: dict[str, float]) -> float:
        load: Any = SimpleNamespace(
            current_num_replicas=3, aggregated_metrics={"occupancy": occupancy, "waiting_steps": waiting}
        )
        return ScaleOnSteps(queue_target=1000, occupancy_target=0.5)(load)[0]

    assert wanted({}, {}) == 3, "nobody has reported: stay"
    assert wanted({"a": 0.5, "b": 0.5}, {"a": 0, "b": 0}) == pytest.approx(2)
    assert wanted({"a": 1.0, "b": 1.0}, {"a": 5000, "b": 1000}) == pytest.approx(10)
    assert wanted({"a": 0.1}, {"a": 0}) < 1


@pytest.mark.filterwarnings("ignore")  # importing Ray warns of what it does to pydantic
def test_a_replica_is_as_full_as_the_fullest_of_its_models() -> None:
    from deploy.ray_app import load_of

    def model(running: int, waiting_steps: int = 0) -> Any:
        return SimpleNamespace(running=running, waiting_steps=waiting_steps, limits=SimpleNamespace(slots=64))

    assert load_of([model(64, 900), model(0), model(16, 100)]) == {"occupancy": 1, "waiting_steps": 1000}
    assert load_of([]) == {"occupancy": 0, "waiting_steps": 0}
