"""Random boolean expressions, and the value of every part of one.

`nested` is the generator of "Thinking Deeper, Not Longer" (arXiv 2603.21676, section 4.2); `anyhow`
draws what else the grammar allows: chains without brackets, brackets without need, `!` upon `!`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from training.task import NEVER

FALSE, TRUE, UNKNOWN = range(3)  # in the order of the classes
LONGEST, DEEP = 128, 14  # characters of an expression, and to what depth: the paper's limits
LONGEST_BEYOND = 254  # of a deeper one; with the brackets around the whole 256 tokens


def nested(rng: np.random.Generator, depth: int) -> str:
    """An expression of exactly this nesting depth: 0 is `T`, `!T` or `T & F`, without brackets."""
    if depth == 0:
        draw = rng.random()
        if draw < 0.5:
            return _atom(rng)
        return f"!{_atom(rng)}" if draw < 0.75 else f"{_atom(rng)}{_operator(rng)}{_atom(rng)}"
    parts = [nested(rng, depth - 1), nested(rng, _shallower(rng, depth))]
    if rng.random() < 0.5:
        parts.reverse()
    return ("!" if rng.random() < 0.25 else "") + f"({parts[0]}{_operator(rng)}{parts[1]})"


def anyhow(rng: np.random.Generator, depth: int) -> str:
    """An expression of at most this nesting depth, of any shape the grammar allows.

    Each has a taste of its own: some are all chains, some all `!`, some all brackets.
    """
    return _anyhow(rng, depth, nots=rng.random() ** 3, lone=rng.random() ** 3, longest=6 if depth else 12)


def wide(rng: np.random.Generator, depth: int) -> str:
    """Up to 4 operands side by side and 6 more a level, most of them atoms, one operator more often."""
    ands, deep = rng.random(), rng.random() ** 3
    text = ""
    for place in range(int(rng.integers(2, 5 + 6 * depth))):
        operator = ("&" if rng.random() < ands else "|") if place else ""
        inside = depth > 0 and rng.random() < 0.3 * deep
        operand = f"({anyhow(rng, depth - 1)})" if inside else _atom(rng)
        text += operator + "!" * int(rng.random() < 0.25) + operand
    return text


def _anyhow(rng: np.random.Generator, depth: int, nots: float, lone: float, longest: int) -> str:
    """nots: how often one `!` follows upon another; lone: how often a bracket holds a single operand."""
    count = 1 if rng.random() < lone else int(rng.integers(2, longest + 1) ** rng.random() + 0.5)
    parts: list[str] = []
    for place in range(count):
        signs = "!" * min(8, int(rng.geometric(1 - 0.8 * nots)) - 1)
        if depth == 0 or rng.random() < (0.7 if place else 0.1):
            parts.append(signs + _atom(rng))
        else:
            inner = _shallower(rng, depth) if place else depth - 1
            parts.append(f"{signs}({_anyhow(rng, inner, nots, lone, longest)})")
    order = rng.permutation(count)
    return "".join(f"{_operator(rng) if place else ''}{parts[part]}" for place, part in enumerate(order))


def chain(rng: np.random.Generator) -> str:
    """Up to 40 operands in a row without brackets, most operators alike."""
    return _row(rng, int(rng.integers(4, 41)), "&|"[int(rng.integers(0, 2))], 0.5)


def even_chain(rng: np.random.Generator, operands: int) -> str:
    """So many operands in a row, as often true as false whichever operator there is most of.

    Of fair atoms a row of `|` is nearly always true, so that the operator would give the value away.
    """
    often, wanted = "&|"[int(rng.integers(0, 2))], bool(rng.random() < 0.5)
    while True:
        settling = rng.random() ** 3  # the share of atoms that settle a row of this operator
        text = _row(rng, operands, often, settling if often == "|" else 1 - settling)
        if value_of(text) == wanted:
            return text


def _row(rng: np.random.Generator, operands: int, often: str, true: float) -> str:
    """Atoms, `true` of them T once their `!` is heard, with four in five operators alike."""
    rare = "|&"["&|".index(often)]
    text = ""
    for place in range(operands):
        negated = place > 0 and rng.random() < 0.3
        operator = (often if rng.random() < 0.8 else rare) if place else ""
        text += operator + "!" * negated + "FT"[int((rng.random() < true) != negated)]
    return text


def late_verdict(rng: np.random.Generator) -> str:
    """One operand out of up to 40 decides, anywhere."""
    count = int(rng.integers(3, 41))
    operator, common, rare = ("&", "T", "F") if rng.random() < 0.5 else ("|", "F", "T")
    parts = [common] * count
    if rng.random() < 0.5:
        parts[int(rng.integers(0, count))] = rare
    return operator.join(parts)


def nots(rng: np.random.Generator, count: int | None = None) -> str:
    """So many times `!`, up to 40 if it is not said, now and then a bracket between."""
    count = int(rng.integers(2, 41)) if count is None else count
    opened = int(rng.integers(0, min(count, 9)))
    signs = list("!" * count + "(" * opened)
    rng.shuffle(signs)
    return "".join(signs) + _atom(rng) + ")" * opened


def needless(rng: np.random.Generator) -> str:
    """A small expression in up to 20 pairs of brackets."""
    pairs = int(rng.integers(2, 21))
    return "(" * pairs + nested(rng, 1) + ")" * pairs


def comb(rng: np.random.Generator) -> str:
    """8 to 14 levels, each with one atom, all of them on one side."""
    text, left = _atom(rng), rng.random() < 0.5
    for _ in range(int(rng.integers(8, 15))):
        inner = ("!" if rng.random() < 0.3 else "") + f"({text})"
        text = f"{_atom(rng)}{_operator(rng)}{inner}" if left else f"{inner}{_operator(rng)}{_atom(rng)}"
    return text


def tower(rng: np.random.Generator, levels: int | None = None) -> str:
    """A value that must pass so many levels, or 8 to 14: what stands beside it decides nothing."""
    text = _atom(rng)
    for _ in range(int(rng.integers(8, 15)) if levels is None else levels):
        operator = _operator(rng)
        neutral = "T" if operator == "&" else "F"
        inner = ("!" if rng.random() < 0.3 else "") + f"({text})"
        text = f"{inner}{operator}{neutral}" if rng.random() < 0.5 else f"{neutral}{operator}{inner}"
    return text


def balanced(rng: np.random.Generator) -> str:
    """A full binary tree of 3 to 5 levels."""

    def tree(levels: int) -> str:
        if levels == 0:
            return _atom(rng)
        return f"({tree(levels - 1)}{_operator(rng)}{tree(levels - 1)})"

    return tree(int(rng.integers(3, 6)))


SHAPES = {shape.__name__: shape for shape in (chain, late_verdict, nots, needless, comb, tower, balanced)}
GENERATORS: dict[str, Callable[[np.random.Generator, int], str]] = {  # of a size that is asked for
    "paper": nested,
    "anyhow": anyhow,
    "towers": tower,
    "nots": nots,
    "chains": even_chain,
}


def longest(depth: int) -> int:
    """How many characters an expression of this depth may have.

    Two in five of depth 14 keep to the paper's limit, but one in 140 of depth 20: those that would are
    combs with hardly a sibling, another kind of problem. With 254 characters four in five fit.
    """
    return LONGEST if depth <= DEEP else LONGEST_BEYOND


def depth_of(expression: str) -> int:
    """How many brackets are open at once, at most."""
    level = deepest = 0
    for character in expression:
        level += (character == "(") - (character == ")")
        deepest = max(deepest, level)
    return deepest


def guess(expression: str) -> bool:
    """The value that the operator evaluated last makes more likely: true for `|`, false for `&`."""
    negated = False
    while True:
        level, outermost = 0, set()
        for character in expression:
            level += (character == "(") - (character == ")")
            if level == 0 and character in "&|":
                outermost.add(character)
        if outermost:
            return ("|" in outermost) != negated
        if len(expression) == 1:
            return (expression == "T") != negated
        negated ^= expression[0] == "!"
        expression = expression[1:] if expression[0] == "!" else expression[1:-1]


def _shallower(rng: np.random.Generator, depth: int) -> int:
    """The depth of a sibling: k has weight 2^(depth - 1 - k), so that most are shallow."""
    share = 1 - rng.random() * (1 - 0.5**depth)
    return min(int(-np.log2(share)), depth - 1)


def _atom(rng: np.random.Generator) -> str:
    return "T" if rng.random() < 0.5 else "F"


def _operator(rng: np.random.Generator) -> str:
    return "&" if rng.random() < 0.5 else "|"


@dataclass(frozen=True)
class Parts:
    """What the characters of an expression stand for, a bracket around the whole included.

    A bracket and each `|` stand for their group, a `&` for its term, `!` and an atom for themselves. Atoms
    may be blank, `?`: as every atom occurs once, Kleene's three values are then exact. A value takes steps
    to arrive: one through a `!`, and one from operands to what stands for them. A long chain is given a step
    more for each operand past the second; what one operand settles may be known before.
    """

    value: list[int]  # FALSE, TRUE or UNKNOWN
    earliest: list[int]  # steps after which the value may have arrived; NEVER where it is not known
    due: list[int]  # steps after which it must have; NEVER


Part = tuple[int, int, int]  # value, earliest, due


def parts_of(expression: str) -> Parts:
    """The parts of an expression that is well formed and has no blanks but `?`."""
    text = f"({expression})"
    found: list[Part] = [(UNKNOWN, NEVER, NEVER)] * len(text)
    place = 0

    def operand() -> Part:
        nonlocal place
        signs = place
        while text[place] == "!":
            place += 1
        end = place
        if text[place] == "(":
            part = group()
        else:
            part = found[place] = "FT?".index(text[place]), 0, 0
            place += 1
        for sign in range(end - 1, signs - 1, -1):
            part = found[sign] = _negated(part)
        return part

    def group() -> Part:
        nonlocal place
        start, terms, ors = place, [], []
        while text[place] != ")":
            ors.append(place)  # the bracket itself, then each `|`
            place += 1
            operands, ands = [operand()], []
            while text[place] == "&":
                ands.append(place)
                place += 1
                operands.append(operand())
            term = _joined(operands, FALSE) if ands else operands[0]
            for sign in ands:
                found[sign] = term
            # The group hears the operands of a term as soon as the term's own signs do.
            terms.append((term[0], term[1] - 1, term[2] - 1) if ands and term[0] != UNKNOWN else term)
        whole = _joined(terms, TRUE)
        for sign in (start, *ors, place):
            found[sign] = whole
        place += 1
        return whole

    group()
    assert place == len(text), "the expression is well formed"
    value, earliest, due = (list(column) for column in zip(*found, strict=True))
    return Parts(value, earliest, due)


def _negated(part: Part) -> Part:
    value, earliest, due = part
    return (UNKNOWN, NEVER, NEVER) if value == UNKNOWN else (1 - value, earliest + 1, due + 1)


def _joined(parts: list[Part], settles: int) -> Part:
    """A chain, in which one operand of the value `settles` decides; all others together decide otherwise."""
    deciding = [part for part in parts if part[0] == settles]
    more = max(0, len(parts) - 2)
    if deciding:
        return settles, 1 + min(part[1] for part in deciding), 1 + min(part[2] for part in deciding) + more
    if any(part[0] == UNKNOWN for part in parts):
        return UNKNOWN, NEVER, NEVER
    return 1 - settles, 1 + max(part[1] for part in parts), 1 + max(part[2] for part in parts) + more


def value_of(expression: str) -> bool:
    """Whether an expression is true."""
    return parts_of(expression).value[0] == TRUE
