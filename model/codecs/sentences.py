"""Sentences about kin: "X is the R of Y", one or a text full of them, and the words for relations.

Nothing here reads a character more often than it must: a problem comes from anybody.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from model.codecs import shown
from model.errors import RequestError

REACH = 16  # generations up and down that have a name
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


@dataclass(frozen=True)
class Sentence:
    """`one` stands `generations` above `other` (below, where negative; 0: siblings)."""

    one: str
    generations: int
    other: str


def names_of(facts: list[Sentence]) -> list[str]:
    """Whom the facts name, in order of appearance."""
    return list(dict.fromkeys(name for fact in facts for name in (fact.one, fact.other)))


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


def sentences_of(text: str) -> Iterator[str]:
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


def read_sentence(value: object, field: str, question: bool = False) -> Sentence:
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
