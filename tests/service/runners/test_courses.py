"""Courses on the host runners: to the bit what single steps are, and an end where they are to end."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from model.bundle import EMBED_ONNX, STEP_ONNX, Bundle, read_bundle, write_manifest
from model.codecs import CodecLimits, codec_of
from model.halting import Decision, HaltingRule, terms_of
from model.row import Arrays, Layout
from service.engine.engine import Engine, EngineLimits
from service.engine.messages import Finished, Submission, Trajectory
from service.engine.observer import Unobserved
from service.runners import host, steps
from service.runners.host import HostRunner
from service.runners.open import open_runner
from service.runners.runner import Carry, Course, Landing

LONG = 50


@pytest.fixture(scope="module", params=["graph/1", "logic/2", "text/1"])
def bundle(request: pytest.FixtureRequest) -> Bundle:
    return read_bundle(Path("bundles") / request.param)


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Courses end with their rows, not with the clock."""
    monkeypatch.setattr(steps, "COURSE_SECONDS", 1e6)


def opened(bundle: Bundle, backend: str = "onnx", slots: int = 8) -> HostRunner:
    runner = open_runner(bundle, "cpu", backend, slots, cpu_threads=1)  # type: ignore[arg-type]
    assert isinstance(runner, HostRunner)
    return runner


def ends(bundle: Bundle, backend: str, bursts: bool, problems: list[Trajectory]) -> list[Finished]:
    """All problems, in eight slots."""
    runner = opened(bundle, backend)
    runner.bursts = bursts
    engine = Engine(bundle.manifest, runner, EngineLimits(8), Unobserved())
    engine.submit(Submission(tuple(problems), time.monotonic()))
    found: list[Finished] = []
    while not engine.idle:
        found += [event for _, event in engine.step() if isinstance(event, Finished)]
    return sorted(found, key=lambda end: end.index)


def examples(bundle: Bundle, number: int) -> list[Trajectory]:
    """The bundle's example, to budgets and halts of many kinds: lean and whole steps, one that is kept."""
    manifest = bundle.manifest
    codec = codec_of(manifest, CodecLimits())
    row = Layout(manifest).row(codec.encode(codec.example, "input"))
    draw = np.random.default_rng(1)
    rules = [HaltingRule(), manifest.halting.rule(), HaltingRule("confidence", 0.9, patience=2)]
    return [
        Trajectory(
            row,
            int(draw.integers(1, LONG)),
            rule=rules[place % 3],
            scored=place % 4 != 0,
            keeps=place == 7,
        )
        for place in range(number)
    ]


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("backend", ["onnx", "torchscript"])
def test_a_course_shows_and_leaves_what_single_steps_do(bundle: Bundle, backend: str) -> None:
    problems = examples(bundle, 20 if backend == "onnx" else 3)  # torch's kernels go by the rows
    groups = [problems] if backend == "onnx" else [[problem] for problem in problems]
    for group in groups:
        single, course = (ends(bundle, backend, bursts, group) for bursts in (False, True))
        for one, other in zip(single, course, strict=True):
            assert (one.steps, one.reason, one.error) == (other.steps, other.reason, other.error)
            np.testing.assert_array_equal(one.logits, other.logits)  # type: ignore[arg-type]
            np.testing.assert_array_equal(one.scores, other.scores)  # type: ignore[arg-type]
            if one.thought is not None and other.thought is not None:
                assert one.thought.carry.depth == other.thought.carry.depth == one.steps
                kept = one.thought.carry.arrays or [], other.thought.carry.arrays or []
                for array, again in zip(*kept, strict=True):
                    np.testing.assert_array_equal(array, again)


def course_of(bundle: Bundle, rows: int, most: int) -> Course:
    terms = np.stack([terms_of(HaltingRule(), 1, most, bundle.manifest.criteria)] * rows)
    return Course(most, np.zeros(rows, np.int64), np.zeros(rows, np.int64), terms, Decision(terms))


def going(bundle: Bundle, at: int, then: Callable[[HostRunner], None]) -> list[Landing]:
    """What lands of a course of many steps in whose step `at` something happens."""
    runner = opened(bundle)
    problem = examples(bundle, 1)[0]
    for slot in range(2):
        runner.put(slot, Carry(problem.row))
    step, taken = runner._run_step, 0

    def counted(inputs: Arrays) -> Arrays:
        nonlocal taken
        taken += 1
        if taken == at:
            then(runner)
        return step(inputs)

    runner._run_step = counted  # type: ignore[method-assign]
    runner.launch([0, 1], [], False, course_of(bundle, 2, LONG))
    landings: list[Landing] = []
    for _ in range(3):  # a call makes one return with nothing
        landings += [] if landings else runner.land()
    assert [runner.take(slot).depth for slot in range(2)] == [taken, taken] or landings[0].error
    return landings


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("here", [True, False])
def test_a_call_ends_a_course_with_the_step_that_is_under_way(
    bundle: Bundle, here: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.runners.onnx.BINDING_PAYS", LONG)  # so that each step can be counted
    monkeypatch.setattr(host, "AT_ONCE_SECONDS", 1e6 if here else 0.0)
    (landing,) = going(bundle, 4, HostRunner.wake)
    assert landing.taken is not None
    assert landing.taken.tolist() == [4, 4]


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("here", [True, False])
def test_a_batch_that_waits_for_a_thread_ends_a_course(
    bundle: Bundle, here: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.runners.onnx.BINDING_PAYS", LONG)
    monkeypatch.setattr(host, "AT_ONCE_SECONDS", 1e6 if here else 0.0)
    others: list[None] = []
    (landing,) = going(bundle, 3, lambda runner: runner._threads.submit(lambda: None, others.append))
    assert landing.taken is not None
    assert landing.taken.tolist() == [3, 3]


def test_a_course_ends_after_a_while(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "COURSE_SECONDS", 0.0)
    (landing,) = going(bundle, 1, lambda _: None)
    assert landing.taken is None, "one step"


@pytest.mark.usefixtures("unhurried")
def test_a_step_that_fails_in_a_course_tells_how_many_came_through(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.runners.onnx.BINDING_PAYS", LONG)

    def breaks(runner: HostRunner) -> None:
        raise RuntimeError("out of memory")

    (landing,) = going(bundle, 6, breaks)
    assert isinstance(landing.error, RuntimeError)
    assert landing.taken is not None
    assert landing.taken.tolist() == [5, 5]


def counting_bundle(folder: Path) -> Bundle:
    """Each step adds its depth to a number."""
    number: dict[str, Any] = {"name": "number", "dtype": "float32", "shape": ["B"]}
    value = helper.make_tensor_value_info
    graphs = {
        EMBED_ONNX: helper.make_graph(
            [helper.make_node("Identity", ["x"], ["number"])],
            "graph",
            [value("x", TensorProto.FLOAT, ["B"])],
            [value("number", TensorProto.FLOAT, ["B"])],
        ),
        STEP_ONNX: helper.make_graph(
            [
                helper.make_node("Cast", ["depth"], ["steps"], to=TensorProto.FLOAT),
                helper.make_node("Add", ["number", "steps"], ["next_number"]),
                helper.make_node("Identity", ["next_number"], ["logits"]),
            ],
            "graph",
            [value("number", TensorProto.FLOAT, ["B"]), value("depth", TensorProto.INT64, ["B"])],
            [value("next_number", TensorProto.FLOAT, ["B"]), value("logits", TensorProto.FLOAT, ["B"])],
        ),
    }
    for name, graph in graphs.items():
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(made, full_check=True)
        (folder / name).write_bytes(made.SerializeToString())
    manifest = {
        "name": "counting",
        "version": "1",
        "task": "counting",
        "codec": {"name": "tensors"},
        "readout": {"kind": "tensor"},
        "inputs": [{**number, "name": "x"}],
        "state": [number],
        "logits": {**number, "name": "logits"},
        "takes_depth": True,
        "steps": {"default": 3, "limit": 1000},
        "example": {"tensors": {"x": 1.0}},
    }
    return write_manifest(folder, manifest, [EMBED_ONNX, STEP_ONNX])


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("pays", [1, 2 * LONG])
def test_each_step_of_a_course_is_told_its_depth(
    tmp_path: Path, pays: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.runners.onnx.BINDING_PAYS", pays)
    bundle = counting_bundle(tmp_path)
    runner = opened(bundle)
    row = Layout(bundle.manifest).row({"x": np.float32(1)})
    for slot in range(3):
        runner.put(slot, Carry(row))
    for depth in (LONG, 2 * LONG):
        course = course_of(bundle, 3, depth)
        done = np.full(3, depth - LONG)
        runner.launch(
            [0, 1, 2], [], False, Course(LONG, done, course.held_for, course.terms, course.decision)
        )
        (landing,) = runner.land()
        assert landing.taken is not None
        assert landing.taken.tolist() == [LONG] * 3
        assert landing.logits.tolist() == [1 + sum(range(depth))] * 3
    assert runner.take(1).depth == 2 * LONG
