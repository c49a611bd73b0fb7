"""Random boolean expressions, and the value of every part of one.

`nested` is the generator of "Thinking Deeper, Not Longer" (arXiv 2603.21676, section 4.2); `anyhow`
draws what else the grammar allows: chains without brackets, brackets without need, `!` upon `!`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

LONGEST, DEEP = 128, 14  # characters of an expression, and to what depth: the paper's limits
LONGEST_BEYOND = 254  # of a deeper one; with the brackets around the whole 256 tokens


def nested(rng: np.random.Generator, depth: int) -> str:
    """An expression of exactly this nesting depth: 0 is `T`, `!T` or `T & F`, without brackets."""
    if depth == 0:
        form = rng.random()
        if form < 0.5:
            return _atom(rng)
        return f"!{_atom(rng)}" if form < 0.75 else f"{_atom(rng)}{_operator(rng)}{_atom(rng)}"
    parts = [nested(rng, depth - 1), nested(rng, _shallower(rng, depth))]
    if rng.random() < 0.5:
        parts.reverse()
    return ("!" if rng.random() < 0.25 else "") + f"({parts[0]}{_operator(rng)}{parts[1]})"


def anyhow(rng: np.random.Generator, depth: int) -> str:
    """An expression of at most this nesting depth, of any shape the grammar allows.

    Each has a taste of its own: some are all chains, some all `!`, some all brackets.
    """
    return _anyhow(rng, depth, nots=rng.random() ** 3, lone=rng.random() ** 3, longest=6 if depth else 12)


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
    often = "&|"[int(rng.integers(0, 2))]
    rare = "|&"["&|".index(often)]
    links = (
        (often if rng.random() < 0.8 else rare) + "!" * int(rng.random() < 0.3) + _atom(rng)
        for _ in range(int(rng.integers(3, 40)))
    )
    return _atom(rng) + "".join(links)


def late_verdict(rng: np.random.Generator) -> str:
    """One operand out of up to 40 decides, anywhere."""
    count = int(rng.integers(3, 41))
    operator, common, rare = ("&", "T", "F") if rng.random() < 0.5 else ("|", "F", "T")
    parts = [common] * count
    if rng.random() < 0.5:
        parts[int(rng.integers(0, count))] = rare
    return operator.join(parts)


def nots(rng: np.random.Generator) -> str:
    """Up to 40 times `!`, now and then a bracket between."""
    count = int(rng.integers(2, 41))
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


def tower(rng: np.random.Generator) -> str:
    """A value that must pass 8 to 14 levels: beside it stand operands that decide nothing."""
    text = _atom(rng)
    for _ in range(int(rng.integers(8, 15))):
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

    A bracket stands for its group, an operator for the whole chain it is in, `!` and an atom for
    themselves. value is 0 or 1. levels says how much has to be worked out before: how many brackets are
    open at once inside the part, where two `!` upon another one count as one more.
    """

    value: list[int]
    levels: list[int]


@dataclass
class _Group:
    """A group of brackets that is still open."""

    start: int
    nots: list[int] = field(default_factory=list)  # before the next operand
    ands: list[int] = field(default_factory=list)  # of the term that is being read
    ors: list[int] = field(default_factory=list)
    term: tuple[bool, int] = (True, 0)  # value and levels of the operands read so far in this term
    whole: tuple[bool, int] = (False, 0)  # of the terms read so far

    def operand(self, worth: bool, levels: int, parts: Parts) -> None:
        for more, place in enumerate(reversed(self.nots)):
            worth = not worth
            parts.value[place], parts.levels[place] = int(worth), levels + (more + 1) // 2
        self.term = self.term[0] and worth, max(self.term[1], levels + len(self.nots) // 2)
        self.nots.clear()

    def end_term(self, parts: Parts) -> None:
        for place in self.ands:
            parts.value[place], parts.levels[place] = int(self.term[0]), self.term[1]
        self.ands.clear()
        self.whole = self.whole[0] or self.term[0], max(self.whole[1], self.term[1])
        self.term = (True, 0)


def parts_of(expression: str) -> Parts:
    """The parts of an expression that is well formed and has no blanks."""
    text = f"({expression})"
    parts = Parts([0] * len(text), [0] * len(text))
    groups: list[_Group] = []
    for place, character in enumerate(text):
        if character == "(":
            groups.append(_Group(place))
        elif character == "!":
            groups[-1].nots.append(place)
        elif character in "TF":
            parts.value[place] = int(character == "T")
            groups[-1].operand(character == "T", 0, parts)
        elif character == "&":
            groups[-1].ands.append(place)
        elif character == "|":
            groups[-1].end_term(parts)
            groups[-1].ors.append(place)
        else:
            group = groups.pop()
            group.end_term(parts)
            for part in (group.start, place, *group.ors):
                parts.value[part], parts.levels[part] = int(group.whole[0]), group.whole[1]
            if groups:
                groups[-1].operand(group.whole[0], group.whole[1] + 1, parts)
    return parts


def value_of(expression: str) -> bool:
    """Whether an expression is true."""
    return parts_of(expression).value[0] == 1
