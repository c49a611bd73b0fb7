"""Who takes a step together: batches that suit the device, and work for all who compute."""

from __future__ import annotations

import pytest

from service.engine.engine import Engine, EngineLimits
from service.engine.messages import Submission, Trajectory
from service.engine.observer import Unobserved
from tests.service.fakes import FakeRunner, fake_manifest, plan


class SideBySide(FakeRunner):
    """Two batches are computed at the same time."""

    workers = 2
    room = 2  # type: ignore[assignment]


def batches(runner: FakeRunner, *tokens: int) -> list[list[int]]:
    """How rows of these lengths, named from 1 on, are cut in the first step."""
    engine = Engine(fake_manifest(), runner, EngineLimits(32), Unobserved())
    rows = [plan(name, tokens=length) for name, length in enumerate(tokens, start=1)]
    engine.submit(Submission(tuple(Trajectory(row, 3) for row in rows), 0.0))
    engine.step()
    return runner.batches


@pytest.mark.parametrize(("rows", "sizes"), [(7, [7]), (8, [4, 4]), (13, [7, 6]), (16, [8, 8]), (19, [8, 8])])
def test_rows_are_shared_out_to_all_who_compute_unless_batches_would_be_less_than_half(
    rows: int, sizes: list[int]
) -> None:
    assert [len(batch) for batch in batches(SideBySide(8), *[3] * rows)] == sizes
    assert [len(batch) for batch in batches(FakeRunner(8), *[3] * rows)] == [min(rows, 8)]


def test_batches_of_two_lengths_come_in_the_order_of_their_first_rows() -> None:
    assert batches(SideBySide(2), 3, 20, 3, 20, 3, 20) == [[1, 3], [2, 4]]
    assert batches(SideBySide(8), 3, 20, 3, 20, 3, 20) == [[1, 3, 5], [2, 4, 6]]
