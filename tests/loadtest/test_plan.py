"""Plans, budgets and schedules."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtest.drive.arrivals import parse_arrivals
from loadtest.drive.budgets import bins, parse_depths, parse_mix
from loadtest.drive.cells import alone_cells, load_cells, probe_cells
from loadtest.errors import LoadTestError
from loadtest.plan import LoadPlan, make_plan


def plan(**changes: Any) -> LoadPlan:
    return LoadPlan(**{"url": "http://127.0.0.1:1", "model": None, "concurrency": (4,), **changes})


def test_every_level_and_depth_is_measured_in_every_repeat_in_an_order_of_its_own() -> None:
    cells = load_cells(plan(concurrency=(), rate=(10.0, 20.0), depths=(1, 2, 4, 8), repeats=3))
    rounds = [[(c.level, c.depth) for c in cells if c.repeat == repeat] for repeat in range(3)]
    assert [len(set(round_)) for round_ in rounds] == [8, 8, 8]
    assert rounds[0] != rounds[1]


def test_the_baseline_is_one_user_at_every_depth_in_every_repeat() -> None:
    cells = alone_cells(plan(depths=(4, 8), repeats=2))
    assert [(cell.depth, cell.repeat) for cell in cells] == [(4, 0), (8, 0), (4, 1), (8, 1)]
    assert alone_cells(plan(alone_s=0)) == []


def test_the_probe_is_held_against_the_same_requests_without_deep_ones() -> None:
    control, among = probe_cells(plan(depths=(4, 8)), level=4.0)
    assert (control.level, among.level, among.depth) == (0, 4, 8)
    assert control.probe_rate == among.probe_rate > 0
    assert control.length_s == among.length_s
    assert probe_cells(plan(probe_s=0), level=4.0) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"url": "localhost:8000"}, "http://HOST:PORT"),
        ({"rate": (5.0,)}, "give one of"),
        ({"duration_s": 0}, "--duration"),
        ({"warmup_s": -1}, "--warmup"),
        ({"max_error_rate": 2}, "--max-error-rate"),
        ({"protocol": "v2", "problems": Path("p"), "stream": True}, "--stream"),
        ({"protocol": "v2", "problems": Path("p"), "halting": {"target_accuracy": 0.9}}, "target_accuracy"),
        ({"protocol": "v3"}, "--protocol 'v3': choose v1 or v2"),
        ({"protocol": "v2"}, "needs --problems"),
        ({"concurrency": (0,)}, "--concurrency"),
        ({"cancel": 1.5}, "--cancel must be at least 0 and at most 1"),
        ({"plan": 100.0}, "--plan needs --sweep"),
        ({"arrivals": "gamma"}, "--arrivals"),
        ({"concurrency": (), "sweep": True, "arrivals": "ramp"}, "steady rate"),
        ({"duration_s": float("nan")}, "--duration"),
    ],
)
def test_a_plan_that_makes_no_sense_names_the_flag(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(LoadTestError, match=words):
        plan(**changes)


def test_secrets_are_not_part_of_what_a_plan_says_of_itself() -> None:
    assert "hush" not in repr(plan(api_key="hush", header={"x-key": "hush"}))


def test_flags_become_a_plan_and_what_is_wrong_is_told_by_its_flag() -> None:
    made = make_plan(
        "http://127.0.0.1:1/",
        {"depths": "8,2", "rate": "5,2.5", "halting": "default", "header": "a-b=1,c=x=y"},
    )
    assert (made.url, made.depths, made.rate) == ("http://127.0.0.1:1", (2, 8), (5.0, 2.5))
    assert (made.halting, made.header) == (None, {"a-b": "1", "c": "x=y"})
    assert make_plan("http://h", {}).concurrency == (8,)
    assert make_plan("http://h", {"replay": Path("r")}).mix == "recorded"
    with pytest.raises(LoadTestError, match="--difficulty '5-1': give a number or a range"):
        make_plan("http://h", {"difficulty": "5-1"})


def test_gamma_arrivals_have_the_rate_and_the_scatter_that_was_asked_for() -> None:
    for variation in (0.5, 3.0):
        gaps = np.diff(parse_arrivals(f"gamma:{variation}").times(100, 400, 1))
        assert gaps.mean() == pytest.approx(0.01, rel=0.06)
        assert gaps.std() == pytest.approx(variation * gaps.mean(), rel=0.06)


def test_a_ramp_climbs_evenly_from_nothing_to_the_rate() -> None:
    due = np.array(parse_arrivals("ramp").times(200, 100, 1))
    counts = np.histogram(due, bins=4, range=(0, 100))[0]
    assert counts == pytest.approx(200 * 25 * np.array([1, 3, 5, 7]) / 8, rel=0.1)


@pytest.mark.parametrize("text", ["uniform", "gamma:0", "gamma:99", "gamma:x", "ramp:2"])
def test_what_are_not_arrivals_is_refused(text: str) -> None:
    with pytest.raises(LoadTestError, match="--arrivals"):
        parse_arrivals(text)


def test_constant_arrivals_are_evenly_spaced() -> None:
    assert parse_arrivals("constant").times(10, 0.5, 0) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_poisson_arrivals_have_the_rate_and_the_scatter_of_a_poisson_process() -> None:
    due = np.array(parse_arrivals("poisson").times(200, 100, 1))
    gaps = np.diff(due)
    assert len(due) == pytest.approx(20_000, rel=0.03)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)
    assert due.max() < 100
    again = parse_arrivals("poisson").times(200, 100, 1)
    assert list(due) == again


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
    with pytest.raises(LoadTestError, match="whole numbers of steps"):
        parse_depths(text)


def test_a_mix_is_reported_in_groups_up_to_each_depth() -> None:
    assert parse_depths("8,1,4,4") == (1, 4, 8)
    assert bins((1, 4, 8)) == ((1, 1), (2, 4), (5, 8))
