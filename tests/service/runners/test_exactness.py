"""The report that counts where two runners differ calls by name what they differ in."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.bundle import read_bundle
from model.halting import HaltingRule, HaltReason
from service.engine.messages import Finished, Trajectory
from service.runners.computing import IEEE

BUNDLE = read_bundle(Path("bundles/graph/1"))


@pytest.fixture(scope="module")
def exactness() -> Iterator[Any]:
    """benchmarks/exactness.py, which is no package's."""
    sys.path.insert(0, "benchmarks")
    try:
        import exactness

        yield exactness
    finally:
        sys.path.remove("benchmarks")


def test_mixed_rows_come_out_equal_on_the_device_runner(exactness: Any) -> None:
    found = exactness.report(BUNDLE, 80, "cpu", IEEE)
    counted = found["counted"]
    assert sum(counted.values()) == found["rows"] == 80
    assert counted.keys() <= {"equal", "cancelled", "on the threshold"}
    assert counted["cancelled"] == 4
    assert found["streamed_steps"] > 0
    assert found["largest_difference_of_logits"] < 1e-4


@pytest.mark.parametrize(
    ("steps", "score", "flipped", "verdict"),
    [
        (4, 0.5, False, "equal"),
        (4, 0.5, True, "another answer"),
        (3, 0.05, False, "another depth"),
        (3, 0.09999, False, "on the threshold"),
    ],
)
def test_what_differs_is_called_by_its_name(
    exactness: Any, steps: int, score: float, flipped: bool, verdict: str
) -> None:
    manifest = BUNDLE.manifest
    codec_row = exactness.problems_of(BUNDLE, 1, np.random.default_rng(0))[0].row
    asked = Trajectory(codec_row, max_steps=9, rule=HaltingRule("latent_diff", 0.1))
    scores = np.zeros(len(manifest.scores), np.float32)
    scores[manifest.score_names.index("latent_diff")] = score
    logits = np.array([2.0, 1.0], np.float32)
    theirs = Finished(0, 4, HaltReason.HALTED, logits, scores)
    ours = replace(theirs, steps=steps, logits=logits[::-1] if flipped else logits)
    told = [[exactness.Told([], end)] for end in (ours, theirs)]
    ((said, _),) = exactness.verdicts(BUNDLE, [asked], *told, 1e-3)
    assert said == verdict
