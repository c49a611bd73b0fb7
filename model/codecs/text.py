"""Kinship: {"facts": ["Ann is the parent of Bob", ...], "query": "Cid is the grandchild of Ann"} in tensors.

Relations mean generations, as in "Thinking Deeper, Not Longer" (arXiv 2603.21676, section 4.3): who
is two generations above somebody in one family is called a grandparent, great-uncles included. A
person is a token; names never reach the model, so people may be called anything. Whom the query
compares with is given a generation, and the model works out in which one the other stands.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from model.codecs import LONGEST_NAME, CodecLimits, Tensors, shown
from model.errors import RequestError

REACH = 16  # generations up and down that have a name
# Generations are counted around a clock, on which "one up" is everywhere the same turn: 1..GENERATIONS,
# and 0 for "not known". Who is asked about is told apart from anyone up to 43 generations away.
GENERATIONS = 60
START = 1  # where the one stands whom the query compares with

LONGEST = 1000  # characters of a sentence
# A full stop ends a sentence where a space follows, but not in "Sam Jr. is the parent of ...". Nothing
# gives back what it took (`++`), so that blanks are read once.
BETWEEN = re.compile(r"(?<=[.!])\s++(?!is\s++(?:the|an?)\s)|[\n;][\s;]*+", re.IGNORECASE)
ARTICLES = ("the", "a", "an")
GREATS = re.compile(r"(?:great-)*great", re.IGNORECASE)  # a word that another one ends
RELATION = re.compile(r"(?:(great-)*grand|)(parent|child)|sibling")
KNOWN = (
    "parent, child, grandparent, grandchild, great-grandparent, great-great-grandchild and so on, and sibling"
)
HOW = "write it like 'Ann is the parent of Bob'"


Link = tuple[int, int, int]  # parent, child, and the fact that says so
Clock = TypeVar("Clock", int, NDArray[np.integer[Any]])


@dataclass(frozen=True)
class Sentence:
    """`one` stands `generations` above `other` (below, where negative; 0: siblings)."""

    one: str
    generations: int
    other: str


class TextCodec:
    """Problem -> placed (N,) and asked (N,) int64, parents (N, N) bool [i, j]: j is a parent of i, mask (N,).

    People come in the order in which the facts name them, then the unnamed ones between them: a
    grandparent is the parent of somebody who is a parent, siblings have a parent in common.
    """

    example: dict[str, Any] = {  # noqa: RUF012
        "facts": ["Ann is the parent of Bob", "Cid is the child of Bob"],
        "query": "Ann is the grandparent of Cid",
    }

    def __init__(self, limits: CodecLimits) -> None:
        self.limits = limits

    def encode(self, problem: object, field: str) -> Tensors:
        """Raises RequestError naming the fact that cannot be read or contradicts another."""
        facts, query, links = self.read(problem, field)
        people = {name: place for place, name in enumerate(names_of(facts))}
        size = max(len(people), 1 + max(max(link[:2]) for link in links))
        parents = np.zeros((size, size), np.bool_)
        for parent, child, _ in links:
            parents[child, parent] = True
        placed, asked = np.zeros((2, size), np.int64)
        placed[people[query.other]] = START
        asked[people[query.one]] = later(START, query.generations)
        return {"placed": placed, "asked": asked, "parents": parents, "mask": np.ones(size, np.bool_)}

    def read(self, problem: object, field: str) -> tuple[list[Sentence], Sentence, list[Link]]:
        """Facts, query, and the single steps the facts are made of. Raises RequestError on any fault."""
        if not isinstance(problem, dict):
            raise RequestError("a text problem is an object with facts and query", field)
        for key in ("facts", "query"):
            if key not in problem:
                raise RequestError(f"{key} is missing: give facts and query", f"{field}.{key}")
        for key in problem:
            if key not in ("facts", "query"):
                raise RequestError(
                    "unknown field; a text problem has facts and query", f"{field}.{key[:LONGEST_NAME]}"
                )
        facts = self._facts(problem["facts"], f"{field}.facts")
        people = {name: place for place, name in enumerate(names_of(facts))}
        self._count(len(people), "people", self.limits.max_nodes, f"{field}.facts")
        links = self._links(facts, people, f"{field}.facts")
        _refuse_loops(links, f"{field}.facts")
        query = _read(problem["query"], f"{field}.query", question=True)
        for name in (query.one, query.other):
            if name not in people:
                raise RequestError(f"{shown(name)} is in no fact: add one about them", f"{field}.query")
        return facts, query, links

    def readout_tokens(self, tensors: Tensors) -> list[int]:
        """The readout reads the person who is asked about."""
        return [int(tensors["asked"].argmax())]

    def _facts(self, value: object, field: str) -> list[Sentence]:
        """A list of sentences, or one text of sentences that end in full stops or lines."""
        if isinstance(value, str):
            value = list(itertools.islice(_sentences(value), self.limits.max_edges + 1))
        if not isinstance(value, list):
            raise RequestError("facts must be a list of sentences, or one string of sentences", field)
        if not value:
            raise RequestError(f"there are no facts: give at least one, and {HOW}", field)
        self._count(len(value), "facts", self.limits.max_edges, field)
        return [_read(sentence, f"{field}.{index}") for index, sentence in enumerate(value)]

    def _links(self, facts: list[Sentence], people: dict[str, int], field: str) -> list[Link]:
        """(parent, child, fact) for every single step, unnamed people numbered after the named ones."""
        said: dict[tuple[str, str], tuple[int, int]] = {}
        links: list[Link] = []
        unnamed = len(people)
        for index, fact in enumerate(facts):
            one, other, generations = fact.one, fact.other, fact.generations
            if generations < 0 or (generations == 0 and people[one] > people[other]):
                one, other, generations = other, one, -generations
            for pair, sign in (((one, other), 1), ((other, one), -1)):
                before, place = said.get(pair, (sign * generations, index))
                if before != sign * generations:
                    raise RequestError(
                        f"this contradicts fact {place} on {shown(one)} and {shown(other)}: leave one out",
                        f"{field}.{index}",
                    )
            if (one, other) in said:
                continue
            said[one, other] = generations, index
            between = list(range(unnamed, unnamed + max(generations - 1, 0 if generations else 1)))
            unnamed += len(between)
            self._count(unnamed, "people, those between counted,", self.limits.max_nodes, f"{field}.{index}")
            if generations == 0:
                links += [(between[0], people[one], index), (between[0], people[other], index)]
            else:
                line = [people[one], *between, people[other]]
                links += [(*pair, index) for pair in itertools.pairwise(line)]
            self._count(len(links), "single steps", self.limits.max_edges, f"{field}.{index}")
        return links

    def _count(self, number: int, what: str, limit: int, field: str) -> None:
        if number > limit:
            raise RequestError(f"{number} {what} are too many; this server takes {limit}", field)


def later(place: Clock, generations: Clock) -> Clock:
    """The place on the clock so many generations up from another: 1..GENERATIONS, numbers or arrays."""
    return (place + generations - 1) % GENERATIONS + 1


def offset_of(relation: str) -> int | None:
    """Generations that a relation's word puts its bearer above the other: grandchild -> -2. None: no word."""
    word = relation.lower()
    if RELATION.fullmatch(word) is None:
        return None
    if word == "sibling":
        return 0
    steps = 1 + word.count("great-") + word.count("grand")
    return steps if word.endswith("parent") else -steps


def relation_of(generations: int) -> str:
    """The word for standing that many generations above: -2 -> grandchild."""
    if generations == 0:
        return "sibling"
    far, stem = abs(generations), "parent" if generations > 0 else "child"
    return stem if far == 1 else "great-" * (far - 2) + "grand" + stem


def _sentences(text: str) -> Iterator[str]:
    """The sentences of a text, one by one: nobody reads on behind one that is too long, or one too many."""
    start = 0
    while start < len(text):
        gap = BETWEEN.search(text, start, start + 2 * LONGEST)  # a gap beyond comes too late
        end, following = gap.span() if gap else (start + 2 * LONGEST, len(text))
        sentence = text[start:end]
        if sentence.strip() or len(sentence) > LONGEST:
            yield sentence
        start = following


def _parts(words: list[str]) -> tuple[str, str, str] | None:
    """A sentence's three parts, of "X is the R of Y": the first X, and of the R the longest. None: not one.

    It walks over the words once. Only "great" and "great-great" make a relation of several words.
    """
    for place in range(1, len(words) - 4):
        if words[place].lower() != "is" or words[place + 1].lower() not in ARTICLES:
            continue
        relation = last = place + 2
        while last < len(words) and GREATS.fullmatch(words[last]):
            last += 1
        for end in range(min(last, len(words) - 3), relation - 1, -1):
            if words[end + 1].lower() == "of":
                return (
                    " ".join(words[:place]),
                    " ".join(words[relation : end + 1]),
                    " ".join(words[end + 2 :]),
                )
    return None


def _read(value: object, field: str, question: bool = False) -> Sentence:
    """One sentence. Raises RequestError that says what is wrong with it."""
    if not isinstance(value, str):
        raise RequestError(f"a sentence is a string: {HOW}", field)
    if len(value) > LONGEST:  # before anything reads it
        raise RequestError(f"a sentence of over {LONGEST} characters, blanks counted, is too long", field)
    words = unicodedata.normalize("NFC", value).split()
    found = _parts(" ".join(words).rstrip("?. " if question else ".! ").split(" "))
    # A name may end in a full stop, which at the end of a sentence nobody writes twice.
    one, said, other = found or ("", "", "")
    one, other = one.rstrip(". "), other.rstrip(". ")
    if not one or not other:
        raise RequestError(f"cannot read {shown(value)}: {HOW}", field)
    if _parts(other.split(" ")):
        raise RequestError(f"{shown(value)} is more than one sentence: put a full stop between", field)
    relation = said.lower().replace(" ", "-")
    generations = offset_of(relation)
    if generations is None:
        raise RequestError(f"unknown relation {shown(said)}; known are {KNOWN}", field)
    if abs(generations) > REACH:
        raise RequestError(f"{abs(generations)} generations are too many; at most {REACH} have a name", field)
    if one == other:
        raise RequestError(f"{shown(one)} cannot be their own {relation}: name two people", field)
    return Sentence(one, generations, other)


def names_of(facts: list[Sentence]) -> list[str]:
    """Whom the facts name, in order of appearance."""
    return list(dict.fromkeys(name for fact in facts for name in (fact.one, fact.other)))


def _refuse_loops(links: list[Link], field: str) -> None:
    """Nobody is their own ancestor. Raises RequestError naming the last fact of a loop."""
    left = links
    for older, younger in ((0, 1), (1, 0)):  # what stands above every loop goes first, then what stands below
        waiting: dict[int, int] = {}
        after: dict[int, list[int]] = {}
        for link in left:
            waiting[link[younger]] = waiting.get(link[younger], 0) + 1
            after.setdefault(link[older], []).append(link[younger])
        free = [person for person in after if person not in waiting]
        while free:
            for person in after.get(free.pop(), []):
                waiting[person] -= 1
                if waiting[person] == 0:
                    del waiting[person]
                    free.append(person)
        left = [link for link in left if link[0] in waiting and link[1] in waiting]
    if left:
        fact = max(link[2] for link in left)
        raise RequestError("the facts make somebody their own ancestor: leave one out", f"{field}.{fact}")
