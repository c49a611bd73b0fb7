"""The device runner, on torch's CPU device: the same rows, depths and states as the TorchScript runner."""

from __future__ import annotations

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
from model.row import Layout
from service.engine.engine import Engine, EngineLimits
from service.engine.messages import Event, Finished, Stepped, Submission, Trajectory
from service.errors import StartupError
from service.runners.computing import Precision
from service.runners.device.bound import BOUND
from service.runners.device.built import BUILT
from service.runners.device.embedder import most_embedded, powers_to
from service.runners.device.lane import Lane
from service.runners.device.program import SCRIPTED, Program
from service.runners.device.runner import DeviceRunner
from service.runners.device.tables import Table, buckets_of
from service.runners.open import open_runner
from service.runners.runner import Carry, View
from tests.service.fakes import FakeObserver

SLOTS = 24
Story = list[list[Event]]


@pytest.fixture(scope="module", params=["graph/1", "text-words/1"])
def bundle(request: pytest.FixtureRequest) -> Bundle:
    return read_bundle(Path("bundles") / request.param)


def device_runner(bundle: Bundle, ahead: bool = True, program: Program = SCRIPTED) -> DeviceRunner:
    return DeviceRunner(bundle, "cpu", SLOTS, ahead, program=program)


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


@pytest.mark.parametrize(
    ("program", "ahead"), [(SCRIPTED, False), (SCRIPTED, True), (BOUND, True), (BUILT, True)]
)
def test_it_tells_the_same_story_as_the_torchscript_runner(
    bundle: Bundle, program: Program, ahead: bool
) -> None:
    torch.set_num_threads(1)
    draw = np.random.default_rng(7)
    problems = [draw_problem(bundle, draw) for _ in range(150)]
    joins = draw.integers(0, 40, len(problems)).tolist()
    cancelled = {int(which): joins[which] + 3 for which in draw.choice(len(problems), 12, replace=False)}
    stories = []
    for runner in (open_runner(bundle, "cpu", "torchscript"), device_runner(bundle, ahead, program)):
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


@pytest.mark.parametrize("program", [SCRIPTED, BOUND])
def test_a_row_that_takes_no_step_keeps_its_state_to_the_bit(bundle: Bundle, program: Program) -> None:
    runner = device_runner(bundle, program=program)
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


class Captured(Lane):
    """A lane on which work is captured and replayed, as on a GPU, but on a CPU."""

    fails: Exception | None = None

    def __init__(self, device: str, precision: Precision = "ieee", captures: bool = True) -> None:
        super().__init__(device, precision, captures)
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

    def _pinned(self, array: np.ndarray[Any, Any]) -> torch.Tensor:
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
    monkeypatch.setattr("service.runners.device.runner.Lane", Captured)
    short = of_short_problems(bundle)
    sizes, kinds = [1, 2, 4, 8, 16, SLOTS], 2  # whole and lean
    draw = np.random.default_rng(4)
    problems = [each for each in (draw_problem(bundle, draw) for _ in range(60)) if each.row.bucket <= (64,)]
    joins = draw.integers(0, 9, len(problems)).tolist()
    runner = device_runner(short)
    assert runner.computing.device_name == "NVIDIA Imaginary"
    buckets = buckets_of(short.manifest)
    embeds = sum(len(powers_to(most_embedded(short.manifest, bucket))) for bucket in buckets)
    captured = len(sizes) * kinds * len(buckets) + embeds
    stories = []
    for each in (runner, open_runner(short, "cpu", "torchscript")):
        engine = Engine(short.manifest, each, EngineLimits(SLOTS), FakeObserver())
        stories.append(told(engine, problems, joins, {}))
    assert_same(*stories, {})
    assert runner._lane.captures == captured, "a request waited for a capture"  # type: ignore[attr-defined]
