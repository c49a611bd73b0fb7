"""The device runner, on torch's CPU device: the same rows, depths and states as the TorchScript runner."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.bundle import Bundle, read_bundle
from model.codecs import CodecLimits, codec_of
from model.halting import HaltingRule
from model.row import Layout, Row
from service.engine.engine import Engine, EngineLimits
from service.engine.messages import Event, Finished, Stepped, Submission, Trajectory
from service.engine.served_model import ServedModel, State
from service.engine.ticket import Budget
from service.errors import StartupError
from service.fleet import Fleet
from service.runners.computing import Precision
from service.runners.device import DeviceRunner
from service.runners.lane import Lane
from service.runners.open import open_runner
from service.runners.runner import Carry, NotEmbedded, View
from service.runners.tables import Table, buckets_of
from tests.service.fakes import FakeObserver

SLOTS = 24
Story = list[list[Event]]


@pytest.fixture(scope="module", params=["graph/1", "text-words/1"])
def bundle(request: pytest.FixtureRequest) -> Bundle:
    return read_bundle(Path("bundles") / request.param)


def device_runner(bundle: Bundle, ahead: bool = True) -> DeviceRunner:
    return DeviceRunner(bundle, "cpu", SLOTS, ahead)


def draw_problem(bundle: Bundle, draw: np.random.Generator) -> Trajectory:
    """Of any size, with any budget, criterion and view; some of them streamed."""
    if bundle.manifest.task == "graph":
        nodes = int(draw.integers(2, 60))
        problem: dict[str, object] = {
            "nodes": list(range(nodes)),
            "edges": draw.integers(0, nodes, (int(draw.integers(0, 2 * nodes)), 2)).tolist(),
            "source": int(draw.integers(nodes)),
            "target": int(draw.integers(nodes)),
        }
    else:
        people = [f"P{number}" for number in range(int(draw.integers(3, 9)))]
        facts = [f"{a} is the parent of {b}" for a, b in itertools.pairwise(people)]
        ancestor = "great-" * max(0, len(people) - 3) + "grandparent"
        problem = {"facts": facts, "query": f"{people[0]} is the {ancestor} of {people[-1]}"}
        problem = codec_of(bundle.manifest, CodecLimits()).example if draw.random() < 0.3 else problem
    tensors = codec_of(bundle.manifest, CodecLimits()).encode(problem, "input")
    rule = bundle.manifest.halting
    criterion = str(draw.choice(["none", "confidence", rule.criterion]))
    threshold = {"none": 0.0, "confidence": 0.99}.get(criterion, rule.threshold)
    return Trajectory(
        row=Layout(bundle.manifest).row(tensors),
        max_steps=int(draw.integers(1, 20)),
        rule=HaltingRule(criterion, threshold, int(draw.integers(1, 3))),
        view=View("full") if draw.random() < 0.4 else None,
        every_step=bool(draw.random() < 0.3),
    )


def told(engine: Engine, problems: list[Trajectory], joins: list[int], leaves: dict[int, int]) -> Story:
    """All events of every problem; each is submitted at its engine step, and some are cancelled at one."""
    submissions = [Submission((problem,), time.monotonic()) for problem in problems]
    events: dict[Submission, list[Event]] = {submission: [] for submission in submissions}
    waiting = sorted(zip(joins, range(len(problems)), strict=True))
    now = 0
    while waiting or not engine.idle:
        while waiting and waiting[0][0] <= now:
            engine.submit(submissions[waiting.pop(0)[1]])
        for which, when in leaves.items():
            if when == now:
                engine.cancel(submissions[which])
        for owner, event in engine.step():
            events[owner].append(event)
        now += 1
    return [events[submission] for submission in submissions]


def assert_same(one: Story, two: Story, cancelled: dict[int, int]) -> None:
    for place, (these, those) in enumerate(zip(one, two, strict=True)):
        if place in cancelled:
            continue
        assert [type(event) for event in these] == [type(event) for event in those]
        for this, that in zip(these, those, strict=True):
            assert this.logits is not None
            assert that.logits is not None
            np.testing.assert_allclose(this.logits, that.logits, rtol=0, atol=1e-4)
            if isinstance(this, Stepped):
                assert isinstance(that, Stepped)
                assert this.step == that.step
            else:
                assert isinstance(this, Finished)
                assert isinstance(that, Finished)
                assert (this.steps, this.reason) == (that.steps, that.reason)
            assert (this.state is None) == (that.state is None)
            if this.state is not None and that.state is not None:
                for name, values in this.state.items():
                    np.testing.assert_allclose(values, that.state[name], rtol=0, atol=1e-3)


@pytest.mark.parametrize("ahead", [False, True])
def test_it_tells_the_same_story_as_the_torchscript_runner(bundle: Bundle, ahead: bool) -> None:
    torch.set_num_threads(1)
    draw = np.random.default_rng(7)
    problems = [draw_problem(bundle, draw) for _ in range(150)]
    joins = draw.integers(0, 40, len(problems)).tolist()
    cancelled = {int(which): joins[which] + 3 for which in draw.choice(len(problems), 12, replace=False)}
    stories = []
    for runner in (open_runner(bundle, "cpu", "torchscript"), device_runner(bundle, ahead)):
        engine = Engine(bundle.manifest, runner, EngineLimits(SLOTS), FakeObserver())
        stories.append(told(engine, problems, joins, cancelled))
        runner.close()
    assert_same(*stories, cancelled)


def test_what_free_rows_hold_is_nobodys_business(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(3)
    problems = [draw_problem(bundle, draw) for _ in range(40)]
    joins = draw.integers(0, 12, len(problems)).tolist()

    def poison(table: Table) -> None:
        for tensor in table._tensors:
            if tensor.is_floating_point():
                tensor.fill_(float("nan"))

    stories = []
    for poisoned in (False, True):
        runner = device_runner(bundle)
        if poisoned:
            made = runner._tables.table

            def table(bucket: tuple[int, ...], made: Callable[..., Table] = made) -> Table:
                fresh = made(bucket)
                if not fresh.taken:
                    poison(fresh)
                return fresh

            monkeypatch.setattr(runner._tables, "table", table)
        engine = Engine(bundle.manifest, runner, EngineLimits(SLOTS), FakeObserver())
        stories.append(told(engine, problems, joins, {}))
    assert_same(*stories, {})


def test_a_row_that_takes_no_step_keeps_its_state_to_the_bit(bundle: Bundle) -> None:
    runner = device_runner(bundle)
    draw = np.random.default_rng(5)
    row = draw_problem(bundle, draw).row
    for slot in (0, 1):
        runner.put(slot, Carry(row))
    for batch in ([0, 1], [1], [1]):
        runner.launch(batch, [])
        (landing,) = runner.land()
        assert landing.error is None
    stays, goes = runner.take(0), runner.take(1)
    assert (stays.depth, goes.depth) == (1, 3)
    runner.put(0, stays)
    for _ in range(2):
        runner.launch([0], [0])
        (landing,) = runner.land()
    later = runner.take(0)
    assert later.depth == 3
    assert later.arrays is not None
    assert goes.arrays is not None
    for mine, theirs in zip(later.arrays, goes.arrays, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-4)


def test_two_steps_may_be_under_way_while_a_slot_changes_hands(bundle: Bundle) -> None:
    draw = np.random.default_rng(9)
    first, second = draw_problem(bundle, draw).row, draw_problem(bundle, draw).row
    second = first if second.bucket != first.bucket else second
    runner = device_runner(bundle)
    runner.put(0, Carry(second))
    runner.launch([0], [])
    (alone,) = runner.land()
    runner.release(0)
    runner.put(0, Carry(first))
    flights = [runner.launch([0], []), runner.launch([0], [])]
    runner.release(0)
    runner.put(0, Carry(second))
    flights.append(runner.launch([0], []))
    landings = [landing for _ in range(3) for landing in runner.land()]
    assert [landing.flight for landing in landings] == flights
    np.testing.assert_allclose(landings[-1].logits, alone.logits, rtol=0, atol=1e-5)


def test_a_launch_that_fails_fails_its_rows_and_the_next_one_is_sound(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = device_runner(bundle)
    row = draw_problem(bundle, np.random.default_rng(1)).row
    runner.put(0, Carry(row))
    sound = runner._tables._module
    problem = Trajectory(row=row, max_steps=3)

    class Lost:
        def embed(self, *inputs: object) -> object:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(runner._seats[0].table, "_module", Lost())
    runner.launch([0], [])
    (landing,) = runner.land()
    assert isinstance(landing.error, NotEmbedded)
    assert list(landing.unembedded) == [0]
    runner.release(0)
    monkeypatch.setattr(runner._tables.table(row.bucket), "_module", sound)
    engine = Engine(bundle.manifest, runner, EngineLimits(SLOTS), FakeObserver())
    ((*_, end),) = told(engine, [problem], [0], {})
    assert isinstance(end, Finished)
    assert end.steps == 3
    assert end.error is None


def test_all_sizes_of_a_model_are_known_where_its_axes_are_padded(bundle: Bundle) -> None:
    buckets = buckets_of(bundle.manifest)
    assert buckets == sorted(buckets, reverse=True)
    for size in (1, 8, 9, 40):
        row = (size if size > 8 else 8,)
        assert any(bucket >= row for bucket in buckets)
    loose = {name: axis.model_copy(update={"padded": False}) for name, axis in bundle.manifest.axes.items()}
    assert buckets_of(bundle.manifest.model_copy(update={"axes": loose})) == []


def test_tables_that_do_not_fit_are_refused_with_the_sum(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lane, "free_bytes", lambda _: 2**16)
    with pytest.raises(StartupError, match=r"24 slots of [\w-]+ take \d+\.\d GiB on the device"):
        device_runner(bundle)


def test_problems_are_of_several_sizes_and_criteria(bundle: Bundle) -> None:
    draw = np.random.default_rng(7)
    problems = [draw_problem(bundle, draw) for _ in range(150)]
    assert len({problem.row.bucket for problem in problems}) > 1
    assert len({replace(problem.rule, threshold=0.0) for problem in problems}) > 3


def test_lean_steps_lead_to_the_same_answers_and_depths(bundle: Bundle) -> None:
    draw = np.random.default_rng(11)
    problems = [replace(draw_problem(bundle, draw), scored=draw.random() < 0.3) for _ in range(60)]
    joins = draw.integers(0, 20, len(problems)).tolist()
    stories = []
    for lean in (False, True):
        runner = device_runner(bundle)
        assert runner.lean, "the shipped bundles have lean steps"
        runner.lean = lean
        engine = Engine(bundle.manifest, runner, EngineLimits(SLOTS), FakeObserver())
        stories.append(told(engine, problems, joins, {}))
        programs = {which for table in runner._tables._tables.values() for which in table._steps}
        assert any(is_lean for _, is_lean in programs) == lean
    assert_same(*stories, {})


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
    step, lost = Table._step, False

    def until_it_is_lost(table: Table, size: int, lean: bool) -> None:
        if lost:
            raise torch.AcceleratorError("CUDA error: unspecified launch failure")
        step(table, size, lean)

    monkeypatch.setattr(Table, "_step", until_it_is_lost)
    monkeypatch.setattr(Lane, "is_lost", lambda _: lost)
    codec = codec_of(bundle.manifest, CodecLimits())
    limits, budget = EngineLimits(SLOTS), Budget(10**6, 10**6)
    served = ServedModel(bundle, codec, lambda: device_runner(bundle), limits, FakeObserver(), budget)

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


class Captured(Lane):
    """A lane on which work is captured and replayed, as on a GPU, but on a CPU."""

    fails: Exception | None = None

    def __init__(self, device: str, precision: Precision = "ieee") -> None:
        super().__init__(device, precision)
        self.on_gpu, self.captures = True, 0

    def captured(self, run: Callable[[], None]) -> Callable[[], None]:
        assert torch.is_inference_mode_enabled(), "what is captured must be captured as it will run"
        if self.fails is not None:
            raise self.fails
        run()
        self.captures += 1
        return run

    def host(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype)

    def send(self, array: np.ndarray[Any, Any]) -> torch.Tensor:
        return torch.from_numpy(np.array(array, order="C"))

    def is_lost(self) -> bool:
        return False

    def give_back(self) -> None: ...

    @property
    def name(self) -> str:
        return "NVIDIA Imaginary"

    def free_bytes(self) -> int:
        return 2**34


def of_short_problems(bundle: Bundle) -> Bundle:
    """The same, for few buckets: on a CPU to prepare a step is to take it."""
    axes = {name: axis.model_copy(update={"max": 64}) for name, axis in bundle.manifest.axes.items()}
    return Bundle(bundle.folder, bundle.manifest.model_copy(update={"axes": axes}))


def test_every_step_is_captured_at_the_start_and_changes_nobody(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.runners.device.Lane", Captured)
    short = of_short_problems(bundle)
    sizes, kinds = [1, 2, 4, 8, 16, SLOTS], 2  # whole and lean
    draw = np.random.default_rng(4)
    problems = [each for each in (draw_problem(bundle, draw) for _ in range(60)) if each.row.bucket <= (64,)]
    joins = draw.integers(0, 9, len(problems)).tolist()
    runner = device_runner(short)
    assert runner.computing.device_name == "NVIDIA Imaginary"
    captured = len(sizes) * kinds * len(buckets_of(short.manifest))
    stories = []
    for each in (runner, open_runner(short, "cpu", "torchscript")):
        engine = Engine(short.manifest, each, EngineLimits(SLOTS), FakeObserver())
        stories.append(told(engine, problems, joins, {}))
    assert_same(*stories, {})
    assert runner._lane.captures == captured, "a request waited for a capture"  # type: ignore[attr-defined]


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
    monkeypatch.setattr("service.runners.device.Lane", Captured)
    monkeypatch.setattr(Captured, "fails", error)
    with pytest.raises(StartupError, match=message):
        device_runner(bundle)
