"""The shipped text bundle over HTTP: sentences in, true or false out; a fact that is no fact is named."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.service.servers import shipped_running

FAMILY = (
    "Zoë is the parent of Mary Ann. Cid is the child of Mary Ann. Mary Ann is the sibling of 李雷. "
    "Dr is the great-grandparent of Cid. O'Neil is the parent of Nobody"
)
QUESTIONS = {
    "Zoë is the grandparent of Cid?": True,
    "Zoë is the parent of Cid?": False,
    "Cid is the grandchild of Zoë": True,
    "李雷 is the parent of Cid.": True,  # an uncle: one generation up
    "Dr is the parent of Zoë": True,
    "Dr is the sibling of Zoë": False,
    "Mary Ann is the sibling of 李雷": True,
    "Nobody is the sibling of Cid": False,  # not related at all
    "O'Neil is the parent of Nobody": True,
}


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with shipped_running() as client:
        yield client


def ask(client: httpx.Client, problem: object, **more: Any) -> httpx.Response:
    return client.post("/v1/infer", json={"model": "text", "input": problem, **more})


def test_every_question_about_a_family_is_answered_together_as_alone(client: httpx.Client) -> None:
    problems = [{"facts": FAMILY, "query": query} for query in QUESTIONS]
    together = ask(client, problems).json()["results"]
    assert [result["answer"] for result in together] == list(QUESTIONS.values())
    assert {result["label"] for result in together} == {"true", "false"}
    for problem, result in zip(problems, together, strict=True):
        alone = ask(client, problem).json()["results"][0]
        assert (alone["answer"], alone["steps"]) == (result["answer"], result["steps"])
        assert alone["halt_reason"] == "halted"


def test_a_stream_shows_the_moment_at_which_word_arrives(client: httpx.Client) -> None:
    facts = [f"P{i} is the parent of P{i + 1}" for i in range(6)]
    problem = {"facts": facts, "query": "P0 is the great-great-great-great-grandparent of P6"}
    answer = ask(client, problem, max_steps=12, halting={"criterion": "none"}, include=["trace"]).json()
    said = [step["answer"] for step in answer["results"][0]["trace"]]
    assert said == [False] * 5 + [True] * 7


def test_a_fact_that_is_none_is_named(client: httpx.Client) -> None:
    facts = ["Ann is the parent of Bob", "Ann is the aunt of Cid"]
    answer = ask(client, [{"facts": facts, "query": "Ann is the parent of Bob"}])
    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == "input.0.facts.1"
    assert "unknown relation 'aunt'; known are parent" in answer.json()["error"]["message"]
