"""The words codec: one token a word, names by order of appearance, and nothing it has not learned."""

from __future__ import annotations

from typing import Any

import pytest

from model.codecs import CodecLimits
from model.codecs.words import LENGTH, NAMES, WORDS, WordsCodec
from model.errors import RequestError

CODEC = WordsCodec(CodecLimits())
GOOD: dict[str, Any] = {
    "facts": ["Ann is the parent of Bob", "Cid is the child of Bob."],
    "query": "Cid is the grandchild of Ann?",
}


def told(problem: dict[str, Any]) -> str:
    return " ".join(WORDS[token] for token in CODEC.encode(problem, "input")["tokens"].tolist())


def test_sentences_become_words_and_names_become_numbers() -> None:
    assert told(GOOD) == (
        "[CLS] [0] is the parent of [1] . [2] is the child of [1] . [2] is the grandchild of [0] ?"
    )
    assert CODEC.readout_tokens(CODEC.encode(GOOD, "input")) == [0]
    assert len(told(GOOD).split()) == 1 + 3 * LENGTH


def test_the_words_are_those_of_every_relation_that_can_be_asked_about() -> None:
    assert len(set(WORDS)) == len(WORDS)
    assert {"great-great-grandparent", "sibling", "grandchild"} < set(WORDS)


@pytest.mark.parametrize(
    ("change", "field", "line"),
    [
        (
            {"facts": ["Ann is the grandparent of Cid"]},
            "input.facts.0",
            "facts about parents and children only",
        ),
        ({"query": "Cid is the boss of Ann"}, "input.query", "unknown relation"),
        (
            {
                "facts": [f"P{place} is the parent of P{place + 1}" for place in range(NAMES)],
                "query": "P0 is the parent of P1",
            },
            "input.facts",
            f"{NAMES + 1} people are too many; this model knows {NAMES} names",
        ),
    ],
)
def test_what_was_never_learned_is_refused(change: dict[str, Any], field: str, line: str) -> None:
    with pytest.raises(RequestError, match=line) as raised:
        CODEC.encode({**GOOD, **change}, "input")
    assert raised.value.field == field


def test_a_problem_is_as_long_as_the_model_reads_and_no_longer() -> None:
    facts = [f"P{place % 5} is the parent of P{place % 5 + 1}" for place in range(9)]
    problem = {"facts": facts[:5], "query": "P0 is the parent of P1"}
    codec = WordsCodec(CodecLimits(axes={"N": 1 + 7 * 6 + 6}))
    assert len(codec.encode(problem, "input")["tokens"]) == 1 + 7 * 6
    with pytest.raises(RequestError, match="6 facts are too many; this model reads 5") as raised:
        codec.encode({**problem, "facts": facts[:6]}, "input")
    assert raised.value.field == "input.facts"
