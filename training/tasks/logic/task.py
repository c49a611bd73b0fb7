"""Nested boolean logic: what is the value of the expression?

Problems follow "Thinking Deeper, Not Longer" (arXiv 2603.21676, section 4.2). What is trained is more
than what is asked: every bracket and every operator is graded on the value of its part of the
expression. These are true partial results, and they are graded on the last step only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from model.codecs.logic import CHARACTERS, tokens_of
from model.manifest import ClassSpec, CodecSpec, Domain
from model.network.perception import Context, SequenceInputs
from model.network.recurrent import RecurrentTransformer
from training.task import CLASSES, NEVER, Batch, Problems, Schedule
from training.tasks.logic.expressions import (
    GENERATORS,
    SHAPES,
    UNKNOWN,
    anyhow,
    depth_of,
    guess,
    longest,
    nested,
    parts_of,
    value_of,
    wide,
)

TRIES = 100  # expressions, of which one has to be short enough
POOL = 4  # batches drawn at once, of which the rows nearest in length are taken
ATOMS = tuple(CHARACTERS.index(character) for character in "TF")
BLANK = len(CHARACTERS)  # the kind of an atom that is not known yet
SIGNS = f"{CHARACTERS}?"
WIDE = 100  # characters
LONG = 40  # steps; what is due later than that counts no more for it
QUIET_STEPS = 8  # where nothing is ever known
SHARES = ((1.0, 0.5, 0.5), (0.1, 0.1, 0.1))  # of parts, of atoms: due, not yet, never (training/task.py)


@dataclass(frozen=True)
class LogicTask:
    """How expressions are drawn for training, and what is asked about them.

    ask = "every-part" grades each bracket and operator; "whole" only the expression: the paper's way.
    """

    name: ClassVar[str] = "logic"
    codec: ClassVar[CodecSpec] = CodecSpec(
        name="logic", vocabulary={character: kind for kind, character in enumerate(CHARACTERS)}
    )
    unit: ClassVar[str] = "levels"
    interface: ClassVar[str] = "characters"
    splits: ClassVar[tuple[str, ...]] = ("paper", "anyhow")
    buckets: ClassVar[tuple[int, ...]] = (0, 1, 2, 4, 6, 8, 10, 11, 12, 14, 16, 20)
    calibrated: ClassVar[tuple[int, ...]] = (1, 2, 4, 6, 8, 11, 14)
    probe: ClassVar[int] = 14
    domain: ClassVar[Domain | None] = Domain(
        sentence="Right on 98 of 100 or more of every kind of expression measured: values that must pass 28 "
        "levels of brackets or forty negations, and forty operands side by side.",
        limits={"levels": 28, "operands": 40},
    )
    pictured: ClassVar[int] = 11

    frontier_share: float = 0.5  # share of batches at the curriculum's newest difficulty; the rest uniform
    anyhow_share: float = 0.4  # share of batches with expressions of any shape; the rest are the paper's
    wide_share: float = 0.35  # of those, with many operands side by side
    ask: Literal["every-part", "whole"] = "every-part"
    unknown: bool = True  # "not known yet" is an answer; some atoms are blank, so that it is learned
    blank_share: float = 0.3  # of batches in which some atoms are blank
    quiet_share: float = 0.08  # of batches in which all are
    min_depth: int = 0  # of a batch that is not at the curriculum's newest difficulty
    longest: int = 64  # characters of a training expression, WIDE of a wide one; evaluation has longer ones

    def __post_init__(self) -> None:
        for name in ("frontier_share", "anyhow_share", "wide_share", "blank_share", "quiet_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be in [0, 1]")
        if self.blank_share + self.quiet_share > 1:
            raise ValueError("blank_share and quiet_share must be at most 1 together")
        if self.longest < 1:
            raise ValueError(f"longest is {self.longest}, but must be at least 1")

    @property
    def classes(self) -> tuple[ClassSpec, ...]:
        """False and true; and "not known yet" where that is an answer."""
        return CLASSES if self.unknown else CLASSES[:UNKNOWN]

    def cannot_draw(self, difficulty: int) -> str | None:
        """Deep expressions are long: under one in a hundred of those that fit would take forever to find."""
        if difficulty < self.min_depth:
            return f"task.min_depth is {self.min_depth}"
        rng = np.random.default_rng(0)
        if self.anyhow_share == 1 or any(len(nested(rng, difficulty)) <= self.longest for _ in range(TRIES)):
            return None
        return f"hardly any is as short as task.longest={self.longest}"

    def sample(self, rng: np.random.Generator, rows: int, difficulty: int) -> Batch:
        """One depth per batch, the lengths near each other: a step costs what the longest row costs.

        Where "not known yet" is an answer, the batch's difficulty is the steps until all is due.
        """
        newest = rng.random() < self.frontier_share
        depth = difficulty if newest else int(rng.integers(self.min_depth, difficulty + 1))
        generator = nested
        if rng.random() < self.anyhow_share:
            generator = wide if rng.random() < self.wide_share else anyhow
        limit = max(WIDE, self.longest) if generator is wide else self.longest
        pool = sorted((_drawn(rng, generator, depth, limit) for _ in range(POOL * rows)), key=len)
        start = int(rng.integers(0, (POOL - 1) * rows + 1))
        full = inputs_of(pool[start : start + rows])
        atoms = (full.tokens == ATOMS[0]) | (full.tokens == ATOMS[1])
        atoms &= full.mask
        if not self.unknown:
            return self._settled(pool[start : start + rows], full, atoms, depth)
        kept = torch.from_numpy(rng.random(atoms.shape) >= self._hidden(rng))
        given = full._replace(tokens=torch.where(atoms & ~kept, BLANK, full.tokens))
        value, earliest, due = torch.full((3, *atoms.shape), UNKNOWN)
        for row, tokens in enumerate(given.tokens.tolist()):
            length = int(full.mask[row].sum())
            parts = parts_of("".join(SIGNS[token] for token in tokens[1 : length - 1]))
            for column, found in ((value, parts.value), (earliest, parts.earliest), (due, parts.due)):
                column[row, :length] = torch.tensor(found)
        kind = torch.where(atoms, 1, 0).masked_fill(~full.mask, -1)
        if self.ask == "whole":
            kind[:, 1:] = -1
        finite = due[(kind == 0) & (due < NEVER)]
        return Batch(
            given,
            value,
            1.0 + due.clamp(max=LONG).float() * (due < NEVER),
            min(LONG // 2, int(finite.max())) if len(finite) else QUIET_STEPS,
            Schedule(earliest, due, kind, SHARES, torch.full_like(value, UNKNOWN)),
            earlier=full._replace(tokens=torch.where(atoms, BLANK, full.tokens)),
        )

    def _hidden(self, rng: np.random.Generator) -> float:
        """The share of a batch's atoms that are blank."""
        draw = rng.random()
        if draw < self.quiet_share:
            return 1.0
        return rng.random() * 0.5 if draw < self.quiet_share + self.blank_share else 0.0

    def _settled(self, expressions: list[str], inputs: SequenceInputs, atoms: Tensor, depth: int) -> Batch:
        """False or true, whenever it is asked."""
        labels = torch.zeros_like(inputs.tokens)
        for row, expression in enumerate(expressions):
            value = parts_of(expression).value
            labels[row, : len(value)] = torch.tensor(value)
        graded = inputs.mask & ~atoms
        if self.ask == "whole":
            graded[:, 1:] = False
        return Batch(inputs, labels, graded.float() / graded.sum(), depth)

    def logits(self, network: RecurrentTransformer, state: Tensor, context: Context) -> Tensor:
        """The value of every character: (B, N, 2)."""
        return network.readout_everywhere(state, context)

    def problems(self, rng: np.random.Generator, split: str, bucket: int, count: int) -> Problems:
        """Half of the expressions are true. paper: of depth `bucket`; anyhow: of any shape, at most so deep;
        towers, nots, chains: so many levels, `!` or operands.
        """
        assert count % 2 == 0, "half of the problems are true"
        wanted = rng.permutation(np.arange(count) % 2).tolist()
        found: dict[int, list[str]] = {0: [], 1: []}
        while min(map(len, found.values())) < count // 2:
            expression = _drawn(rng, GENERATORS[split], bucket, longest(bucket))
            found[value_of(expression)].append(expression)
        expressions = [found[truth].pop() for truth in wanted]
        return Problems(inputs_of(expressions), torch.tensor(wanted), bucket)

    def unusual(self, rng: np.random.Generator, count: int) -> Mapping[str, Problems]:
        """Expressions that neither generator draws, or draws rarely."""
        drawn = {name: [draw(rng) for _ in range(count)] for name, draw in SHAPES.items()}
        return {
            name: Problems(
                inputs_of(expressions),
                torch.tensor([int(value_of(expression)) for expression in expressions]),
                max(map(depth_of, expressions)),
            )
            for name, expressions in drawn.items()
        }

    def random_inputs(self, rng: np.random.Generator, rows: int, length: int) -> SequenceInputs:
        """Expressions of any taste, the first of exactly `length` tokens; under 3 there is none, only `(`."""
        expressions = []
        for row in range(rows):
            size = max(1, length - 2 if row == 0 else int(rng.integers(1, length + 1)) - 2)
            expression = _drawn(rng, anyhow, int(rng.integers(0, 5)), size)
            missing = size - len(expression)
            expressions.append("!" * (missing % 2) + "T|" * (missing // 2) + expression)
        inputs = inputs_of(expressions)
        return inputs if length >= 3 else SequenceInputs(*(part[:, :length] for part in inputs))

    def heuristics(self, problems: Problems) -> Mapping[str, float]:
        """What a glance gives away: how many T there are, and what the outermost operator is."""
        assert isinstance(problems.inputs, SequenceInputs)
        tokens, mask = problems.inputs.tokens.numpy(), problems.inputs.mask.numpy()
        truth = problems.labels.numpy() == 1
        atoms = [((tokens == kind) & mask).sum(axis=1) for kind in ATOMS]
        share = atoms[0] / np.maximum(1, atoms[0] + atoms[1])
        right = [float(((share >= limit) == truth).mean()) for limit in np.unique(share)]
        said = np.array(
            [
                guess("".join(CHARACTERS[token] for token in row[real]))
                for row, real in zip(tokens, mask, strict=True)
            ]
        )
        return {"share of T": max(right), "outermost operator": float((said == truth).mean())}


def inputs_of(expressions: list[str]) -> SequenceInputs:
    """What the codec would make of these expressions, padded to the longest."""
    rows = [tokens_of(expression) for expression in expressions]
    tokens = np.zeros((len(rows), max(map(len, rows))), np.int64)
    mask = np.zeros(tokens.shape, np.bool_)
    for place, row in enumerate(rows):
        tokens[place, : len(row)] = row
        mask[place, : len(row)] = True
    return SequenceInputs(torch.from_numpy(tokens), torch.from_numpy(mask))


def _drawn(
    rng: np.random.Generator, generator: Callable[[np.random.Generator, int], str], depth: int, limit: int
) -> str:
    """An expression of at most so many characters."""
    while len(expression := generator(rng, depth)) > limit:
        pass
    return expression
