"""Problems in words mean what the same problems in JSON mean."""

from __future__ import annotations

from typing import Any

import pytest

from client import Invalid, Model
from client.terminal.written import from_words
from model.codecs import Codec, CodecLimits
from model.codecs.graph import GraphCodec
from model.codecs.logic import LogicCodec
from model.codecs.text import TextCodec

GRAPH, LOGIC, TEXT = (codec(CodecLimits()) for codec in (GraphCodec, LogicCodec, TextCodec))


def of(codec: Codec) -> Model:
    """What a server says of a model with this codec."""
    return Model(
        name="m",
        version="1",
        task="t",
        steps={},
        halting={},
        criteria=[],
        example=codec.example,
        schema=codec.schema,
    )


FACTS = "Ann is the parent of Bob", "Cid is the child of Bob"
QUERY = "Ann is the grandparent of Cid"
LINKS = [["a", "b"], ["b", "c"], ["c", "d"]]


@pytest.mark.parametrize(
    ("words", "codec", "problem"),
    [
        ("T & !(F | T)", LOGIC, {"expression": "T & !(F | T)"}),
        ("T &\n F\n", LOGIC, {"expression": "T &\n F"}),
        ("a b, b c ? a c", GRAPH, {"edges": [["a", "b"], ["b", "c"]], "source": "a", "target": "c"}),
        ("a -> b->c; c d\n? d a", GRAPH, {"edges": LINKS, "source": "d", "target": "a"}),
        ("1 2\n2 3\n? 1 -> 3\n", GRAPH, {"edges": [["1", "2"], ["2", "3"]], "source": "1", "target": "3"}),
        ("\n".join([*FACTS, f"? {QUERY}"]), TEXT, TEXT.example),
        (". ".join([*FACTS, f"? {QUERY}"]), TEXT, TEXT.example),
        (". ".join([*FACTS, f"{QUERY}?"]), TEXT, TEXT.example),
        (".\n".join([*FACTS, f"{QUERY}?\n"]), TEXT, TEXT.example),
    ],
)
def test_words_are_read_as_the_problem_they_say(words: str, codec: Codec, problem: Any) -> None:
    read = codec.encode(from_words(words, of(codec)), "input")
    meant = codec.encode(problem, "input")
    assert read.keys() == meant.keys()
    assert all((read[name] == meant[name]).all() for name in meant)


@pytest.mark.parametrize(
    ("words", "codec", "message"),
    [
        ("a b, b c", GRAPH, "a graph ends with the question"),
        ("a b ? a", GRAPH, "a graph ends with the question"),
        ("a b, c ? a b", GRAPH, "'c' is no edge: write two nodes"),
        ("a -> ? a b", GRAPH, "is no edge"),
        ("Ann is the parent of Bob", TEXT, "write the facts"),
        ("? Ann is the parent of Bob", TEXT, "write the facts"),
        ("Ann is the parent of Bob?", TEXT, "write the facts"),
        ("", TEXT, "write the facts"),
    ],
)
def test_words_that_are_no_problem_are_told_what_to_write(words: str, codec: Codec, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        from_words(words, of(codec))


def test_a_model_whose_problems_have_no_words_shows_its_example() -> None:
    grid = Model(
        name="grid", version="1", task="t", steps={}, halting={}, criteria=[], example={"cells": [1]}
    )
    with pytest.raises(Invalid, match=r'a problem for grid is written as JSON, such as {"cells": \[1\]}'):
        from_words("1 2 3", grid)
