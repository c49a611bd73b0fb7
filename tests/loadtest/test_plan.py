"""Plans, budgets and schedules."""

import random
from typing import Any

import numpy as np
import pytest

from loadtest.drive.budgets import bins, parse_depths, parse_mix
from loadtest.errors import LoadTestError
from loadtest.plan import Plan, alone_cells, arrivals, load_cells


def plan(**changes: Any) -> Plan:
    return Plan(**{"url": "http://127.0.0.1:1", "model": None, "concurrency": (4,), **changes})


def test_every_level_and_depth_is_measured_in_every_repeat_in_an_order_of_its_own() -> None:
    cells = load_cells(plan(concurrency=(), rates=(10.0, 20.0), depths=(1, 2, 4, 8), repeats=3))
    rounds = [[(c.level, c.depth) for c in cells if c.repeat == repeat] for repeat in range(3)]
    assert [len(set(round_)) for round_ in rounds] == [8, 8, 8]
    assert rounds[0] != rounds[1]


def test_the_baseline_is_one_user_at_every_depth_and_at_depth_one_for_the_probe() -> None:
    assert [c.depth for c in alone_cells(plan(depths=(4, 8)))] == [1, 4, 8]
    assert [c.depth for c in alone_cells(plan(depths=(4, 8), probe_s=0))] == [4, 8]
    assert alone_cells(plan(alone_s=0)) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"url": "localhost:8000"}, "http://HOST:PORT"),
        ({"rates": (5.0,)}, "give one of"),
        ({"duration_s": 0}, "--duration"),
        ({"warmup_s": -1}, "--warmup"),
        ({"max_error_rate": 2}, "--max-error-rate"),
        ({"wire": "v2", "stream": True}, "--stream"),
        ({"wire": "v2", "halting": {"target_accuracy": 0.9}}, "target_accuracy"),
        ({"concurrency": (0,)}, "--concurrency"),
    ],
)
def test_a_plan_that_makes_no_sense_names_the_flag(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(LoadTestError, match=words):
        plan(**changes)


def test_a_key_is_not_part_of_what_a_plan_says_of_itself() -> None:
    assert "hush" not in repr(plan(api_key="hush"))


def test_constant_arrivals_are_evenly_spaced() -> None:
    assert arrivals("constant", 10, 0.5, 0) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_poisson_arrivals_have_the_rate_and_the_scatter_of_a_poisson_process() -> None:
    due = np.array(arrivals("poisson", 200, 100, 1))
    gaps = np.diff(due)
    assert len(due) == pytest.approx(20_000, rel=0.03)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)
    assert due.max() < 100
    assert arrivals("poisson", 5, 3, 1) == arrivals("poisson", 5, 3, 1)


def test_a_geometric_mix_has_its_mean_and_stays_within_the_limit() -> None:
    mix = parse_mix("geometric:6", 64)
    drawn = [mix.draw(random.Random(seed)) for seed in range(4000)]
    assert mix.mean == pytest.approx(6, rel=0.01)
    assert np.mean(drawn) == pytest.approx(6, rel=0.05)
    assert max(mix.depths) == 64
    assert parse_mix("geometric:6", 4).depths == (1, 2, 3, 4)


def test_the_other_mixes_are_what_they_say() -> None:
    assert parse_mix("uniform:2-4", 32).depths == (2, 3, 4)
    assert parse_mix("weighted:1=3,16=1", 32).shares == (0.75, 0.25)


@pytest.mark.parametrize(
    "text", ["geometric", "geometric:0.5", "uniform:5-2", "weighted:1=0", "weighted:99=1", "x:1"]
)
def test_what_is_not_a_mix_is_refused(text: str) -> None:
    with pytest.raises(LoadTestError, match="--mix"):
        parse_mix(text, 32)


@pytest.mark.parametrize("text", ["", "0", "1,x", "-3"])
def test_what_are_not_depths_is_refused(text: str) -> None:
    with pytest.raises(LoadTestError, match="--depths"):
        parse_depths(text)


def test_a_mix_is_reported_in_groups_up_to_each_depth() -> None:
    assert parse_depths("8,1,4,4") == (1, 4, 8)
    assert bins((1, 4, 8)) == ((1, 1), (2, 4), (5, 8))
