"""What goes wrong on a device: whom it costs, and who stays; on torch's CPU device."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.bundle import Bundle, read_bundle
from model.codecs import CodecLimits, codec_of
from model.row import Row
from service.engine.engine import Engine, EngineLimits
from service.engine.messages import Finished, Submission, Trajectory
from service.engine.served_model import ServedModel, State
from service.engine.ticket import Budget
from service.errors import StartupError
from service.fleet import Fleet
from service.runners.device.lane import Lane
from service.runners.device.program import SCRIPTED, Program, load_scripted
from service.runners.device.runner import DeviceRunner
from service.runners.device.tables import Table
from service.runners.runner import Carry, NotEmbedded
from tests.service.fakes import FakeObserver
from tests.service.runners.test_device import (
    SLOTS,
    Captured,
    assert_same,
    device_runner,
    draw_problem,
    of_short_problems,
    told,
)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return read_bundle(Path("bundles/graph/1"))


def steps_raise(monkeypatch: pytest.MonkeyPatch, error: Exception, now: Callable[[], bool]) -> None:
    """Let steps fail whenever `now` says so."""
    step = Table._step

    def until_then(table: Table, size: int, lean: bool) -> None:
        if now():
            raise error
        step(table, size, lean)

    monkeypatch.setattr(Table, "_step", until_then)


def served_on_a_device(bundle: Bundle, budget: Budget) -> ServedModel:
    codec, limits = codec_of(bundle.manifest, CodecLimits()), EngineLimits(SLOTS)
    return ServedModel(bundle, codec, lambda: device_runner(bundle), limits, FakeObserver(), budget)


def test_a_launch_that_fails_fails_its_rows_and_the_next_one_is_sound(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = device_runner(bundle)
    row = draw_problem(bundle, np.random.default_rng(1)).row
    runner.put(0, Carry(row))
    sound = runner._seats[0].table._embedder._module
    problem = Trajectory(row=row, max_steps=3)

    class Lost:
        def embed(self, *inputs: object) -> object:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(runner._seats[0].table._embedder, "_module", Lost())
    runner.launch([0], [])
    (landing,) = runner.land()
    assert isinstance(landing.error, NotEmbedded)
    assert list(landing.unembedded) == [0]
    runner.release(0)
    monkeypatch.setattr(runner._tables.table(row.bucket)._embedder, "_module", sound)
    engine = Engine(bundle.manifest, runner, EngineLimits(SLOTS), FakeObserver())
    ((*_, end),) = told(engine, [problem], [0], {})
    assert isinstance(end, Finished)
    assert end.steps == 3
    assert end.error is None


def test_a_lost_device_ends_the_engine_and_an_error_that_passes_ends_a_batch(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = device_runner(bundle)
    row = draw_problem(bundle, np.random.default_rng(1)).row
    runner.put(0, Carry(row))
    runner.embed(0)

    def broken(_: object, size: int, lean: bool) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(Table, "_step", broken)
    runner.launch([0], [])
    (landing,) = runner.land()
    assert isinstance(landing.error, torch.AcceleratorError)
    monkeypatch.setattr(Lane, "is_lost", lambda _: True)
    engine = Engine(bundle.manifest, runner, EngineLimits(SLOTS), FakeObserver())
    engine.submit(Submission((Trajectory(row=row, max_steps=3),), time.monotonic()))
    runner.release(0)
    with pytest.raises(torch.AcceleratorError):
        engine.step()


def test_a_lost_device_makes_the_server_not_alive(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.engine.served_model.BACK_OFF_SECONDS", (0.001, 0.001))
    lost, budget = False, Budget(10**6, 10**6)
    error = torch.AcceleratorError("CUDA error: unspecified launch failure")
    steps_raise(monkeypatch, error, lambda: lost)
    monkeypatch.setattr(Lane, "is_lost", lambda _: lost)
    served = served_on_a_device(bundle, budget)

    async def scenario() -> None:
        nonlocal lost
        served.start()
        await served.started()
        lost = True
        row = draw_problem(bundle, np.random.default_rng(1)).row
        ticket = served.submit(Submission((Trajectory(row=row, max_steps=3),), time.monotonic()))
        told = [event async for events in ticket for event in events]
        assert isinstance(told[-1], Finished)
        assert "the engine is" in (told[-1].error or "")
        while served.state is not State.FAILED:
            await asyncio.sleep(0.001)
        assert "unspecified launch failure" in (Fleet([served], budget).failed() or "")
        served.close()
        await served.closed()

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_out_of_memory_while_embedding_costs_those_rows_and_no_others(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = device_runner(bundle)
    row = draw_problem(bundle, np.random.default_rng(1)).row
    heavy = Row(row.tensors, row.lengths, row.bucket)
    runner.put(0, Carry(row))
    runner.launch([0], [])
    (alone,) = runner.land()
    runner.release(0)
    embed = Table.embed

    def short_of_memory(table: Table, rows: list[Row], places: list[int]) -> None:
        if heavy in rows:
            raise torch.OutOfMemoryError("CUDA out of memory")
        embed(table, rows, places)

    monkeypatch.setattr(Table, "embed", short_of_memory)
    runner.put(0, Carry(row))
    runner.put(1, Carry(heavy))
    runner.launch([0, 1], [])
    (landing,) = runner.land()
    assert landing.error is None
    assert list(landing.unembedded) == [1]
    np.testing.assert_allclose(landing.logits[0], alone.logits[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), r"do not fit on the device: of 16\.0 GiB .* --slots"),
        (RuntimeError("no kernel image\nis available"), "cannot take a step: no kernel image"),
    ],
)
def test_a_model_whose_steps_cannot_be_prepared_ends_the_start(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    monkeypatch.setattr("service.runners.device.runner.Lane", Captured)
    monkeypatch.setattr(Captured, "fails", error)
    with pytest.raises(StartupError, match=message):
        device_runner(bundle)


def test_what_refuses_zeros_is_not_captured_and_embeds_problems(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Choosy:
        def __init__(self, bundle: Bundle, lane: Lane) -> None:
            self._module = load_scripted(bundle, lane)
            self.step, self.lean = self._module.step, self._module.lean

        def embed(self, *inputs: torch.Tensor) -> Any:
            if not inputs[0].any():
                raise RuntimeError("the matrix is singular")
            return self._module.embed(*inputs)

    monkeypatch.setattr("service.runners.device.runner.Lane", Captured)
    short = of_short_problems(bundle)
    problems = [draw_problem(short, np.random.default_rng(8)) for _ in range(5)]
    stories = []
    for program in (SCRIPTED, Program("torchscript", Choosy)):
        runner = device_runner(short, program=program)
        engine = Engine(short.manifest, runner, EngineLimits(SLOTS), FakeObserver())
        stories.append(told(engine, problems, [0] * len(problems), {}))
    assert_same(*stories, {})


class Capturing(Captured):
    """A lane whose captures are Lane's own, on torch.cuda as `cuda_that_fails` leaves it."""

    captured = Lane.captured


def cuda_that_fails(
    monkeypatch: pytest.MonkeyPatch, capture: Exception, afterwards: Exception | None = None
) -> None:
    """torch.cuda where no capture ends well: one error is raised by it, the other by synchronising."""

    class Graph:
        def __init__(self, *_: object, **__: object) -> None: ...

        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None:
            raise capture

        def synchronize(self) -> None: ...

    def synchronize(*_: object) -> None:
        if afterwards is not None:
            raise afterwards

    monkeypatch.setattr("service.runners.device.runner.Lane", Capturing)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", Graph)
    monkeypatch.setattr(torch.cuda, "current_stream", Graph)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)


def test_what_cannot_be_captured_runs_uncaptured_and_the_log_says_so(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    axes = {name: axis.model_copy(update={"max": 16}) for name, axis in bundle.manifest.axes.items()}
    short = Bundle(bundle.folder, bundle.manifest.model_copy(update={"axes": axes}))
    draw = np.random.default_rng(6)
    drawn = [draw_problem(bundle, draw) for _ in range(60)]
    problems = [problem for problem in drawn if problem.row.bucket <= (16,)]
    plain = DeviceRunner(short, "cpu", SLOTS)
    cuda_that_fails(monkeypatch, RuntimeError("operation not permitted when stream is capturing"))
    stories = []
    for runner in (plain, DeviceRunner(short, "cpu", SLOTS)):
        engine = Engine(short.manifest, runner, EngineLimits(SLOTS), FakeObserver())
        stories.append(told(engine, problems, [0] * len(problems), {}))
    assert_same(*stories, {})
    (said,) = [record.message for record in caplog.records if "could be captured" in record.message]
    assert "(operation not permitted when stream is capturing); it runs uncaptured" in said


@pytest.mark.parametrize(
    ("capture", "afterwards", "message"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), None, "do not fit on the device"),
        (
            RuntimeError("operation failed due to a previous error during capture"),
            RuntimeError("CUDA error: unspecified launch failure"),
            "cannot take a step: CUDA error: unspecified launch failure",
        ),
    ],
)
def test_a_capture_that_fails_with_the_device_ends_the_start(
    bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    capture: Exception,
    afterwards: Exception | None,
    message: str,
) -> None:
    cuda_that_fails(monkeypatch, capture, afterwards)
    with pytest.raises(StartupError, match=message):
        device_runner(bundle)


def test_a_step_that_is_out_of_memory_costs_its_rows_and_the_server_stays(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_of_memory = False
    steps_raise(monkeypatch, torch.OutOfMemoryError("CUDA out of memory"), lambda: short_of_memory)
    served = served_on_a_device(bundle, Budget(10**6, 10**6))
    row = draw_problem(bundle, np.random.default_rng(1)).row

    async def asked() -> Finished:
        ticket = served.submit(Submission((Trajectory(row=row, max_steps=3),), time.monotonic()))
        *_, end = [event async for events in ticket for event in events]
        assert isinstance(end, Finished)
        return end

    async def scenario() -> None:
        nonlocal short_of_memory
        served.start()
        await served.started()
        for short_of_memory in (False, True, True, False):
            end = await asked()
            if short_of_memory:
                assert "CUDA out of memory" in (end.error or "")
            else:
                assert (end.steps, end.error) == (3, None)
            assert served.state is State.READY
        served.close()
        await served.closed()

    asyncio.run(asyncio.wait_for(scenario(), 60))
