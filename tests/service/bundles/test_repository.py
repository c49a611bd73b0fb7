"""Models that come and go: load, unload and reload while serving, whole or not at all."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from model.bundle import MANIFEST, Bundle, read_bundle
from model.codecs import CodecLimits, codec_of
from model.halting import HaltReason
from service.app import create_app
from service.bundles.opening import limits_of
from service.engine.messages import Finished, Submission, Trajectory
from service.engine.observer import Observer
from service.engine.served_model import ServedModel, State
from service.engine.ticket import Budget
from service.errors import StartupError
from service.fleet import Fleet
from service.http.keys import check_admin
from service.runners.runner import Landing
from service.settings import Settings, read_settings
from service.telemetry.metrics import Metrics
from tests.service.servers import (
    PATIENCE,
    CountingRunner,
    Running,
    chain,
    counting_bundle,
    eventually,
    uvicorn_running,
)

LOAD, UNLOAD = "/v2/repository/models/graph/load", "/v2/repository/models/graph/unload"


class BrokenRunner(CountingRunner):
    """Cannot take a step."""

    def land(self) -> list[Landing]:
        return [
            Landing(landing.flight, *[landing.logits] * 2, self._state, error=ValueError("no step"))
            for landing in super().land()
        ]


class Shelf:
    """A repository of counting models on disk, and the runners that were opened for them."""

    def __init__(self, folder: Path, **breaks: int) -> None:
        self.folder = folder
        self.breaks = breaks  # which rows break what is opened
        self.runners: list[CountingRunner] = []  # in the order in which they were opened
        self.may_open = threading.Event()  # cleared by a test that wants to hold a load
        self.may_open.set()
        self.fails: Exception | None = None  # what opening raises
        self.broken = False  # whether what is opened cannot take a step

    def put(self, label: str, version: str = "1", name: str = "graph", **changes: Any) -> Path:
        """A version whose sure answers have this label."""
        classes = [{"label": "no", "answer": False}, {"label": label, "answer": True}]
        manifest = counting_bundle(name, version, classes=classes, **changes).manifest
        folder = self.folder / name / version
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / "draft"
        draft.write_text(manifest.model_dump_json(exclude_none=True))
        draft.replace(folder / MANIFEST)
        return folder

    def open(self, bundle: Bundle, settings: Settings, observer: Observer, budget: Budget) -> ServedModel:
        """In place of open_model."""
        assert self.may_open.wait(PATIENCE), "a test forgot to let a load go"
        if self.fails is not None:
            raise self.fails
        runner = (BrokenRunner if self.broken else CountingRunner)(**self.breaks)
        self.runners.append(runner)
        codec = codec_of(bundle.manifest, CodecLimits())
        return ServedModel(bundle, codec, lambda: runner, limits_of(settings), observer, budget)

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have servers open what is on this shelf."""
        monkeypatch.setattr("service.bundles.opening.open_bundle", self.open)
        monkeypatch.setattr("service.bundles.repository.open_bundle", self.open)


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    shelf = Shelf(tmp_path / "bundles")
    shelf.patch(monkeypatch)
    shelf.put("first")
    return shelf


@contextmanager
def serving(shelf: Shelf, **given: object) -> Iterator[Running]:
    """A server over a shelf, on which anybody may load."""
    app = create_app(read_settings({"repository": shelf.folder, "drain_seconds": 0.1, **given}))
    app.dependency_overrides[check_admin] = lambda: None
    with uvicorn_running(app) as url, httpx.Client(base_url=url, timeout=PATIENCE) as client:
        eventually(lambda: client.get("/health/ready").status_code == 200)
        yield Running(client, app, shelf.runners[0])


def label(running: Running, model: str = "graph", edges: int = 2) -> str:
    answer = running.infer(chain(edges), model=model)
    assert answer.status_code == 200, answer.text
    return answer.json()["results"][0]["label"]


def index(running: Running, **body: Any) -> list[tuple[str, str, str]]:
    entries = running.client.post("/v2/repository/index", json=body).json()
    return [(entry["name"], entry["version"], entry["state"]) for entry in entries]


def gauge(running: Running, name: str = "graph") -> float | None:
    registry = running.app.state.service.metrics.registry
    return registry.get_sample_value("fathom_slot_occupancy", {"model": name})


def test_a_new_version_a_changed_one_and_one_that_is_gone(shelf: Shelf) -> None:
    with serving(shelf) as running:
        first = running.served
        shelf.put("second", "2")
        assert label(running) == "first"
        assert index(running) == [("graph", "1", "READY"), ("graph", "2", "UNAVAILABLE")]
        assert index(running, ready=True) == [("graph", "1", "READY")]
        answer = running.client.post(LOAD)
        assert (answer.status_code, answer.json()) == (200, {"name": "graph", "load": True})
        assert label(running) == "second"
        assert label(running, "graph@1") == "first"
        assert running.served is first, "what has not changed stays as it is"
        shelf.put("other", "1")
        shutil.rmtree(shelf.folder / "graph" / "2")
        running.client.post(LOAD)
        assert label(running) == "other"
        assert running.client.get("/v2/models/graph").json()["versions"] == ["1"]
        assert running.client.get("/v2/models/graph/versions/2").status_code == 404


def test_what_runs_finishes_on_the_version_of_before(shelf: Shelf) -> None:
    with serving(shelf) as running, ThreadPoolExecutor() as pool:
        running.runner.may_step.clear()
        old = pool.submit(label, running)
        running.runner.wait_until(taken=1)
        shelf.put("second")
        assert running.client.post(LOAD).status_code == 200, "it does not wait for what runs"
        assert label(running) == "second"
        assert not old.done()
        closed = threading.Event()
        running.runner.close = closed.set  # type: ignore[method-assign]
        running.runner.may_step.set()
        assert old.result(PATIENCE) == "first"
        assert closed.wait(PATIENCE), "the old engine has ended"
        assert label(running) == "second"


def test_requests_under_way_notice_nothing_of_many_reloads(shelf: Shelf) -> None:
    with serving(shelf) as running, ThreadPoolExecutor(4) as pool:
        over = threading.Event()

        def ask() -> set[int]:
            seen = set()
            with httpx.Client(base_url=running.client.base_url, timeout=PATIENCE) as client:
                while not over.is_set():
                    body = {"input": [chain(2)] * 8, "model": "graph"}
                    seen.add(client.post("/v1/infer", json=body).status_code)
            return seen

        asking = [pool.submit(ask) for _ in range(4)]
        for turn in range(10):
            shelf.put(f"turn {turn}")
            assert running.client.post(LOAD).status_code == 200
            assert label(running) == f"turn {turn}"
        over.set()
        assert set().union(*(one.result(PATIENCE) for one in asking)) == {200}


def test_a_worker_that_was_found_admits_what_is_submitted_right_after(shelf: Shelf) -> None:
    async def scenario() -> None:
        fleet, served = await started(shelf)
        with fleet.asking("graph") as found:
            assert fleet.replace("graph", []) == [served]
            leaving = asyncio.create_task(fleet.leave(served))
            await asyncio.sleep(0)
            assert found.health() is None
        await asyncio.wait_for(leaving, PATIENCE)
        assert found.health() is not None

    asyncio.run(scenario())


def damaged(shelf: Shelf) -> None:
    folder = shelf.put("second", files={"step.onnx": {"sha256": "0" * 64, "bytes": 3}})
    (folder / "step.onnx").write_bytes(b"abc")


def unreadable(shelf: Shelf) -> None:
    shelf.put("second")
    (shelf.folder / "graph" / "1" / MANIFEST).write_text("{")


def half_there(shelf: Shelf) -> None:
    shelf.put("second", "2")
    shelf.put("third", "3", files={"step.onnx": {"sha256": "0" * 64, "bytes": 3}})


def not_opened(shelf: Shelf) -> None:
    shelf.put("second")
    shelf.fails = StartupError("there is no such device")


def raising(shelf: Shelf) -> None:
    shelf.put("second")
    shelf.fails = KeyError("weights")


def not_stepping(shelf: Shelf) -> None:
    shelf.put("second")
    shelf.broken = True


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (damaged, "step.onnx: differs from what manifest.json vouches for"),
        (unreadable, "manifest.json: is not JSON"),
        (half_there, "step.onnx: missing, though manifest.json lists it"),
        (not_opened, "there is no such device"),
        (raising, "KeyError('weights')"),
        (not_stepping, "the model cannot take a step: ValueError('no step')"),
    ],
)
def test_a_bad_bundle_leaves_the_old_one_serving_and_says_why(shelf: Shelf, spoil: Any, why: str) -> None:
    with serving(shelf) as running:
        spoil(shelf)
        refused = running.client.post(LOAD)
        assert refused.status_code == 409
        assert refused.json()["error"].startswith("graph is not loaded: ")
        assert why in refused.json()["error"]
        assert label(running) == "first"
        assert running.client.get("/health/ready").status_code == 200
        entry = running.client.post("/v2/repository/index").json()[0]
        assert (entry["version"], entry["state"]) == ("1", "READY")
        assert why in entry["reason"]
        assert gauge(running) == 0, "only what serves is counted"
        shutil.rmtree(shelf.folder)
        shelf.put("at last")
        shelf.fails, shelf.broken = None, False
        assert running.client.post(LOAD).status_code == 200
        assert label(running) == "at last"
        assert running.client.post("/v2/repository/index").json()[0]["reason"] == ""


def test_an_unloaded_model_is_gone_and_what_runs_on_it_finishes(shelf: Shelf) -> None:
    shelf.put("second", name="other")
    with serving(shelf) as running, ThreadPoolExecutor() as pool:
        running.runner.may_step.clear()
        old = pool.submit(label, running)
        running.runner.wait_until(taken=1)
        answer = running.client.post(UNLOAD, json={"parameters": {"unload_dependents": False}})
        assert (answer.status_code, answer.json()) == (200, {"name": "graph", "unload": True})
        for refused in (
            running.infer(chain(2), model="graph"),
            running.client.get("/v2/models/graph/ready"),
            running.client.post(UNLOAD),
        ):
            assert refused.status_code == 404
        assert running.client.get("/health/ready").status_code == 200
        assert running.infer(chain(2)).json()["model"] == "other", "now it need not be named"
        running.runner.may_step.set()
        assert old.result(PATIENCE) == "first"
        eventually(lambda: gauge(running) is None)
        assert running.metric("fathom_halt_total", model="graph", reason="halted") == 1, "counters stay"
        assert gauge(running, "other") == 0
        running.client.post("/v2/repository/models/other/unload")
        assert running.client.get("/health/ready").status_code == 200
        assert running.infer(chain(2)).json()["error"]["message"].startswith("no model is served")
        assert running.client.get("/v1/models").json() == {"models": []}
        assert running.client.get("/openapi.json").status_code == 200
        assert running.client.post(LOAD).status_code == 200
        assert label(running) == "first"


def test_a_model_that_is_being_loaded_is_not_ready_and_the_others_answer(shelf: Shelf) -> None:
    with serving(shelf) as running, ThreadPoolExecutor() as pool:
        shelf.put("second", name="other")
        assert running.client.get("/v2/models/other/ready").status_code == 404
        shelf.may_open.clear()
        loading = pool.submit(running.client.post, "/v2/repository/models/other/load")
        eventually(lambda: ("other", "1", "LOADING") in index(running))
        ready = running.client.get("/v2/models/other/ready")
        assert (ready.status_code, ready.json()) == (503, {"error": "other is being loaded"})
        assert label(running) == "first"
        assert running.client.get("/v2/health/ready").status_code == 200
        shelf.may_open.set()
        assert loading.result(PATIENCE).status_code == 200
        assert label(running, "other") == "second"


def test_an_engine_that_has_failed_for_good_comes_back_when_it_is_loaded(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(shelf) as running:
        failed = running.served
        state = property(lambda served: State.FAILED if served is failed else State.READY)
        monkeypatch.setattr(ServedModel, "state", state)
        assert running.client.get("/v2/health/live").status_code == 503
        assert running.client.post(LOAD).status_code == 200
        assert running.client.get("/v2/health/live").status_code == 200
        assert label(running) == "first"


def test_a_poll_loads_what_has_changed_and_leaves_alone_what_was_unloaded(shelf: Shelf) -> None:
    with serving(shelf, poll_seconds=0.01) as running:
        shelf.put("second", "2")
        eventually(lambda: label(running) == "second")
        shelf.put("new", name="other")
        eventually(lambda: ("other", "1", "READY") in index(running))
        running.client.post("/v2/repository/models/other/unload")
        shelf.put("newer", name="other")
        shelf.put("third", "3")
        eventually(lambda: label(running) == "third")
        assert running.client.get("/v2/models/other/ready").status_code == 404
        opened = len(shelf.runners)
        assert opened == 4, "what has not changed is not opened again"


def test_a_poll_tells_once_of_a_bad_bundle_and_tries_again(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(shelf, poll_seconds=0.01) as running:
        entry = {"sha256": hashlib.sha256(b"abc").hexdigest(), "bytes": 3}
        folder = shelf.put("second", "2", files={"notes.txt": entry})
        eventually(lambda: "notes.txt: missing" in caplog.text)
        seen = [running.client.post("/v2/repository/index").json()[0]["reason"] for _ in range(20)]
        assert "notes.txt: missing" in seen[-1]
        assert label(running) == "first"
        (folder / "draft").write_bytes(b"abc")
        (folder / "draft").replace(folder / "notes.txt")
        eventually(lambda: label(running) == "second")
        assert caplog.text.count("notes.txt") == 1


def test_load_and_unload_want_a_key_for_administration(shelf: Shelf) -> None:
    settings = {"repository": shelf.folder, "api_keys": "user", "admin_keys": "root"}
    app = create_app(read_settings(settings))
    with uvicorn_running(app) as url, httpx.Client(base_url=url, timeout=PATIENCE) as client:
        eventually(lambda: client.get("/health/ready").status_code == 200)
        for path in (LOAD, UNLOAD):
            for key, status in (("wrong", 401), ("user", 403)):
                refused = client.post(path, headers={"Authorization": f"Bearer {key}"})
                assert refused.status_code == status
                assert list(refused.json()) == ["error"]
        assert client.post("/v2/repository/index").status_code == 401
        assert (
            client.post("/v2/repository/index", headers={"Authorization": "Bearer user"}).status_code == 200
        )
        assert client.post(LOAD, headers={"Authorization": "Bearer root"}).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        (LOAD, {"parameters": {"config": "{}"}}, 422, "parameters.config: a model is loaded as it lies"),
        (LOAD, {"parameters": []}, 422, "parameters: must be an object"),
        (LOAD, {"model": "x"}, 422, "model: is an unknown field; known here: parameters"),
        (LOAD, [], 422, "the body must be an object"),
        (
            UNLOAD,
            {"parameters": {"force": True}},
            422,
            "parameters.force: is an unknown field",
        ),
        ("/v2/repository/index", {"ready": 1}, 422, "ready: must be true or false"),
        ("/v2/repository/models/none/load", {}, 404, "model: there is no model 'none' in the repository"),
        ("/v2/repository/models/..%2Fgraph/load", {}, 404, ""),
    ],
)
def test_what_is_wrong_with_a_request_is_said(
    shelf: Shelf, path: str, body: Any, status: int, said: str
) -> None:
    with serving(shelf) as running:
        refused = running.client.post(path, json=body)
        assert (refused.status_code, list(refused.json())) == (status, ["error"])
        assert refused.json()["error"].startswith(said)
        assert label(running) == "first"


def test_a_server_that_stops_does_not_wait_forever_for_an_old_version(shelf: Shelf) -> None:
    async def scenario() -> None:
        fleet, served = await started(shelf)
        row = served.layout.row(served.codec.encode(chain(2), "input"))
        ticket = served.submit(Submission((Trajectory(row, max_steps=10**6),), arrived=0.0))
        fleet.replace("graph", [])
        leaving = asyncio.create_task(fleet.leave(served))
        await asyncio.sleep(0)
        await asyncio.wait_for(fleet.shut_down(0.01), PATIENCE)
        await asyncio.wait_for(leaving, PATIENCE)
        (end,) = [event async for events in ticket for event in events]
        assert isinstance(end, Finished)
        assert end.reason is HaltReason.CANCELLED
        assert fleet.hanging == []

    asyncio.run(scenario())


async def started(shelf: Shelf) -> tuple[Fleet, ServedModel]:
    """A fleet of the shelf's first model, without a server."""
    settings = read_settings({"repository": shelf.folder})
    budget = Budget(2**20, 2**20)
    observer = Metrics(settings).of_model("graph", 1)
    served = shelf.open(read_bundle(shelf.folder / "graph" / "1"), settings, observer, budget)
    fleet = Fleet([served], budget)
    fleet.start()
    await fleet.started()
    return fleet, served
