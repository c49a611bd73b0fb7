"""The threads that compute steps: as many as there are cores, for all models together."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from model.bundle import read_bundle
from model.codecs import CodecLimits, codec_of
from model.row import Arrays, Layout
from service.engine.engine import Engine, EngineLimits
from service.engine.messages import Submission, Trajectory
from service.runners.onnx import OnnxRunner
from service.runners.open import open_runner
from service.runners.threads import StepThreads, cores, step_threads
from tests.service.fakes import FakeObserver

PATIENCE = 20


class Meter:
    """How many are at work at the same time, at most."""

    def __init__(self) -> None:
        self.most = self._now = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._now -= 1


def test_three_models_at_once_compute_on_no_more_threads_than_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    meter, sound_step = Meter(), OnnxRunner._run_step

    def step(self: OnnxRunner, inputs: Arrays) -> Arrays:
        with meter:
            time.sleep(1e-3)
            return sound_step(self, inputs)

    monkeypatch.setattr(OnnxRunner, "_run_step", step)

    def think(folder: str) -> None:
        bundle = read_bundle(Path("bundles") / folder)
        codec = codec_of(bundle.manifest, CodecLimits())
        row = Layout(bundle.manifest).row(codec.encode(codec.example, "input"))
        runner = open_runner(bundle, "cpu", "onnx", 32, cpu_threads=2)
        assert runner.workers == 2
        engine = Engine(bundle.manifest, runner, EngineLimits(32), FakeObserver())
        engine.submit(Submission((Trajectory(row, 20),) * 64, time.monotonic()))
        ends = 0
        while not engine.idle:
            ends += sum(event.logits is not None for _, event in engine.step())
        assert ends == 64

    with ThreadPoolExecutor(3) as models:
        for thought in [models.submit(think, name) for name in ("graph/1", "logic/2", "text/1")]:
            thought.result(60)
    assert meter.most == 2


def test_who_waits_for_a_thread_is_not_passed_by_one_who_computes_on_its_own() -> None:
    threads, may_end, ended = StepThreads(1), threading.Event(), threading.Event()
    assert threads.begin_here()
    threads.submit(lambda: may_end.wait(PATIENCE), lambda _: ended.set())
    threads.end()
    assert not threads.begin_here(), "the one who waits is next"
    may_end.set()
    assert ended.wait(PATIENCE)
    assert threads.begin_here(), "a thread is free before anybody hears of what it did"


@pytest.mark.parametrize(
    ("listed", "files", "share"),
    [
        ("0::/", {"cpu.max": "150000 100000"}, 2),
        ("0::/", {"cpu.max": "max 100000"}, None),
        ("0::/", {"cpu.max": "5000 100000"}, 1),
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000"}, 3),
        ("0::/host/path", {"cpu.max": "100000 100000"}, 1),
        (
            "4:cpu,cpuacct:/a\n0::/",
            {"cpu/a/cpu.cfs_quota_us": "250000\n", "cpu/a/cpu.cfs_period_us": "100000\n"},
            3,
        ),
        ("1:cpu:/a", {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ("1:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("4:cpuset:/", {"cpu.max": "100000 100000"}, None),
        ("0::/", {"cpu.max": "100000"}, None),
        ("", {}, None),
    ],
)
def test_the_cores_of_a_container_are_its_quota_rounded_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: str, files: dict[str, str], share: int | None
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    groups = tmp_path / "groups"
    groups.write_text(listed)
    assert cores(groups, tmp_path) == (share or 64)


def test_a_quota_larger_than_the_machine_is_the_machine(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("100000000 100000")
    (tmp_path / "groups").write_text("0::/")
    assert cores(tmp_path / "groups", tmp_path) == cores(tmp_path / "nothing", tmp_path)


def test_two_who_ask_for_the_threads_at_once_get_the_same() -> None:
    at_once = threading.Barrier(8)

    def ask() -> StepThreads:
        at_once.wait(10)
        return step_threads(5)

    with ThreadPoolExecutor(8) as askers:
        found = [asked.result(10) for asked in [askers.submit(ask) for _ in range(8)]]
    assert len({id(threads) for threads in found}) == 1
