"""Real servers for the HTTP tests: uvicorn on a free port, in a thread, over a model without weights.

The model answers graph questions by counting: a row becomes "reachable" and sure of it at the step
whose number is the graph's number of edges. Which rows fail, and when the engine may step, is up to
the test.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn
from fastapi import FastAPI

from model.bundle import Bundle
from model.codecs import CodecLimits, Tensors, codec_of
from model.manifest import Manifest
from model.row import Bucket, Row
from service.app import create_app
from service.bundles.opening import budget_of, limits_of
from service.engine.served_model import ServedModel
from service.fleet import Fleet
from service.http.protocol import configuration
from service.runners.computing import Computing
from service.runners.runner import Batch, Carry, Course, Flight, Landing, View, failed
from service.settings import Settings, read_settings
from service.telemetry.metrics import Metrics

PATIENCE = 60  # seconds until a test gives up on something that should have happened
SCORES = ("confidence", "entropy", "kl", "argmax_stability")
WIDTH = 4
Body = dict[str, Any]


def chain(edges: int, **more: object) -> Body:
    """0 -> 1 -> ... -> edges: the counting model needs `edges` steps for it."""
    steps = [[node, node + 1] for node in range(edges)]
    return {"edges": steps, "source": 0, "target": edges, **more}


def counting_bundle(name: str = "graph", version: str = "1", **changes: object) -> Bundle:
    """The manifest of the counting model, with changes at its top level."""
    content = {
        "name": name,
        "version": version,
        "task": "graph",
        "codec": {"name": "graph"},
        "classes": [{"label": "unreachable", "answer": False}, {"label": "reachable", "answer": True}],
        "inputs": [
            {"name": "roles", "dtype": "int64", "shape": ["B", "N"]},
            {"name": "adjacency", "dtype": "bool", "shape": ["B", "N", "N"]},
            {"name": "mask", "dtype": "bool", "shape": ["B", "N"]},
        ],
        "state": [{"name": "state", "dtype": "float32", "shape": ["B", "N", WIDTH]}],
        "logits": {"name": "logits", "dtype": "float32", "shape": ["B", 2]},
        "scores": SCORES,
        "axes": {"N": {"max": 64}},
        "mask": "mask",
        "steps": {"default": 16, "limit": 1_000_000},
        "halting": {"criterion": "confidence", "threshold": 0.9, "min_steps": 2},
        "files": {},
    }
    return Bundle(Path(name), Manifest.model_validate(content | changes))


class CountingRunner:
    """Counts steps per row. A row of `nan_nodes` nodes breaks at step 2, one of `failing_nodes` raises."""

    backend = "fake"
    device = "cpu"
    workers = room = 1
    lean = False
    ahead = False
    bursts = False
    computing = Computing()

    def __init__(self, nan_nodes: int = -1, failing_nodes: int = -1) -> None:
        self.nan_nodes, self.failing_nodes = nan_nodes, failing_nodes
        self.may_step = threading.Event()  # cleared by a test that wants to hold the engine
        self.may_step.set()
        self.pace = 0.0  # seconds per step, for tests that must see a request in mid-flight
        self._rows: dict[int, Row] = {}
        self._depths: dict[int, int] = {}
        self._launched: list[tuple[Flight, Batch]] = []
        self._next = 0
        self._changed = threading.Condition()

    def wait_until(self, taken: int) -> None:
        """Wait until exactly so many slots are taken."""
        with self._changed:
            seen = self._changed.wait_for(lambda: len(self._rows) == taken, PATIENCE)
        assert seen, f"{len(self._rows)} slots are taken, not {taken}"

    def rows_per_batch(self, bucket: Bucket) -> int:
        return 4

    def cost(self, bucket: Bucket) -> float:
        return 1e-3

    def put(self, slot: int, carry: Carry) -> None:
        with self._changed:
            self._rows[slot], self._depths[slot] = carry.row, carry.depth
            self._changed.notify_all()

    def embed(self, slot: int) -> None:
        assert slot in self._rows, f"slot {slot} is empty"

    def take(self, slot: int) -> Carry:
        state = np.zeros((len(self._rows[slot].tensors["mask"]), WIDTH), np.float32)  # nobody looks at it
        carry = Carry(self._rows[slot], self._depths[slot], [state])
        self.release(slot)
        return carry

    def release(self, slot: int) -> None:
        with self._changed:
            self._rows.pop(slot, None)
            self._changed.notify_all()

    def launch(
        self, batch: Batch, shown: Sequence[int], lean: bool = False, course: Course | None = None
    ) -> Flight:
        self._next += 1
        self._launched.append((self._next, batch))
        return self._next

    def land(self) -> list[Landing]:
        assert self.may_step.wait(PATIENCE), "a test forgot to let the engine go"
        time.sleep(self.pace)
        launched, self._launched = self._launched, []
        return [self._step(*launch) for launch in launched]

    def wake(self) -> None:
        pass

    def _step(self, flight: Flight, batch: Batch) -> Landing:
        logits, scores = [], []
        for slot in batch:
            self._depths[slot] += 1
            adjacency = self._rows[slot].tensors["adjacency"]
            sure = self._depths[slot] >= adjacency.sum()
            if len(adjacency) == self.failing_nodes:
                return failed(flight, RuntimeError("this graph cannot run"))
            broken = len(adjacency) == self.nan_nodes and self._depths[slot] >= 2
            logits.append([np.nan if broken else 0.0, 3.0 if sure else -3.0])
            scores.append([1.0 if sure else 0.5, 0.1, np.nan if self._depths[slot] == 1 else 0.0, 0.0])
        return Landing(flight, np.array(logits, np.float32), np.array(scores, np.float32), self._state)

    def _state(self, slot: int, view: View) -> Tensors:
        """Row i of the state is i + depth / 8 throughout."""
        tokens = len(self._rows[slot].tensors["mask"])
        column = np.arange(tokens, dtype=np.float32)[:, None] + self._depths[slot] / 8
        return view.of({"state": np.broadcast_to(column, (tokens, WIDTH)).astype(np.float32)})

    def close(self) -> None:
        self.may_step.set()
        with self._changed:
            self._rows.clear()
            self._changed.notify_all()


@dataclass
class Running:
    """A server that runs, a client for it, and the model behind it."""

    client: httpx.Client
    app: FastAPI
    runner: CountingRunner

    @property
    def served(self) -> ServedModel:
        fleet: Fleet = self.app.state.service.fleet
        return fleet.models[0]

    def infer(self, problem: object, **terms: object) -> httpx.Response:
        return self.client.post("/v1/infer", json={"input": problem, **terms})

    def metric(self, name: str, **labels: str) -> float:
        return self.app.state.service.metrics.registry.get_sample_value(name, labels) or 0.0


def eventually(holds: Callable[[], bool]) -> None:
    """Wait for what another process or thread does without telling."""
    until = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < until, "it never came about"
        time.sleep(0.005)


def counting_app(bundles: Sequence[Bundle], runner: CountingRunner, settings: Settings) -> FastAPI:
    """An application over the counting model; its first bundle has `runner`, others runners of their own."""

    def opener(settings: Settings, metrics: Metrics) -> Fleet:
        limits = CodecLimits(settings.max_nodes, settings.max_edges)
        budget = budget_of(settings)
        models = []
        for place, bundle in enumerate(bundles):
            own = runner if place == 0 else CountingRunner()
            observer = metrics.of_model(bundle.manifest.name, settings.slots)
            codec = codec_of(bundle.manifest, limits, settings.codecs)
            models.append(
                ServedModel(
                    bundle, codec, partial(lambda own: own, own), limits_of(settings), observer, budget
                )
            )
        return Fleet(models, budget)

    return create_app(settings, opener)


@contextmanager
def serving(
    *bundles: Bundle, runner: CountingRunner | None = None, wait_for_ready: bool = True, **given: object
) -> Iterator[Running]:
    """A server over the counting model, with settings as given."""
    runner = runner or CountingRunner()
    settings = read_settings({"drain_seconds": 0.1, "queue_seconds": 10**6, "allowed_hosts": "*", **given})
    app = counting_app(bundles or [counting_bundle()], runner, settings)
    with uvicorn_running(app) as url, httpx.Client(base_url=url, timeout=PATIENCE) as client:
        if wait_for_ready:
            eventually(lambda: client.get("/health/ready").status_code == 200)
        yield Running(client, app, runner)


def graph_alone(folder: Path) -> Path:
    """A repository with the shipped graph model only, which opens sooner than all of them."""
    shutil.copytree("bundles/graph/1", folder / "bundles" / "graph" / "1")
    return folder / "bundles"


@contextmanager
def shipped_running(repository: Path = Path("bundles"), **given: object) -> Iterator[httpx.Client]:
    """The shipped bundles, or others, behind a real server that is ready, and a client for it."""
    with (
        uvicorn_running(create_app(read_settings({"repository": repository, **given}))) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        eventually(lambda: client.get("/health/ready").status_code == 200)
        yield client


@contextmanager
def uvicorn_running(app: FastAPI, loop: str = "auto") -> Iterator[str]:
    """uvicorn in a thread on a free port; gives its address."""
    started = threading.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            started.set()

    server = Server(configuration(app, port=0, loop=loop, timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, name="uvicorn")
    thread.start()
    assert started.wait(PATIENCE), "the server did not start"
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive(), "the server did not stop"


def events(response: httpx.Response) -> Iterator[tuple[str, Body]]:
    """The events of a stream as they come; comments are ("ping", {})."""
    name = ""
    for line in response.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))
        elif line.startswith(": "):
            yield line.removeprefix(": "), {}
