"""Random expressions: exact depths, and of every part its true value and when that can be known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from model.codecs.logic import fault_of
from training.task import NEVER
from training.tasks.logic.expressions import (
    LONGEST_BEYOND,
    SHAPES,
    UNKNOWN,
    anyhow,
    depth_of,
    guess,
    nested,
    parts_of,
    value_of,
    wide,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def by_python(expression: str) -> bool:
    words = {"T": " True ", "F": " False ", "!": " not ", "&": " and ", "|": " or "}
    return bool(eval("".join(words.get(character, character) for character in expression).strip()))


def closing(text: str, place: int) -> int:
    """Where the bracket opened at `place` closes."""
    level = 0
    for here in range(place, len(text)):
        level += (text[here] == "(") - (text[here] == ")")
        if level == 0:
            return here
    raise AssertionError(text)


def part(text: str, place: int) -> str:
    """The expression that a character stands for, cut out of the text: the oracle for parts_of."""
    assert text[place] != ")", "ask at the opening bracket"
    if text[place] in "TF?":
        return text[place]
    if text[place] == "(":
        return text[place + 1 : closing(text, place)]
    if text[place] == "!":
        end = place + 1
        while text[end] == "!":
            end += 1
        return text[place : (closing(text, end) if text[end] == "(" else end) + 1]
    # To the left and to the right as far as the group goes; `&` ends at `|` too.
    left = right = place
    for step in (-1, 1):
        here, level = place + step, 0
        while True:
            level += (text[here] == "(") - (text[here] == ")")
            if level == -step or (text[place] == "&" and level == 0 and text[here] == "|"):
                break
            here += step
        left, right = (here, right) if step < 0 else (left, here)
    return text[left + 1 : right]


def drawn(rng: np.random.Generator, count: int = 40) -> list[str]:
    expressions = [nested(rng, depth) for depth in range(9) for _ in range(count)]
    expressions += [anyhow(rng, depth) for depth in range(6) for _ in range(count)]
    return expressions + [shape(rng) for shape in SHAPES.values() for _ in range(count)]


def test_every_generator_writes_expressions_that_the_codec_reads(rng: np.random.Generator) -> None:
    for expression in drawn(rng):
        assert fault_of(expression) is None, expression


@pytest.mark.parametrize("depth", [0, 1, 2, 5, 8, 14, 20])
def test_nested_expressions_are_exactly_so_deep(rng: np.random.Generator, depth: int) -> None:
    assert {depth_of(nested(rng, depth)) for _ in range(200)} == {depth}
    assert max(depth_of(anyhow(rng, depth)) for _ in range(40)) <= depth


def test_an_expression_without_brackets_is_an_atom_a_negated_one_or_two(rng: np.random.Generator) -> None:
    lengths = [len(nested(rng, 0)) for _ in range(4000)]
    shares = [lengths.count(length) / 4000 for length in (1, 2, 3)]
    assert shares == pytest.approx([0.5, 0.25, 0.25], abs=0.03)


def test_siblings_are_mostly_shallow(rng: np.random.Generator) -> None:
    """Sibling depth k has weight 2^(depth - 1 - k)."""
    found = [0] * 4
    for _ in range(3000):
        text = nested(rng, 4).removeprefix("!")[1:-1].removeprefix("!")
        end = closing(text, 0) + 1 if text[0] == "(" else 1
        found[min(depth_of(text[:end]), depth_of(text[end:]))] += 1
    assert np.array(found) / 3000 == pytest.approx(np.array([8, 4, 2, 1]) / 15, abs=0.03)


def opening(text: str, place: int) -> int:
    return next(start for start in range(place) if text[start] == "(" and closing(text, start) == place)


def values(text: str) -> list[int]:
    """What an expression can come to as its blanks are filled in: the oracle for three values."""
    blanks = text.count("?")
    fillings = itertools.product("TF", repeat=blanks)
    return sorted({int(by_python(text.replace("?", "{}").format(*filling))) for filling in fillings})


def with_blanks(rng: np.random.Generator, expression: str, most: int) -> str:
    """Some of the atoms hidden."""
    atoms = [place for place, character in enumerate(expression) if character in "TF"]
    hidden = rng.choice(atoms, min(len(atoms), int(rng.integers(0, most + 1))), replace=False).tolist()
    return "".join("?" if place in hidden else character for place, character in enumerate(expression))


def test_wide_expressions_have_many_operands_side_by_side(rng: np.random.Generator) -> None:
    for depth, most in ((0, 3), (6, 39)):  # operators: 4 operands, and 6 more a level
        rows = [wide(rng, depth) for _ in range(400)]
        flat = [sum(sign in "&|" for sign in row) for row in rows if "(" not in row]
        assert 0.8 * most < max(flat) <= most
    for _ in range(100):
        expression = wide(rng, 3)
        assert fault_of(expression) is None
        assert depth_of(expression) <= 3


def test_the_value_of_every_part_is_what_python_says(rng: np.random.Generator) -> None:
    for expression in drawn(rng, 12):
        text = f"({expression})"
        parts = parts_of(expression)
        assert len(parts.value) == len(parts.earliest) == len(parts.due) == len(text)
        for place, character in enumerate(text):
            start = opening(text, place) if character == ")" else place
            assert parts.value[place] == by_python(part(text, start)), (text, place)
        assert value_of(expression) == by_python(expression)


def test_a_value_is_unknown_exactly_where_the_blanks_can_make_it_both(rng: np.random.Generator) -> None:
    found = [0, 0, 0]
    for expression in [text for text in drawn(rng, 12) if len(text) < 80]:
        told = with_blanks(rng, expression, 5)
        text, parts = f"({told})", parts_of(told)
        for place, character in enumerate(text):
            start = opening(text, place) if character == ")" else place
            possible = values(part(text, start))
            assert parts.value[place] == (possible[0] if len(possible) == 1 else UNKNOWN), (text, place)
            found[parts.value[place]] += character not in "TF?"
    assert min(found) > 500, "all three occur"


def test_evidence_arrives_before_the_answer_is_due_and_never_where_nothing_is_known(
    rng: np.random.Generator,
) -> None:
    for expression in drawn(rng, 12):
        told = with_blanks(rng, expression, 8)
        parts = parts_of(told)
        columns = zip(f"({told})", parts.value, parts.earliest, parts.due, strict=True)
        for character, value, earliest, due in columns:
            if character in "TF?":
                assert earliest == due == 0, "an atom is there from the start, or a blank"
                continue
            assert (earliest == NEVER) == (due == NEVER) == (value == UNKNOWN)
            assert 1 <= earliest <= due


@pytest.mark.parametrize(
    ("expression", "earliest", "due"),
    [
        ("T", 1, 1),
        ("!!!T", 4, 4),
        ("T&F", 1, 1),
        ("!T|F", 2, 2),
        ("(T)", 2, 2),
        ("((T|F)&T)", 3, 3),
        ("F|F|F|F", 1, 3),  # a long chain is given a step for each operand past the second
        ("F|F|T|F", 1, 3),
        ("F&!!!!T", 1, 1),  # what settles it stands beside
        ("T&!!!!T", 5, 5),  # what settles it is far away
        ("T&!!!!F", 5, 5),
        ("?&F", 1, 1),
        ("?&T", NEVER, NEVER),
        ("?", NEVER, NEVER),
    ],
)
def test_a_value_takes_a_step_through_every_not_and_every_chain(
    expression: str, earliest: int, due: int
) -> None:
    parts = parts_of(expression)
    assert (parts.earliest[0], parts.due[0]) == (earliest, due)
    assert (parts.earliest[-1], parts.due[-1]) == (earliest, due), "where the whole closes as well"


def test_a_value_whose_evidence_is_farther_away_is_due_later(rng: np.random.Generator) -> None:
    for expression in drawn(rng, 6):
        whole, e = parts_of(expression), expression
        for around, farther in ((f"({e})", 1), (f"({e})&T", 1), (f"F|({e})", 1), (f"!({e})", 2)):
            beyond = parts_of(around)
            assert beyond.earliest[0] == whole.earliest[0] + farther, around
            assert beyond.due[0] == whole.due[0] + farther, around
        assert parts_of(f"F&({e})").due[0] == 1, "what a neighbour settles need not wait"
    towers = [parts_of("(" * levels + "T" + "&T)" * levels) for levels in range(1, 30)]
    for parts in (towers, [parts_of("!" * count + "F") for count in range(1, 40)]):
        for nearer, farther in itertools.pairwise(parts):
            assert farther.due[0] > nearer.due[0]
            assert farther.earliest[0] > nearer.earliest[0]


def test_expressions_as_deep_as_problems_may_be_are_read() -> None:
    for text in ("!(" * 84 + "T" + ")" * 84, "(" * 126 + "T" + ")" * 126):
        assert len(text) <= LONGEST_BEYOND
        assert value_of(text)
    assert parts_of("!(" * 84 + "T" + ")" * 84).due[0] == 1 + 2 * 84


def test_a_guess_looks_at_the_outermost_operator_only() -> None:
    said = {"T|F": True, "T&T": False, "T&F|F": True, "!(T|F)": False, "!!((T&T))": False, "F": False}
    said |= {"!F": True, "(T)": True, "!(T&T)|F&F": True}
    assert {expression: guess(expression) for expression in said} == said
