"""Kinship: {"facts": ["Ann is the parent of Bob", ...], "query": "Cid is the grandchild of Ann"} in tensors.

Relations mean generations, as in "Thinking Deeper, Not Longer" (arXiv 2603.21676, section 4.3): who
is two generations above somebody in one family is called a grandparent, great-uncles included. A
person is a token; names never reach the model, so people may be called anything. Whom the query
compares with is given a generation, and the model works out in which one the other stands.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from model.codecs import CodecLimits, Schema, Tensors, problem_schema, shown, unknown_field
from model.codecs.generations import SPAN, Kin, later
from model.codecs.sentences import HOW, LONGEST, Sentence, names_of, read_sentence, sentences_of
from model.errors import RequestError

START = 1  # where the one stands whom the query compares with

Link = tuple[int, int]  # parent, child


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

    @property
    def schema(self) -> Schema:
        """Facts, as a list or as one text, and a query."""
        sentence = {"type": "string", "minLength": 1, "maxLength": LONGEST}
        several = {"type": "array", "minItems": 1, "maxItems": self.limits.max_edges, "items": sentence}
        return problem_schema(
            "TextProblem",
            "Does the query follow from the facts? Sentences like 'Ann is the parent of Bob'.",
            {"facts": {"anyOf": [several, {"type": "string"}]}, "query": sentence},
        )

    def encode(self, problem: object, field: str) -> Tensors:
        """Raises RequestError naming the fact that cannot be read or contradicts another."""
        facts, query, links = self.read(problem, field)
        people = {name: place for place, name in enumerate(names_of(facts))}
        size = 1 + max(map(max, links))
        parents = np.zeros((size, size), np.bool_)
        for parent, child in links:
            parents[child, parent] = True
        placed, asked = np.zeros((2, size), np.int64)
        placed[people[query.other]] = START
        asked[people[query.one]] = later(START, query.generations)
        return {"placed": placed, "asked": asked, "parents": parents, "mask": np.ones(size, np.bool_)}

    def read(self, problem: object, field: str) -> tuple[list[Sentence], Sentence, list[Link]]:
        """Facts, query, and the single steps the facts are made of. Raises RequestError on any fault."""
        if not isinstance(problem, dict):
            raise RequestError("a text problem is an object with facts and query", field)
        for key in problem:
            if key not in ("facts", "query"):
                raise unknown_field(key, ("facts", "query"), "a text problem has facts and query", field)
        for key in ("facts", "query"):
            if key not in problem:
                raise RequestError(f"{key} is missing: give facts and query", f"{field}.{key}")
        facts = self._facts(problem["facts"], f"{field}.facts")
        people = {name: place for place, name in enumerate(names_of(facts))}
        self._count(len(people), "people", self.limits.tokens(), f"{field}.facts")
        links = self._links(facts, people, f"{field}.facts")
        query = read_sentence(problem["query"], f"{field}.query", question=True)
        for name in (query.one, query.other):
            if name not in people:
                raise RequestError(f"{shown(name)} is in no fact: add one about them", f"{field}.query")
        return facts, query, links

    def measure(self, tensors: Tensors) -> dict[str, int]:
        """people, those between counted, and links from parent to child."""
        return {"people": len(tensors["mask"]), "links": int(tensors["parents"].sum())}

    def readout_tokens(self, tensors: Tensors) -> list[int]:
        """The readout reads the person who is asked about."""
        return [int(tensors["asked"].argmax())]

    def _facts(self, value: object, field: str) -> list[Sentence]:
        """A list of sentences, or one text of sentences that end in full stops or lines."""
        if isinstance(value, str):
            value = list(itertools.islice(sentences_of(value), self.limits.max_edges + 1))
        if not isinstance(value, list):
            raise RequestError("facts must be a list of sentences, or one string of sentences", field)
        if not value:
            raise RequestError(f"there are no facts: give at least one, and {HOW}", field)
        self._count(len(value), "facts", self.limits.max_edges, field)
        return [read_sentence(sentence, f"{field}.{index}") for index, sentence in enumerate(value)]

    def _links(self, facts: list[Sentence], people: dict[str, int], field: str) -> list[Link]:
        """(parent, child) for every single step, unnamed people numbered after the named ones."""
        kin = Kin(len(people))
        said: set[Link] = set()
        links: list[Link] = []
        unnamed = len(people)
        for index, fact in enumerate(facts):
            _agree(kin, fact, people, f"{field}.{index}")
            one, other, generations = people[fact.one], people[fact.other], fact.generations
            if generations < 0 or (generations == 0 and one > other):
                one, other, generations = other, one, -generations
            if (one, other) in said:
                continue
            said.add((one, other))
            between = list(range(unnamed, unnamed + max(generations - 1, 0 if generations else 1)))
            unnamed += len(between)
            self._count(unnamed, "people, those between counted,", self.limits.tokens(), f"{field}.{index}")
            if generations == 0:
                links += [(between[0], one), (between[0], other)]
            else:
                links += itertools.pairwise([one, *between, other])
            self._count(len(links), "single steps", self.limits.max_edges, f"{field}.{index}")
        return links

    def _count(self, number: int, what: str, limit: int, field: str) -> None:
        if number > limit:
            raise RequestError(f"{number} {what} are too many; this server takes {limit}", field)


def _agree(kin: Kin, fact: Sentence, people: dict[str, int], field: str) -> None:
    """Take in a fact. Raises RequestError where the others say otherwise, or a family grows too tall."""
    one, other = people[fact.one], people[fact.other]
    known = kin.between(one, other)
    if known is None:
        span = kin.join(one, other, fact.generations)
        if span > SPAN:
            raise RequestError(
                f"with this, some of one family stand {span} generations apart; {SPAN} are the most "
                "that can be told apart: leave it out",
                field,
            )
    elif known != fact.generations:
        stands = "as high as"
        if known:
            count = "1 generation" if abs(known) == 1 else f"{abs(known)} generations"
            stands = f"{count} {'above' if known > 0 else 'below'}"
        raise RequestError(
            f"this contradicts the rest: by the other facts, {shown(fact.one)} stands {stands} "
            f"{shown(fact.other)}; leave one out",
            field,
        )
