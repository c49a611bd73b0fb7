"""The shipped logic bundle over HTTP: an expression in, true or false out; a fault has its place named."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.service.servers import shipped_running

EXPRESSIONS = {
    "T": True,
    "F": False,
    "!F": True,
    "!!!T": False,
    "T & F": False,
    "T | F": True,
    "F & F | T": True,  # & before |
    "T | F & F": True,
    "!F & F": False,  # ! before &
    "!(F & F)": True,
    "(T | F) & (F | F)": False,
    "T & !(F | (T & F))": True,
    "\t( ( T ) )\n": True,
    "!(!(!(!(T))))": True,
    "T&T&T&T&T&T&T&F": False,
    "F|F|F|F|F|F|F|T": True,
}


def tower(levels: int, innermost: str) -> str:
    """Each level hands on the value of what is inside."""
    text = innermost
    for level in range(levels):
        text = f"({text}&T)" if level % 2 else f"(F|{text})"
    return text


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with shipped_running() as client:
        yield client


def ask(client: httpx.Client, problem: object, **more: Any) -> httpx.Response:
    return client.post("/v1/infer", json={"model": "logic", "input": problem, **more})


def test_every_expression_is_answered_together_as_alone(client: httpx.Client) -> None:
    problems = [{"expression": expression} for expression in EXPRESSIONS]
    together = ask(client, problems).json()["results"]
    assert [result["answer"] for result in together] == list(EXPRESSIONS.values())
    assert [result["label"] for result in together] == [str(value).lower() for value in EXPRESSIONS.values()]
    for problem, result in zip(problems, together, strict=True):
        alone = ask(client, problem).json()["results"][0]
        assert (alone["answer"], alone["steps"]) == (result["answer"], result["steps"])
        assert alone["halt_reason"] == "halted"


@pytest.mark.parametrize("levels", [1, 4, 6, 8])  # the model loses its way beyond 10: docs/results.md
def test_a_value_far_inside_arrives_and_halting_waits_for_it(client: httpx.Client, levels: int) -> None:
    for innermost, value in (("T", True), ("F", False)):
        (result,) = ask(client, {"expression": tower(levels, innermost)}).json()["results"]
        assert (result["answer"], result["halt_reason"]) == (value, "halted")


def test_blanks_change_neither_answer_nor_depth(client: httpx.Client) -> None:
    one, other = ask(client, [{"expression": text} for text in ("T&!(F|T)", " T & ! ( F | T ) ")]).json()[
        "results"
    ]
    assert (one["answer"], one["steps"]) == (other["answer"], other["steps"])


def test_a_deeper_problem_takes_more_steps(client: httpx.Client) -> None:
    problems = [{"expression": tower(levels, "T")} for levels in (1, 4, 8)]
    steps = [result["steps"] for result in ask(client, problems).json()["results"]]
    assert steps == sorted(set(steps))


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("T & & F", "an operand is missing before character 5, '&'"),
        ("(T", "the bracket opened at character 1 is never closed"),
        ("T and F", "character 3 is 'a': write & for 'and'"),
        ("T ? F", "character 3 is '?': write T, F, !, &, | and brackets"),
        ("", "the expression is empty"),
        ("T" * 255, "255 characters are too many; this server takes 254"),
    ],
)
def test_a_fault_is_named_with_its_place(client: httpx.Client, expression: str, message: str) -> None:
    answer = ask(client, [{"expression": "T"}, {"expression": expression}])
    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == "input.1.expression"
    assert answer.json()["error"]["message"].startswith(message)


def test_the_readout_is_the_row_of_the_bracket_around_the_whole(client: httpx.Client) -> None:
    def latents(select: str) -> Any:
        wanted = {"select": select, "encoding": "json"}
        answer = ask(
            client, {"expression": "T&F"}, max_steps=2, halting={"criterion": "none"}, latents=wanted
        )
        return answer.json()["results"][0]["latents"]

    whole, read = latents("full"), latents("readout")
    assert whole["shape"][0] == 5, "an expression's characters and two brackets"
    assert read["data"] == whole["data"][:1]
