"""Boolean expressions: {"expression": "T & !(F | T)"} in tensors.

A token is a character. `!` binds more tightly than `&`, and `&` than `|`, as in "Thinking Deeper, Not
Longer" (arXiv 2603.21676, section 4.2). The model reads the expression in one more pair of brackets,
so that the whole is a group like any other, and answers at the opening one.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.codecs import CodecLimits, Schema, Tensors, problem_schema, unknown_field
from model.errors import RequestError

CHARACTERS = "TF!&|()"  # a token's kind is its place here
AROUND = 2  # tokens beside the characters: the brackets around the whole
LONGEST = 2**16  # characters of an expression, blanks counted
Ints = NDArray[np.int64]
AND, OR, OPENING, CLOSING = (CHARACTERS.index(character) for character in "&|()")
KNOWN = "write T, F, !, &, | and brackets"
OTHERWISE = {  # how others write a character, in small letters
    "T": ("true", "t", "1"),
    "F": ("false", "f", "0"),
    "!": ("not", "~", "\u00ac"),
    "&": ("and", "&&", "\u2227"),
    "|": ("or", "||", "\u2228"),
}
MEANT = {spelled: character for character, others in OTHERWISE.items() for spelled in others}
SPELLED = re.compile(r"\w+|&&|\|\||[~\u00ac\u2227\u2228]")


class LogicCodec:
    """Problem -> tokens (N,) int64, mask (N,) bool; N counts the characters but blanks, and two brackets."""

    example: dict[str, Any] = {"expression": "T & !(F | T)"}  # noqa: RUF012

    def __init__(self, limits: CodecLimits) -> None:
        self.most = max(limits.tokens() - AROUND, 0)  # characters, blanks left out

    @property
    def schema(self) -> Schema:
        """An expression; blanks are counted by its length, which is why it is far above `most`."""
        return problem_schema(
            "LogicProblem",
            "Is the expression true? ! binds more tightly than &, and & than |.",
            {
                "expression": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": LONGEST,
                    "description": f"T, F, !, &, | and brackets, at most {self.most}; blanks mean nothing.",
                }
            },
        )

    def encode(self, problem: object, field: str) -> Tensors:
        """Raises RequestError saying at which character the expression goes wrong, and how."""
        if not isinstance(problem, dict):
            raise RequestError("a logic problem is an object with an expression", field)
        for key in problem:
            if key != "expression":
                raise unknown_field(key, ("expression",), "a logic problem has an expression", field)
        if "expression" not in problem:
            raise RequestError("expression is missing: give one like 'T & !(F | T)'", f"{field}.expression")
        field = f"{field}.expression"
        text = problem["expression"]
        if not isinstance(text, str):
            raise RequestError("an expression is a string like 'T & !(F | T)'", field)
        if len(text) > LONGEST:  # before anything reads it
            raise RequestError(
                f"{len(text)} characters are too many, blanks counted; an expression has at most {LONGEST}",
                field,
            )
        count = sum(map(len, text.split()))  # before anything that reads character by character
        if count > self.most:
            raise RequestError(f"{count} characters are too many; this server takes {self.most}", field)
        if fault := fault_of(text):
            raise RequestError(fault, field)
        tokens = tokens_of(text)
        return {"tokens": tokens, "mask": np.ones(len(tokens), np.bool_)}

    def measure(self, tensors: Tensors) -> dict[str, int]:
        """characters, blanks left out; the most brackets open at once; the most operands side by side."""
        tokens = tensors["tokens"]
        level = deepest = most = 0
        operands = [1]  # so far, of each group that is open
        for kind in tokens.tolist():
            if kind == OPENING:
                level += 1
                operands.append(1)
            elif kind == CLOSING:
                level -= 1
                most = max(most, operands.pop())
            elif kind in (AND, OR):
                operands[-1] += 1
            deepest = max(deepest, level)
        return {"characters": len(tokens) - AROUND, "levels": deepest - 1, "operands": most}

    def readout_tokens(self, tensors: Tensors) -> list[int]:  # noqa: ARG002  it is always the first
        """The readout reads the bracket around the whole."""
        return [0]


def tokens_of(text: str) -> Ints:
    """The kinds of an expression's characters, blanks left out, in one more pair of brackets: (N,)."""
    bare = "".join(text.split())
    return np.array([CHARACTERS.index(character) for character in f"({bare})"], np.int64)


def fault_of(text: str) -> str | None:
    """What is wrong with an expression, naming the character (counted from 1), or None."""
    if not text.strip():
        return "the expression is empty: give one like 'T & !(F | T)'"
    opened: list[int] = []  # where the brackets stand that are still open
    operand = False  # whether the character before ends an operand
    for place, character in enumerate(text, 1):
        if character.isspace():
            continue
        if character not in CHARACTERS:
            return f"character {place} is {character!r}: {_meant(text, place) or KNOWN}"
        if character in "TF!(":
            if operand:
                return f"an operator is missing before character {place}, {character!r}: put & or | between"
            operand = character in "TF"
            if character == "(":
                opened.append(place)
        else:
            if not operand:
                what = _meant(text, place) or "T, F, or brackets"
                return f"an operand is missing before character {place}, {character!r}: {what}"
            operand = character == ")"
            if character == ")":
                if not opened:
                    return f"the bracket at character {place} closes nothing: leave it out or open one"
                opened.pop()
    if opened:
        return f"the bracket opened at character {opened[-1]} is never closed: add a )"
    if not operand:
        return "the expression ends where an operand is missing: add T, F, or brackets"
    return None


def _meant(text: str, place: int) -> str | None:
    """What to write for the word that the character at a place belongs to, where others write it so."""
    for word in SPELLED.finditer(text):
        if word.start() < place <= word.end():
            meant = MEANT.get(word[0].lower())
            return meant and f"write {meant} for {word[0]!r}"
    return None
