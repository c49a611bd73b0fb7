"""Lean steps: whoever shows no scores takes them, and ends as with whole ones."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.bundle import Bundle, read_bundle
from model.codecs import CodecLimits, codec_of
from model.halting import HaltingRule
from model.row import Layout
from service.engine.engine import Engine, EngineLimits
from service.engine.messages import Finished, Submission, Trajectory
from service.runners.open import open_runner
from service.runners.runner import Batch, Course, Flight, Runner
from tests.service.fakes import FakeObserver

SHIPPED = ("graph/1", "logic/2", "text/1", "text-words/1")


@pytest.fixture(scope="module", params=SHIPPED)
def bundle(request: pytest.FixtureRequest) -> Bundle:
    return read_bundle(Path("bundles") / request.param)


class Watched:
    """A runner, and for every launch whether it was lean and for which slots."""

    def __init__(self, runner: Runner) -> None:
        self.launches: list[tuple[bool, list[int]]] = []
        self._runner = runner

    def launch(
        self, batch: Batch, shown: Sequence[int], lean: bool = False, course: Course | None = None
    ) -> Flight:
        self.launches.append((lean, list(batch)))
        return self._runner.launch(batch, shown, lean, course)

    def __getattr__(self, name: str) -> object:
        return getattr(self._runner, name)


def example(bundle: Bundle, **terms: object) -> Trajectory:
    codec = codec_of(bundle.manifest, CodecLimits())
    row = Layout(bundle.manifest).row(codec.encode(codec.example, "input"))
    whole = Trajectory(row, bundle.manifest.steps.default, rule=bundle.manifest.halting.rule(), scored=False)
    return replace(whole, **terms)  # type: ignore[arg-type]


def run(bundle: Bundle, backend: str, trajectories: Sequence[Trajectory]) -> tuple[list[Finished], Watched]:
    runner = Watched(open_runner(bundle, "cpu", backend))  # type: ignore[arg-type]
    engine = Engine(bundle.manifest, runner, EngineLimits(16), FakeObserver())  # type: ignore[arg-type]
    submissions = [Submission((trajectory,), time.monotonic()) for trajectory in trajectories]
    for submission in submissions:
        engine.submit(submission)
    ends: dict[Submission, Finished] = {}
    while not engine.idle:
        ends |= {owner: event for owner, event in engine.step() if isinstance(event, Finished)}
    return [ends[submission] for submission in submissions], runner


@pytest.mark.parametrize("backend", ["onnx", "torchscript"])
def test_a_lean_row_ends_as_one_that_takes_whole_steps(bundle: Bundle, backend: str) -> None:
    rules = (bundle.manifest.halting.rule(), HaltingRule())
    lean = [example(bundle, rule=rule, max_steps=steps) for rule in rules for steps in (1, 5, 20)]
    ends, watched = run(bundle, backend, lean)
    assert all(was for was, _ in watched.launches)
    wholes, watched = run(bundle, backend, [replace(one, scored=True) for one in lean])
    assert not any(was for was, _ in watched.launches)
    for end, whole in zip(ends, wholes, strict=True):
        assert (end.steps, end.reason, end.error) == (whole.steps, whole.reason, None)
        np.testing.assert_allclose(end.logits, whole.logits, rtol=0, atol=1e-5)  # type: ignore[arg-type]


def test_lean_rows_and_others_share_no_batch_and_each_ends_as_alone(bundle: Bundle) -> None:
    mixed = [example(bundle, scored=bool(place % 2), max_steps=3 + place) for place in range(10)]
    ends, watched = run(bundle, "onnx", mixed)
    scored = {slot for slot in range(10) if slot % 2}
    for lean, batch in watched.launches:
        assert not (set(batch) & scored if lean else set(batch) - scored)
    for trajectory, end in zip(mixed, ends, strict=True):
        ((alone,), _) = run(bundle, "onnx", [trajectory])
        assert (alone.steps, alone.reason) == (end.steps, end.reason)
        np.testing.assert_array_equal(alone.logits, end.logits)  # type: ignore[arg-type]


def test_scores_other_criteria_and_thoughts_that_are_kept_take_whole_steps(bundle: Bundle) -> None:
    other = "entropy_diff"
    for trajectory in (
        example(bundle, scored=True),
        example(bundle, keeps=True),
        example(bundle, rule=HaltingRule(other, 0.0), max_steps=4),
    ):
        _, watched = run(bundle, "onnx", [trajectory])
        assert not any(lean for lean, _ in watched.launches)


def test_scores_that_a_lean_step_leaves_out_are_not_numbers(bundle: Bundle) -> None:
    ((end,), _) = run(bundle, "onnx", [example(bundle, rule=HaltingRule(), max_steps=2)])
    assert end.scores is not None
    computed = np.isfinite(end.scores)
    names = np.array(bundle.manifest.score_names)
    assert set(names[computed]) == set(bundle.manifest.lean or ())
