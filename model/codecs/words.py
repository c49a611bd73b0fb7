"""Kinship word by word: the same sentences as in model/codecs/text.py, one token for each word.

The interface of "Thinking Deeper, Not Longer" (arXiv 2603.21676, section 4.3): a token to answer at,
the facts, the query last. Every name is one of NAMES tokens that mean nothing by themselves: training
draws them anew for every problem, so here the names of a problem get them in order of appearance.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from model.codecs import CodecLimits, Schema, Tensors
from model.codecs.generations import GENERATIONS
from model.codecs.sentences import REACH, Sentence, names_of, relation_of
from model.codecs.text import TextCodec
from model.errors import RequestError

NAMES = 32  # people of a problem, at most
RELATIONS = tuple(relation_of(generations) for generations in range(-REACH, REACH + 1))
WORDS = ("[CLS]", "is", "the", "of", ".", "?", *RELATIONS, *(f"[{name}]" for name in range(NAMES)))
KINDS = {word: kind for kind, word in enumerate(WORDS)}
BLANK = len(WORDS)  # the kind of a word that is not known yet; training has it
ORIGIN = GENERATIONS  # the generation from which a question counts
ANSWER, IS, THE, OF, STOP, ASK = range(6)
RELATION = KINDS["sibling"]  # the kind of a relation's word is this plus its generations
NAME = KINDS["[0]"]  # the kind of a name is this plus its number
LENGTH = 7  # tokens of a sentence: "[0] is the parent of [1] ."
ASKED = 4  # the relation asked about stands so many tokens before the end


class WordsCodec:
    """Problem -> tokens (N,) int64, mask (N,) bool: one token, and LENGTH for each fact and the query.

    Where a model counts from the question's mark, placed (N,) int64 says from which generation.
    """

    example: dict[str, Any] = TextCodec.example

    def __init__(self, limits: CodecLimits, counts: bool) -> None:
        """counts: whether the model counts from the question's mark, and answers there."""
        self._counts = counts
        self._text = TextCodec(limits)
        self._most = limits.axes.get("N")  # tokens; the server's own limits count people and facts

    @property
    def schema(self) -> Schema:
        """As the other codec's for sentences."""
        return self._text.schema

    def encode(self, problem: object, field: str) -> Tensors:
        """Raises RequestError as the other codec for sentences does, and where a word was never learned."""
        facts, query, _ = self._text.read(problem, field)
        names = names_of(facts)
        if len(names) > NAMES:
            raise RequestError(
                f"{len(names)} people are too many; this model knows {NAMES} names", f"{field}.facts"
            )
        for index, fact in enumerate(facts):
            if abs(fact.generations) != 1:
                relation = relation_of(fact.generations)
                raise RequestError(
                    f"this model reads facts about parents and children only, not {relation!r}",
                    f"{field}.facts.{index}",
                )
        count = 1 + LENGTH * (len(facts) + 1)
        if self._most is not None and count > self._most:
            most = (self._most - 1) // LENGTH - 1
            raise RequestError(f"{len(facts)} facts are too many; this model reads {most}", f"{field}.facts")
        tokens = [ANSWER]
        for sentence, end in (*((fact, STOP) for fact in facts), (query, ASK)):
            tokens += _tokens(sentence, names, end)
        placed = np.zeros(len(tokens), np.int64)
        placed[-1] = ORIGIN
        given = {"placed": placed} if self._counts else {}
        return {"tokens": np.array(tokens, np.int64), **given, "mask": np.ones(len(tokens), np.bool_)}

    def measure(self, tensors: Tensors) -> dict[str, int]:
        """people and facts."""
        tokens = tensors["tokens"]
        return {"people": len(set(tokens[tokens >= NAME].tolist())), "facts": len(tokens) // LENGTH - 1}

    def readout_tokens(self, tensors: Tensors) -> list[int]:
        """The readout reads the question's mark, or the token before the first sentence."""
        return [len(tensors["tokens"]) - 1 if self._counts else 0]


def _tokens(sentence: Sentence, names: list[str], end: int) -> list[int]:
    one, other = (NAME + names.index(name) for name in (sentence.one, sentence.other))
    return [one, IS, THE, RELATION + sentence.generations, OF, other, end]
