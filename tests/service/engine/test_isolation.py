"""A row that no graph can embed fails alone, whoever shares its batch: /v2 takes tensors as they come."""

from __future__ import annotations

import numpy as np
import pytest

from model.row import Arrays
from service.runners.host import HostRunner
from service.runners.runner import Carry
from tests.service.fakes import fake_manifest, plan

TOO_LARGE = 9


class PickyRunner(HostRunner):
    """Its embedding looks names up in a table that ends at TOO_LARGE, as graphs look up tokens."""

    backend = "picky"

    def __init__(self) -> None:
        super().__init__(fake_manifest(), "cpu", slots=4, cpu_threads=1)

    def rows_per_batch(self, bucket: object) -> int:
        return 4

    def _run_embed(self, inputs: Arrays) -> Arrays:
        names, tokens = inputs[0][:, 0], inputs[1]
        if (names >= TOO_LARGE).any():
            raise IndexError("there is no such name")
        return [np.broadcast_to(names[:, None, None], (*tokens.shape, 2)).astype(np.float32)]

    def _run_step(self, inputs: Arrays) -> Arrays:
        following = inputs[0] + 1
        return [following, following[:, 0], np.zeros((len(following), 2), np.float32)]


@pytest.mark.parametrize("begun", [False, True])
def test_a_row_that_cannot_be_embedded_does_not_take_its_neighbours_along(begun: bool) -> None:
    runner = PickyRunner()
    runner.put(0, Carry(plan(3)))
    if begun:
        runner.launch([0], [])
        assert runner.land()[0].error is None
    runner.put(1, Carry(plan(TOO_LARGE)))
    runner.put(2, Carry(plan(5)))
    runner.launch([0, 1, 2], [])
    (landing,) = runner.land()
    assert landing.error is None
    assert landing.logits[[0, 2], 0].tolist() == [4 + begun, 6]
    assert np.isnan(landing.logits[1]).all(), "which fails that row"


def test_alone_it_says_why() -> None:
    runner = PickyRunner()
    runner.put(0, Carry(plan(TOO_LARGE)))
    runner.launch([0], [])
    (landing,) = runner.land()
    assert str(landing.error) == "there is no such name"
