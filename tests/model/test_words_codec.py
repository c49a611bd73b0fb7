"""The words codec: one token a word, names by order of appearance, and nothing it has not learned."""

from __future__ import annotations

from typing import Any

import pytest

from model.codecs import CodecLimits
from model.codecs.words import LENGTH, NAMES, ORIGIN, WORDS, WordsCodec
from model.errors import RequestError

CODECS = {counts: WordsCodec(CodecLimits(), counts) for counts in (False, True)}
BOTH = pytest.mark.parametrize("counts", [False, True], ids=["read at the start", "counts from the mark"])
GOOD: dict[str, Any] = {
    "facts": ["Ann is the parent of Bob", "Cid is the child of Bob."],
    "query": "Cid is the grandchild of Ann?",
}


def told(problem: dict[str, Any], counts: bool = False) -> str:
    tokens = CODECS[counts].encode(problem, "input")["tokens"]
    return " ".join(WORDS[token] for token in tokens.tolist())


@BOTH
def test_sentences_become_words_and_names_become_numbers(counts: bool) -> None:
    assert told(GOOD, counts) == (
        "[CLS] [0] is the parent of [1] . [2] is the child of [1] . [2] is the grandchild of [0] ?"
    )
    assert len(told(GOOD, counts).split()) == 1 + 3 * LENGTH
    tensors = CODECS[counts].encode(GOOD, "input")
    assert tensors["mask"].all()
    assert len(tensors["mask"]) == len(tensors["tokens"])


def test_a_model_that_counts_begins_and_answers_at_the_questions_mark() -> None:
    tensors = CODECS[True].encode(GOOD, "input")
    assert list(tensors) == ["tokens", "placed", "mask"], "in the order of the network's inputs"
    end = len(tensors["tokens"]) - 1
    assert WORDS[tensors["tokens"][end]] == "?"
    assert tensors["placed"].nonzero()[0].tolist() == CODECS[True].readout_tokens(tensors) == [end]
    assert tensors["placed"][end] == ORIGIN
    plain = CODECS[False].encode(GOOD, "input")
    assert list(plain) == ["tokens", "mask"]
    assert CODECS[False].readout_tokens(plain) == [0]


def test_the_words_are_those_of_every_relation_that_can_be_asked_about() -> None:
    assert len(set(WORDS)) == len(WORDS)
    assert {"great-great-grandparent", "sibling", "grandchild"} < set(WORDS)


@BOTH
@pytest.mark.parametrize(
    ("change", "field", "line"),
    [
        (
            {"facts": ["Ann is the grandparent of Cid"]},
            "input.facts.0",
            "facts about parents and children only, not 'grandparent'",
        ),
        (
            {"facts": [GOOD["facts"][0], "Cid is the sibling of Ann"]},
            "input.facts.1",
            "facts about parents and children only, not 'sibling'",
        ),
        ({"facts": [GOOD["facts"][0], "Cid"]}, "input.facts.1", "cannot read 'Cid'"),
        ({"query": "Dan is the child of Ann"}, "input.query", "'Dan' is in no fact"),
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
def test_what_was_never_learned_is_refused(
    change: dict[str, Any], field: str, line: str, counts: bool
) -> None:
    with pytest.raises(RequestError, match=line) as raised:
        CODECS[counts].encode({**GOOD, **change}, "input")
    assert raised.value.field == field


@BOTH
def test_as_many_people_as_there_are_names_are_read(counts: bool) -> None:
    facts = [f"P{place} is the parent of P{place + 1}" for place in range(NAMES - 1)]
    names = told({"facts": facts, "query": facts[0]}, counts).split()[1::LENGTH]
    assert names == [f"[{place}]" for place in (*range(NAMES - 1), 0)]
    assert CODECS[counts].measure(CODECS[counts].encode({"facts": facts, "query": facts[0]}, "input")) == {
        "people": NAMES,
        "facts": NAMES - 1,
    }


@BOTH
def test_a_problem_is_as_long_as_the_model_reads_and_no_longer(counts: bool) -> None:
    facts = [f"P{place % 5} is the parent of P{place % 5 + 1}" for place in range(9)]
    problem = {"facts": facts[:5], "query": "P0 is the parent of P1"}
    codec = WordsCodec(CodecLimits(axes={"N": 1 + 7 * 6 + 6}), counts)
    assert len(codec.encode(problem, "input")["tokens"]) == 1 + 7 * 6
    with pytest.raises(RequestError, match="6 facts are too many; this model reads 5") as raised:
        codec.encode({**problem, "facts": facts[:6]}, "input")
    assert raised.value.field == "input.facts"
