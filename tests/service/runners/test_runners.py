"""Both runners on the shipped bundle: same answers, whoever shares the batch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from model.bundle import Bundle, read_bundle
from model.codecs import CodecLimits, codec_of
from model.halting import CRITERIA, HaltingRule
from model.readout import answer_of
from model.row import Layout, Row, padded
from service.engine.engine import Engine, EngineLimits
from service.engine.messages import Finished, Submission, Trajectory
from service.errors import StartupError
from service.runners.open import check_environment, open_runner
from service.runners.runner import Carry, Landing, Runner, View
from tests.service.fakes import FakeObserver

BUNDLE = Path("bundles/graph/1")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return read_bundle(BUNDLE)


@pytest.fixture(params=["onnx", "torchscript"])
def runner(request: pytest.FixtureRequest, bundle: Bundle) -> Iterator[Runner]:
    runner = open_runner(bundle, "cpu", request.param)
    yield runner
    runner.close()


def row_of(bundle: Bundle, graph: dict[str, object]) -> Row:
    return Layout(bundle.manifest).row(codec_of(bundle.manifest, CodecLimits()).encode(graph, "input"))


def land(runner: Runner, batch: list[int]) -> Landing:
    runner.launch(batch, [])
    (landing,) = runner.land()
    return landing


def random_problem(bundle: Bundle, draw: np.random.Generator) -> Trajectory:
    """A random digraph of up to 60 nodes, with a random budget and any criterion the bundle computes."""
    nodes = int(draw.integers(2, 60))
    graph = {
        "nodes": list(range(nodes)),
        "edges": draw.integers(0, nodes, (int(draw.integers(0, 2 * nodes)), 2)).tolist(),
        "source": int(draw.integers(nodes)),
        "target": int(draw.integers(nodes)),
    }
    criterion = CRITERIA[str(draw.choice(["none", *bundle.manifest.scores]))]
    return Trajectory(
        row=row_of(bundle, graph),
        max_steps=int(draw.integers(1, 24)),
        rule=HaltingRule(criterion.name, criterion.default, int(draw.integers(1, 3))),
    )


def run(engine: Engine, problems: list[Trajectory], joins_at: list[int]) -> list[Finished]:
    """All problems, each submitted at its engine step; results in order."""
    submissions = [Submission((problem,), time.monotonic()) for problem in problems]
    ends: dict[Submission, Finished] = {}
    waiting = sorted(zip(joins_at, range(len(problems)), strict=True))
    now = 0
    while waiting or not engine.idle:
        while waiting and waiting[0][0] <= now:
            engine.submit(submissions[waiting.pop(0)[1]])
        for owner, event in engine.step():
            assert isinstance(event, Finished)
            ends[owner] = event
        now += 1
    return [ends[submission] for submission in submissions]


def test_alone_equals_together_for_hundreds_of_mixed_requests(bundle: Bundle, runner: Runner) -> None:
    draw = np.random.default_rng(7)
    problems = [random_problem(bundle, draw) for _ in range(300)]
    engine = Engine(bundle.manifest, runner, EngineLimits(24), FakeObserver())
    together = run(engine, problems, draw.integers(0, 60, len(problems)).tolist())
    for problem, many in zip(problems, together, strict=True):
        (one,) = run(engine, [problem], [0])
        assert (one.steps, one.reason) == (many.steps, many.reason)
        assert one.logits is not None
        assert many.logits is not None
        # torch may choose another kernel for another number of rows; ONNX Runtime does not, to the bit.
        tolerance = 0 if runner.backend == "onnx" else 1e-5
        np.testing.assert_allclose(one.logits, many.logits, rtol=0, atol=tolerance)


def test_a_slot_that_was_used_before_computes_like_a_new_one(bundle: Bundle, runner: Runner) -> None:
    draw = np.random.default_rng(3)
    first, second = random_problem(bundle, draw), random_problem(bundle, draw)
    engine = Engine(bundle.manifest, runner, EngineLimits(1), FakeObserver())
    fresh = run(engine, [second], [0])[0]
    again = run(engine, [first, second, first, second], [0, 0, 0, 0])
    for later in (again[1], again[3]):
        assert later.steps == fresh.steps
        assert later.logits is not None
        np.testing.assert_array_equal(later.logits, fresh.logits)


def test_the_state_is_cut_to_the_real_tokens_and_is_a_copy(bundle: Bundle, runner: Runner) -> None:
    runner.put(5, Carry(row_of(bundle, {"edges": [[1, 2], [2, 3], [3, 4]], "source": 1, "target": 4})))
    full = View("full")
    before = land(runner, [5]).state(5, full)["state"]
    width = bundle.manifest.state[0].shape[-1]
    assert before.shape == (4, width)
    kept = before.copy()
    landing = land(runner, [5])
    np.testing.assert_array_equal(before, kept)
    whole = landing.state(5, full)["state"]
    assert not np.array_equal(whole, kept)
    np.testing.assert_array_equal(landing.state(5, View("readout", (0, 3)))["state"], whole[[0, 3]])
    np.testing.assert_array_equal(landing.state(5, View("pooled"))["state"], whole.mean(axis=0))
    runner.release(5)


def test_a_row_moves_in_mid_thought_between_slots_and_runners_to_the_bit(
    bundle: Bundle, runner: Runner
) -> None:
    other = open_runner(bundle, "cpu", runner.backend)  # type: ignore[arg-type]
    draw = np.random.default_rng(11)
    for _ in range(12):
        row = random_problem(bundle, draw).row
        runner.put(0, Carry(row))
        stays = [land(runner, [0]) for _ in range(9)]
        runner.release(0)

        at, slot = runner, 1
        at.put(slot, Carry(row))
        moves = []
        for step in range(9):
            moves.append(land(at, [slot]))
            if step % 2:
                carry = at.take(slot)
                assert carry.depth == step + 1
                at, slot = (other if at is runner else runner), slot + 3
                at.put(slot, carry)
        for one, two in zip(stays, moves, strict=True):
            np.testing.assert_array_equal(one.logits, two.logits)
            np.testing.assert_array_equal(one.scores, two.scores)
        at.release(slot)
    other.close()


def test_a_slot_that_is_released_in_mid_flight_is_free_and_its_step_disturbs_nobody(
    bundle: Bundle, runner: Runner
) -> None:
    draw = np.random.default_rng(2)
    leaves, comes = random_problem(bundle, draw).row, random_problem(bundle, draw).row
    runner.put(0, Carry(comes))
    alone = land(runner, [0])
    runner.release(0)
    runner.put(0, Carry(leaves))
    runner.launch([0], [])
    runner.release(0)
    runner.put(0, Carry(comes))
    runner.launch([0], [])
    landings: list[Landing] = []
    while len(landings) < 2:
        landings += runner.land()
    newest = max(landings, key=lambda landing: landing.flight)
    np.testing.assert_array_equal(newest.logits, alone.logits)
    runner.release(0)


def test_an_empty_table_of_wide_rows_is_given_back(bundle: Bundle) -> None:
    runner = open_runner(bundle, "cpu", "onnx")
    tables = runner.store.tables  # type: ignore[attr-defined]
    wide = {"nodes": list(range(200)), "edges": [[0, 1]], "source": 0, "target": 1}
    for slot in range(3):
        runner.put(slot, Carry(row_of(bundle, wide)))
        land(runner, [slot])
    assert tables
    for slot in range(3):
        runner.release(slot)
    assert not tables
    runner.close()


def test_a_batch_that_fails_says_so_and_leaves_its_neighbours_alone(
    bundle: Bundle, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = row_of(bundle, {"edges": [[1, 2]], "source": 1, "target": 2})
    runner.put(0, Carry(row))
    alone = land(runner, [0])
    runner.release(0)
    for slot in (0, 1):
        runner.put(slot, Carry(row))
    sound = runner._run_embed  # type: ignore[attr-defined]

    def breaks(inputs: object) -> object:
        monkeypatch.setattr(runner, "_run_embed", sound)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(runner, "_run_embed", breaks)
    assert isinstance(land(runner, [1]).error, RuntimeError)
    np.testing.assert_array_equal(land(runner, [0]).logits, alone.logits)
    for slot in (0, 1):
        runner.release(slot)


def test_a_short_chain_is_answered_right(bundle: Bundle, runner: Runner) -> None:
    engine = Engine(bundle.manifest, runner, EngineLimits(4), FakeObserver())
    chain = [["a", "b"], ["b", "c"], ["c", "d"]]
    for source, target, answer in (("a", "d", True), ("d", "a", False), ("b", "b", True)):
        row = row_of(bundle, {"edges": chain, "source": source, "target": target})
        (end,) = run(engine, [Trajectory(row, max_steps=16)], [0])
        assert end.logits is not None
        assert answer_of(bundle.manifest, end.logits).answer is answer


def test_cuda_that_is_not_there_is_an_error_and_never_the_cpu(bundle: Bundle) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    for backend in ("onnx", "torchscript"):
        with pytest.raises(StartupError, match="cuda"):
            open_runner(bundle, "cuda", backend)  # type: ignore[arg-type]


def test_a_bundle_without_the_export_of_a_backend_is_refused(bundle: Bundle) -> None:
    files = {name: entry for name, entry in bundle.manifest.files.items() if name == "embed.onnx"}
    poor = Bundle(bundle.folder, bundle.manifest.model_copy(update={"files": files}))
    with pytest.raises(StartupError, match="no ONNX export"):
        open_runner(poor, "cpu", "onnx")
    with pytest.raises(StartupError, match=r"no model\.ts"):
        open_runner(poor, "cpu", "torchscript")


def test_the_environment_of_these_tests_has_one_onnxruntime_only() -> None:
    check_environment()


def test_both_builds_of_onnxruntime_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.distribution", lambda name: name)
    with pytest.raises(StartupError, match="break each other"):
        check_environment()


def test_padded_sizes_grow_by_at_most_half_and_never_shrink() -> None:
    sizes = [padded(length) for length in range(1, 2000)]
    assert sizes == sorted(sizes)
    assert all(size >= length for length, size in enumerate(sizes, start=1))
    assert all(size <= max(8, 1.5 * length) for length, size in enumerate(sizes, start=1) if length > 16)
    assert len(set(sizes)) <= 16
