"""The logic codec: every expression of the grammar, none beside it, and each fault with its place."""

from __future__ import annotations

import json
import random
import re

import numpy as np
import pytest

from model.codecs import CodecLimits
from model.codecs.logic import CHARACTERS, LogicCodec, fault_of, tokens_of
from model.errors import RequestError

CODEC = LogicCodec(CodecLimits())


def is_an_expression(text: str) -> bool:
    """The grammar by rewriting, nothing of the codec in it: a bracket with a chain inside is an atom."""
    bare, before = re.sub(r"\s", "", text), ""
    while bare != before:
        before, bare = bare, re.sub(r"\(!*[TF]([&|]!*[TF])*\)", "T", bare)
    return re.fullmatch(r"!*[TF]([&|]!*[TF])*", bare) is not None


def refusal(problem: object, codec: LogicCodec = CODEC) -> tuple[str, str | None]:
    with pytest.raises(RequestError) as caught:
        codec.encode(problem, "input")
    return caught.value.message, caught.value.field


def test_characters_become_tokens_in_one_more_pair_of_brackets() -> None:
    tensors = CODEC.encode({"expression": "T & !F"}, "input")
    assert "".join(CHARACTERS[token] for token in tensors["tokens"]) == "(T&!F)"
    assert tensors["tokens"].dtype == np.int64
    assert tensors["mask"].tolist() == [True] * 6
    assert CODEC.readout_tokens(tensors) == [0], "the bracket around the whole is read"


@pytest.mark.parametrize("text", ["T&F", " T & F ", "T\n&\tF", "\u00a0T\u2003&\u3000F", "T &F" + " " * 5000])
def test_blanks_of_any_kind_and_number_mean_nothing(text: str) -> None:
    assert CODEC.encode({"expression": text}, "input")["tokens"].tolist() == tokens_of("T&F").tolist()


def test_its_example_is_one() -> None:
    assert CODEC.encode(LogicCodec.example, "input")["mask"].all()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "the expression is empty"),
        (" \n\t", "the expression is empty"),
        ("T & x", "character 5 is 'x': write T, F, !, &, | and brackets"),
        ("t", "character 1 is 't'"),
        ("T and F", "character 3 is 'a'"),
        ("T\n& 1", "character 5 is '1'"),
        ("T\u2227F", "character 2 is '\u2227'"),
        ("\uff34", "character 1 is '\uff34'"),
        ("T&\U0001d54b|F", "character 3 is '\U0001d54b'"),
        ("T\u0301", "character 2 is '\u0301'"),
        ("T\x00", "character 2 is '\\x00'"),
        ("\ud800", "character 1 is '\\ud800'"),
        ("T F", "an operator is missing before character 3, 'F': put & or | between"),
        ("TF", "an operator is missing before character 2, 'F'"),
        ("T!F", "an operator is missing before character 2, '!'"),
        ("(T)(F)", "an operator is missing before character 4, '('"),
        ("(T)F", "an operator is missing before character 4, 'F'"),
        ("T & & F", "an operand is missing before character 5, '&': T, F, or brackets"),
        ("T && F", "an operand is missing before character 4, '&': write & for '&&'"),
        ("T|| F", "an operand is missing before character 3, '|': write | for '||'"),
        ("True & F", "character 2 is 'r': write T for 'True'"),
        ("T or FALSE", "character 3 is 'o': write | for 'or'"),
        ("F | FALSE", "character 6 is 'A': write F for 'FALSE'"),
        ("not T", "character 1 is 'n': write ! for 'not'"),
        ("Truer", "character 2 is 'r': write T, F, !, &, | and brackets"),
        ("|T", "an operand is missing before character 1, '|'"),
        ("T & !| F", "an operand is missing before character 6, '|'"),
        ("()", "an operand is missing before character 2, ')'"),
        ("(T & )", "an operand is missing before character 6, ')'"),
        ("T)", "the bracket at character 2 closes nothing: leave it out or open one"),
        ("(T))&F", "the bracket at character 4 closes nothing"),
        ("(T", "the bracket opened at character 1 is never closed: add a )"),
        ("((T) & (F)", "the bracket opened at character 1 is never closed"),
        ("(T) & ((F)", "the bracket opened at character 7 is never closed"),
        ("T &", "the expression ends where an operand is missing: add T, F, or brackets"),
        ("T | !", "the expression ends where an operand is missing"),
    ],
)
def test_every_fault_is_told_with_the_place_of_its_character(text: str, fault: str) -> None:
    message, field = refusal({"expression": text})
    assert message.startswith(fault)
    assert field == "input.expression"


@pytest.mark.parametrize(
    ("problem", "message", "field"),
    [
        ("T", "a logic problem is an object with an expression", "input"),
        (None, "a logic problem is an object with an expression", "input"),
        ([["T"]], "a logic problem is an object with an expression", "input"),
        ({}, "expression is missing: give one like 'T & !(F | T)'", "input.expression"),
        ({"facts": []}, "unknown field; a logic problem has an expression", "input.facts"),
        ({"expresion": "T"}, "unknown field; did you mean expression? a logic", "input.expresion"),
        ({"expression": "T", "steps": 3}, "unknown field; a logic problem has an expression", "input.steps"),
        ({"expression": True}, "an expression is a string like", "input.expression"),
        ({"expression": None}, "an expression is a string like", "input.expression"),
        ({"expression": ["T", "&", "F"]}, "an expression is a string like", "input.expression"),
        ({"expression": b"T"}, "an expression is a string like", "input.expression"),
    ],
)
def test_what_is_no_problem_is_told_with_its_field(problem: object, message: str, field: str) -> None:
    said = refusal(problem)
    assert said[0].startswith(message)
    assert said[1] == field


def test_too_long_counts_characters_without_blanks() -> None:
    for limits in (CodecLimits(max_nodes=7), CodecLimits(axes={"N": 7})):  # with the brackets around it
        codec = LogicCodec(limits)
        assert codec.encode({"expression": " ! ( T )"}, "input")["mask"].sum() == 6
        assert len(codec.encode({"expression": "T & F | T"}, "input")["tokens"]) == 7
        assert refusal({"expression": "T & F | !T"}, codec) == (
            "6 characters are too many; this server takes 5",
            "input.expression",
        )


@pytest.mark.parametrize(
    ("text", "levels", "operands"),
    [
        ("T", 0, 1),
        ("!!!!T", 0, 1),
        ("T & F | !T", 0, 3),
        ("((((T))))", 4, 1),
        ("!!!(F | !!T) & !!!!F", 1, 2),
        ("((T & F) | F) & T", 2, 2),
        ("(T | T | T | T) & F", 1, 4),
        ("(T) & (T & (T | F | T)) & F", 2, 3),
        ("((T)) & F & ((F))", 2, 3),
    ],
)
def test_how_deep_and_how_wide_an_expression_is_is_measured(text: str, levels: int, operands: int) -> None:
    measured = CODEC.measure(CODEC.encode({"expression": text}, "input"))
    assert measured == {"characters": len("".join(text.split())), "levels": levels, "operands": operands}


def test_a_long_text_is_refused_before_it_is_read_character_by_character() -> None:
    message, _ = refusal({"expression": "x" * 300_000})
    assert message == "300000 characters are too many, blanks counted; an expression has at most 65536"


@pytest.mark.parametrize("deep", [100, 125, 250, 5000])
def test_brackets_nest_as_deep_as_there_is_room(deep: int) -> None:
    codec = LogicCodec(CodecLimits(max_nodes=3 * deep + 2))
    text = "(" * deep + "T" + ")" * deep
    assert len(codec.encode({"expression": text}, "input")["tokens"]) == 2 * deep + 3
    message, _ = refusal({"expression": text[:-1]}, codec)
    assert message.startswith("the bracket opened at character 1 is never closed")
    message, _ = refusal({"expression": f"{text})"}, codec)
    assert message.startswith(f"the bracket at character {2 * deep + 2} closes nothing")


def test_what_the_codec_accepts_is_the_grammar() -> None:
    """20,000 strings: anything at all, and expressions with a character changed, left out or put in."""
    draw = random.Random(5)
    accepted = 0
    for _ in range(20_000):
        text = "".join(draw.choices("TF!&|() ", (3, 3, 2, 2, 2, 2, 2, 1), k=draw.randint(1, 9)))
        if draw.random() < 0.5:
            text = changed(draw, expression(draw, 3))
        assert (fault_of(text) is None) == is_an_expression(text), text
        accepted += fault_of(text) is None
    assert 2_000 < accepted < 18_000, "both kinds occur"


def expression(draw: random.Random, deep: int) -> str:
    """One of the grammar, by its rules."""
    parts = [
        "!" * draw.choice((0, 0, 1, 2))
        + (f"({expression(draw, deep - 1)})" if deep and draw.random() < 0.4 else draw.choice("TF"))
        for _ in range(draw.randint(1, 3))
    ]
    return "".join(part + draw.choice("&|") for part in parts)[:-1]


def changed(draw: random.Random, text: str) -> str:
    place = draw.randint(0, len(text))
    new = draw.choice(["", "", *CHARACTERS, " "])
    return text[:place] + new + text[place + draw.randint(0, 1) :]


def test_a_fault_points_at_a_character_of_the_text() -> None:
    """The text up to the character before the fault can be completed; with the character it cannot."""
    draw = random.Random(6)
    for _ in range(3_000):
        text = "".join(draw.choices(CHARACTERS, k=draw.randint(1, 12)))
        found = re.search(r"(?:before|at) character (\d+)(?:,| closes)", fault_of(text) or "")
        if found:
            place = int(found[1])
            assert completable(text[: place - 1])
            assert not completable(text[:place])


def completable(text: str) -> bool:
    """Whether something can follow that makes it an expression."""
    open_ = max(0, text.count("(") - text.count(")"))
    return any(is_an_expression(text + more + ")" * open_) for more in ("", "T"))


def test_refusals_are_short_and_fit_into_json() -> None:
    for text in ("T" * 200, "\ud800" * 100, "(" * 256, "\u202e" * 10):
        message, field = refusal({"expression": text})
        assert len(message) < 120
        assert json.loads(json.dumps([message, field])) == [message, field]
