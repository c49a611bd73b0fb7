"""The text codec: any names, any relation of generations; every fault names its fact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from model.codecs import CodecLimits
from model.codecs.generations import GENERATIONS, SPAN, later
from model.codecs.sentences import REACH, offset_of, relation_of
from model.codecs.text import START, TextCodec
from model.errors import RequestError

CODEC = TextCodec(CodecLimits(max_nodes=12, max_edges=12))
GOOD: dict[str, Any] = {
    "facts": ["Ann is the parent of Bob", "Cid is the child of Bob."],
    "query": "Ann is the grandparent of Cid?",
}


def links(facts: list[str] | str, query: str = GOOD["query"]) -> list[list[int]]:
    """[child, parent] of every link."""
    return np.argwhere(CODEC.encode({"facts": facts, "query": query}, "input")["parents"]).tolist()


def test_facts_become_parents_and_the_query_two_places() -> None:
    tensors = CODEC.encode(GOOD, "input")  # Ann, Bob, Cid
    assert np.argwhere(tensors["parents"]).tolist() == [[1, 0], [2, 1]]
    assert tensors["placed"].tolist() == [0, 0, START]
    assert tensors["asked"].tolist() == [START + 2, 0, 0]
    assert tensors["mask"].all()
    assert CODEC.readout_tokens(tensors) == [0]


def test_asking_downwards_goes_the_other_way_round_the_clock() -> None:
    tensors = CODEC.encode({**GOOD, "query": "Cid is the grandchild of Ann"}, "input")
    assert tensors["placed"].tolist() == [START, 0, 0]
    assert tensors["asked"].tolist() == [0, 0, GENERATIONS - 1]


@pytest.mark.parametrize(
    "facts",
    [
        "Ann is the parent of Bob. Cid is the child of Bob.",
        "Ann is the parent of Bob\nCid is the child of Bob",
        "ann".replace("a", "A") + " IS THE Parent OF Bob.   Cid is a child of Bob !",
        ["  Ann  is the parent of  Bob ", "Cid is the\tchild of Bob."],
        ["Ann is the parent of Bob", "Bob is the child of Ann", "Bob is the parent of Cid"],
    ],
)
def test_sentences_may_be_one_text_or_a_list_and_may_repeat(facts: Any) -> None:
    assert links(facts) == [[1, 0], [2, 1]]


@pytest.mark.parametrize(
    "name", ["Zoë", "Mary Ann", "李雷", "O'Neil-Smith", "is", "Sam Jr.", "the child", "x" * 200, "Zoe\u0308"]
)
def test_people_may_be_called_anything(name: str) -> None:
    for facts in ([f"{name} is the parent of Bob", f"Bob is the parent of {name}2."],):
        query = f"{name} is the grandparent of {name}2?"
        assert links(facts, query) == [[1, 0], [2, 1]]
    assert links(f"{name} is the parent of Bob. Bob is the parent of Cid.", f"{name} is the parent of Bob")


def test_blanks_after_a_name_in_a_full_stop_do_not_end_its_sentence() -> None:
    for blanks in (" ", "  ", "\t ", " " * 50):
        facts = f"Sam Jr.{blanks}is the parent of Bob.{blanks}Bob is the parent of Cid."
        assert links(facts, "Sam Jr. is the grandparent of Cid") == [[1, 0], [2, 1]]


def test_a_letter_and_its_accent_are_one_letter_however_they_were_typed() -> None:
    assert links(["Zo\u00eb is the parent of Bob"], "Bob is the child of Zoe\u0308") == [[1, 0]]


def test_far_relations_become_single_steps_through_unnamed_people() -> None:
    query = "Ann is the parent of Bob"
    assert links(["Ann is the great-grandparent of Bob"], query) == [[1, 3], [2, 0], [3, 2]]
    assert links(["Bob is the great-grandchild of Ann"], query) == [[0, 3], [2, 1], [3, 2]]
    assert links(["Bob is the sibling of Ann"], query) == [[0, 2], [1, 2]]
    siblings = CODEC.encode({"facts": ["Bob is the sibling of Ann"], "query": query}, "input")
    assert siblings["mask"].sum() == 3


def test_relations_have_names_and_the_names_are_read_back() -> None:
    for generations in range(-REACH, REACH + 1):
        assert offset_of(relation_of(generations)) == generations
    assert offset_of("Great-Great-GRANDparent") == 4
    for word in ("uncle", "great-parent", "grand", "grandsibling", "great-sibling", "grand-parent", ""):
        assert offset_of(word) is None


def test_two_words_may_be_one_relation() -> None:
    assert links(["Ann is the great great grandparent of Bob"], "Ann is a Great grandparent of Bob")


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"facts": None}, "input.facts", "a list of sentences, or one string"),
        ({"facts": []}, "input.facts", "there are no facts"),
        ({"facts": " . "}, "input.facts.0", "cannot read"),
        ({"facts": ["Ann is the parent of Bob", 3]}, "input.facts.1", "a sentence is a string"),
        ({"facts": ["Ann likes Bob"]}, "input.facts.0", "cannot read 'Ann likes Bob': write it like"),
        ({"facts": "Ann is the parent of Bob. Ann likes Bob."}, "input.facts.1", "cannot read 'Ann likes"),
        ({"facts": [" is the parent of Bob"]}, "input.facts.0", "cannot read"),
        ({"facts": ["Ann is the parent of ."]}, "input.facts.0", "cannot read"),
        ({"facts": ["Ann is the parent of Bob Bob is the parent of Cid"]}, "input.facts.0", "more than one"),
        (
            {"facts": ["Ann is the uncle of Bob"]},
            "input.facts.0",
            "unknown relation 'uncle'; known are parent",
        ),
        ({"facts": ["Ann is the child of Ann"]}, "input.facts.0", "'Ann' cannot be their own child"),
        (
            {"facts": ["Ann is the parent of Bob", "Bob is the parent of Ann"]},
            "input.facts.1",
            "by the other facts, 'Bob' stands 1 generation below 'Ann'",
        ),
        (
            {"facts": ["Ann is the sibling of Bob", "Cid is the child of Bob", "Bob is the child of Ann"]},
            "input.facts.2",
            "by the other facts, 'Bob' stands as high as 'Ann'",
        ),
        (
            {
                "facts": [
                    "Ann is the parent of Bob",
                    "Bob is the grandparent of Cid",
                    "Cid is the parent of Ann",
                    "Cid is the parent of Dan",
                    "Dan is the parent of Eve",
                ]
            },
            "input.facts.2",
            "by the other facts, 'Cid' stands 3 generations below 'Ann'",
        ),
        (
            {"facts": ["Ann is the sibling of Bob", "Bob is the sibling of Cid", "Ann is the parent of Cid"]},
            "input.facts.2",
            "by the other facts, 'Ann' stands as high as 'Cid'; leave one out",
        ),
        (
            {
                "facts": [
                    "Ann is the parent of Bob",
                    "Bob is the parent of Cid",
                    "Cid is the parent of Dan",
                    "Ann is the grandparent of Dan",
                ]
            },
            "input.facts.3",
            "this contradicts the rest: by the other facts, 'Ann' stands 3 generations above 'Dan'",
        ),
        ({"facts": ["Ann is the " + "great-" * 15 + "grandchild of Bob"]}, "input.facts.0", "17 generations"),
        (
            {"facts": ["Ann is the " + "great-" * 10 + "grandchild of Bob"]},
            "input.facts.0",
            "13 people, those",
        ),
        ({"facts": [f"P{i} is the parent of P{i + 1}" for i in range(12)]}, "input.facts", "13 people are"),
        ({"facts": ["Ann is the parent of Bob"] * 13}, "input.facts", "13 facts are too many"),
        ({"query": "Ann is the parent of Zed"}, "input.query", "'Zed' is in no fact: add one about them"),
        ({"query": "Who is Ann?"}, "input.query", "cannot read"),
        ({"query": "Ann is the boss of Bob"}, "input.query", "unknown relation 'boss'"),
        ({"query": "Ann is the sibling of Ann"}, "input.query", "name two people"),
        ({"query": ["Ann"]}, "input.query", "a sentence is a string"),
        ({"names": []}, "input.names", "unknown field"),
    ],
)
def test_faults_name_their_fact(change: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        CODEC.encode({**GOOD, **change}, "input")
    assert caught.value.field == field


@pytest.mark.parametrize("missing", ["facts", "query"])
def test_what_is_missing_is_named(missing: str) -> None:
    with pytest.raises(RequestError, match=f"{missing} is missing") as caught:
        CODEC.encode({key: value for key, value in GOOD.items() if key != missing}, "input.3")
    assert caught.value.field == f"input.3.{missing}"
    with pytest.raises(RequestError, match="is an object"):
        CODEC.encode([], "input")


def line(people: int) -> list[str]:
    """P0 above P1 above P2 ..., told from both ends, so that families meet late."""
    facts = [f"P{place} is the parent of P{place + 1}" for place in range(people - 1)]
    return [*facts[::2], *facts[1::2]]


def test_a_family_is_as_tall_as_the_clock_can_tell_apart() -> None:
    """One generation more, and the oldest would stand where a question looks for a far descendant."""
    assert later(START, SPAN) != later(START, -REACH)
    assert later(START, SPAN + 1) == later(START, -REACH)
    codec = TextCodec(CodecLimits())
    lowest = f"P{SPAN}"
    for relation in range(-REACH, REACH + 1):
        problem = {"facts": line(SPAN + 1), "query": f"P0 is the {relation_of(relation)} of {lowest}"}
        assert later(START, SPAN) not in codec.encode(problem, "input")["asked"]
    with pytest.raises(RequestError, match="stand 44 generations apart; 43 are the most") as caught:
        codec.encode({"facts": line(SPAN + 2), "query": "P0 is the parent of P1"}, "input")
    assert caught.value.field.startswith("input.facts.")
    apart = [*line(SPAN + 1), *(fact.replace("P", "Q") for fact in line(SPAN + 1))]
    assert codec.encode({"facts": apart, "query": "P0 is the parent of P1"}, "input")["mask"].all()


@pytest.mark.parametrize("seed", range(30))
def test_facts_are_refused_exactly_from_the_first_that_has_no_generations(seed: int) -> None:
    """Against a plain search: random facts, most of them true of somebody's generations."""
    draw = np.random.default_rng(seed)
    people = int(draw.integers(3, 12))
    heights = draw.integers(-5, 6, people)
    facts, known = [], []
    refused = None
    for index in range(25):
        one, other = draw.permutation(people)[:2].tolist()
        above = int(heights[one] - heights[other]) if draw.random() < 0.9 else int(draw.integers(-3, 4))
        facts.append(f"P{one} is the {relation_of(above)} of P{other}")
        said = seen_from(other, known).get(one)
        if said is not None and said != above:
            refused = index
            break
        known.append((one, other, above))
    codec, query = TextCodec(CodecLimits()), facts[0]
    if refused is None:
        assert codec.encode({"facts": facts, "query": query}, "input")["mask"].all()
    else:
        with pytest.raises(RequestError, match="contradicts the rest") as caught:
            codec.encode({"facts": facts, "query": query}, "input")
        assert caught.value.field == f"input.facts.{refused}"


def seen_from(person: int, known: list[tuple[int, int, int]]) -> dict[int, int]:
    """Generations above a person, of everybody who is related to them by what is known."""
    found, waiting = {person: 0}, [person]
    while waiting:
        here = waiting.pop()
        for one, other, above in known:
            for near, far, step in ((one, other, -above), (other, one, above)):
                if near == here and far not in found:
                    found[far] = found[here] + step
                    waiting.append(far)
    return found


def test_a_large_family_is_read_quickly_and_long_lines_are_no_trap() -> None:
    codec = TextCodec(CodecLimits())
    facts = [f"P{i % 250} is the parent of P{250}" for i in range(4096)]
    assert codec.encode({"facts": facts, "query": "P1 is the parent of P250"}, "input")["mask"].sum() == 251
    with pytest.raises(RequestError, match="cannot read"):
        codec.encode({"facts": ["a is the " * 110], "query": ""}, "input")
