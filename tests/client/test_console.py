"""What people see of answers and of a stream."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from client import Answer, Step
from client.terminal import console
from client.terminal.live import MOST_ROWS, WIDTH, Bounds, Thinking, curve, watched


def result(**more: Any) -> dict[str, Any]:
    ended = {"answer": True, "label": "yes", "steps": 3, "max_steps": 8, "halt_reason": "halted"}
    return {**ended, "probabilities": {"yes": 0.9, "no": 0.1}, **more}


def answer(*results: dict[str, Any]) -> Answer:
    whole = {"id": "a", "model": "m", "version": "1", "results": list(results), "usage": {"steps": 6}}
    return Answer.read({**whole, "timings_ms": {"queue": 0.1, "compute": 0.9, "total": 1.0}})


def step(number: int, **more: Any) -> Step:
    shares = {"yes": number / 10, "no": 1 - number / 10}
    shown = {"index": 0, "step": number, "answer": True, "label": "yes", "probabilities": shares}
    return Step.read({**shown, "scores": {"kl": 1 / number, "cosine": None}, **more})


def drawn(steps: list[Step], bounds: Bounds) -> list[str]:
    thinking = Thinking(bounds)
    for one in steps:
        thinking.add(one)
    screen = Console(width=120, record=True, file=None, force_terminal=False)
    with screen.capture() as shown:
        screen.print(thinking)
    return [line.rstrip() for line in shown.get().splitlines()]


def test_warnings_are_shown_below_the_table_with_their_problem(capsys: pytest.CaptureFixture[str]) -> None:
    console.answer(answer(result(), result(warnings=["it may be [bold]wrong[/]"])))
    shown = capsys.readouterr().out
    assert "problem 1: it may be [bold]wrong[/]" in shown
    assert "problem 0:" not in shown


def test_what_was_asked_for_beside_an_answer_is_shown_below_it(capsys: pytest.CaptureFixture[str]) -> None:
    votes = {"votes": {"yes": 3, "no": 1}, "agreement": 0.75}
    trace = [{"step": 1, "answer": False, "label": "no", "scores": {"kl": 0.5}}]
    asked = result(
        samples=votes, trace=trace, scores={"kl": 0.25}, effect={"kl": 0.1, "answer_changed": True}
    )
    console.answer(answer(asked, result(answer=None, label=None, probabilities=None, error="it broke")), True)
    shown = capsys.readouterr().out
    for words in (
        "problem 0: kl 0.25",
        "problem 0: samples yes 3, no 1; 75.0% agree",
        "problem 0: with the interventions, another answer, KL 0.1 nats",
        "problem 0: step    1  no  kl 0.5",
        "problem 1: it broke",
    ):
        assert words in shown


def test_a_long_list_of_answers_is_cut_short(capsys: pytest.CaptureFixture[str]) -> None:
    console.step(step(2, answer=[True] * 100, label=["yes"] * 100, probabilities=None), True)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("problem 0  step    2  yes yes")
    assert line.endswith("…  kl 0.5")
    assert len(line) < 110


def test_one_problem_is_drawn_with_its_depth_its_probability_and_its_scores() -> None:
    lines = drawn([step(1), step(5), step(9)], Bounds(32, "kl", "halts below 0.02"))
    depth, share, kl = lines[:3]
    assert depth.startswith("depth")
    assert depth.endswith("9 of 32")
    assert share.split() == ["yes", curve([0.1, 0.5, 0.9], 1), "0.9000"]
    assert kl.split() == ["kl", curve([1, 0.2, 1 / 9], 1), "0.1111", "halts", "below", "0.02"]


def test_answers_per_token_are_drawn_as_how_many_of_them_change() -> None:
    steps = [step(1, label=["0", "1", "1"]), step(2, label=["1", "1", "0"]), step(3, label=["1", "1", "0"])]
    assert drawn(steps, Bounds(8))[1].split() == ["changed", curve([3, 2, 0], 3), "0", "of", "3"]


def test_several_problems_have_a_line_each_and_too_many_are_counted() -> None:
    lines = drawn([step(3, index=place) for place in reversed(range(MOST_ROWS + 2))], Bounds(8))
    assert [line.split()[1] for line in lines[:-1]] == [str(place) for place in range(MOST_ROWS)]
    assert lines[-1] == "and 2 more"
    assert "sample 1" in drawn([step(1, sample=0), step(1, sample=1)], Bounds(8))[1]


def test_a_long_thought_shows_its_last_steps_and_keeps_no_others() -> None:
    thinking = Thinking(Bounds(10_000))
    for number in range(1, 1000):
        thinking.add(step(1, step=number))
    screen = Console(width=120)
    with screen.capture() as shown:
        screen.print(thinking)
    assert curve([0.1] * WIDTH, 1) in shown.get()
    assert curve([0.1] * (WIDTH + 1), 1) not in shown.get()


def test_a_stream_that_shows_nothing_yet_can_be_drawn() -> None:
    assert drawn([], Bounds(8)) == [""]
    watched(iter([]), Bounds(8), Console(quiet=True))
    assert drawn([step(1, probabilities=None, scores=None, label=None, answer=None)], Bounds(8))
