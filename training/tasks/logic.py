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

from model.codecs.logic import CHARACTERS, groups_of, tokens_of
from model.manifest import ClassSpec, CodecSpec, Domain
from model.perception import BracketInputs, Context, SequenceInputs
from model.recurrent import RecurrentTransformer
from training.task import Batch, Problems
from training.tasks.expressions import SHAPES, anyhow, depth_of, guess, longest, nested, parts_of, value_of

POOL = 4  # batches drawn at once, of which the rows nearest in length are taken
ATOMS = tuple(CHARACTERS.index(character) for character in "TF")


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
    classes: ClassVar[tuple[ClassSpec, ...]] = (
        ClassSpec(label="false", answer=False),
        ClassSpec(label="true", answer=True),
    )
    splits: ClassVar[tuple[str, ...]] = ("paper", "anyhow")
    buckets: ClassVar[tuple[int, ...]] = (0, 1, 2, 4, 6, 8, 10, 11, 12, 14, 16, 20)
    calibrated: ClassVar[tuple[int, ...]] = (1, 2, 4, 6, 8, 11, 14)
    probe: ClassVar[int] = 14
    domain: ClassVar[Domain | None] = Domain(
        sentence="Where a value must pass every level, right on 96 of 100 or more up to seven levels of "
        "brackets with operators or five negations. Deeper expressions are mostly settled by some operand on "
        "the way, and right.",
        limits={"levels": 7, "negations": 5},
    )
    pictured: ClassVar[int] = 11

    frontier_share: float = 0.5  # share of batches at the curriculum's newest difficulty; the rest uniform
    anyhow_share: float = 0.3  # share of batches with expressions of any shape; the rest are the paper's
    ask: Literal["every-part", "whole"] = "every-part"
    min_depth: int = 0  # of a batch that is not at the curriculum's newest difficulty
    longest: int = 64  # characters of a training expression; evaluation has longer ones
    interface: Literal["brackets", "characters"] = "brackets"  # as network.perception

    def __post_init__(self) -> None:
        for name in ("frontier_share", "anyhow_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be in [0, 1]")
        if self.longest < 1:
            raise ValueError(f"longest is {self.longest}, but must be at least 1")

    def sample(self, rng: np.random.Generator, rows: int, difficulty: int) -> Batch:
        """One depth per batch, the lengths near each other: a step costs what the longest row costs.

        Graded are the parts in which brackets nest no deeper than the steps of the batch reach.
        """
        newest = rng.random() < self.frontier_share
        depth = difficulty if newest else int(rng.integers(self.min_depth, difficulty + 1))
        generator = anyhow if rng.random() < self.anyhow_share else nested
        pool = sorted((_drawn(rng, generator, depth, self.longest) for _ in range(POOL * rows)), key=len)
        start = int(rng.integers(0, (POOL - 1) * rows + 1))
        expressions = pool[start : start + rows]
        inputs = self._inputs(expressions)
        reach = depth if self.ask == "whole" or rng.random() < 0.5 else int(rng.integers(0, depth + 1))
        labels = torch.zeros_like(inputs.tokens)
        graded = torch.zeros_like(inputs.mask)
        for row, expression in enumerate(expressions):
            parts = parts_of(expression)
            labels[row, : len(parts.value)] = torch.tensor(parts.value)
            if self.ask == "whole":
                graded[row, 0] = True
            else:
                graded[row, : len(parts.value)] = torch.tensor(parts.levels) <= reach
        graded &= (inputs.tokens != ATOMS[0]) & (inputs.tokens != ATOMS[1])
        return Batch(inputs, labels, graded.float() / graded.sum(), reach)

    def logits(self, network: RecurrentTransformer, state: Tensor, context: Context) -> Tensor:
        """The value of every character: (B, N, 2)."""
        return network.readout_everywhere(state, context)

    def problems(self, rng: np.random.Generator, split: str, bucket: int, count: int) -> Problems:
        """Expressions of depth `bucket`, half of them true; "anyhow": of any shape, at most so deep."""
        assert split in self.splits, split
        assert count % 2 == 0, "half of the problems are true"
        generator = nested if split == "paper" else anyhow
        wanted = rng.permutation(np.arange(count) % 2).tolist()
        found: dict[int, list[str]] = {0: [], 1: []}
        while min(map(len, found.values())) < count // 2:
            expression = _drawn(rng, generator, bucket, longest(bucket))
            found[value_of(expression)].append(expression)
        expressions = [found[truth].pop() for truth in wanted]
        return Problems(self._inputs(expressions), torch.tensor(wanted), bucket)

    def unusual(self, rng: np.random.Generator, count: int) -> Mapping[str, Problems]:
        """Expressions that neither generator draws, or draws rarely."""
        drawn = {name: [draw(rng) for _ in range(count)] for name, draw in SHAPES.items()}
        return {
            name: Problems(
                self._inputs(expressions),
                torch.tensor([int(value_of(expression)) for expression in expressions]),
                max(map(depth_of, expressions)),
            )
            for name, expressions in drawn.items()
        }

    def random_inputs(
        self, rng: np.random.Generator, rows: int, length: int
    ) -> BracketInputs | SequenceInputs:
        """Expressions of any taste, the first of exactly `length` tokens; under 3 there is none, only `(`."""
        expressions = []
        for row in range(rows):
            size = max(1, length - 2 if row == 0 else int(rng.integers(1, length + 1)) - 2)
            expression = _drawn(rng, anyhow, int(rng.integers(0, 5)), size)
            missing = size - len(expression)
            expressions.append("!" * (missing % 2) + "T|" * (missing // 2) + expression)
        inputs = self._inputs(expressions)
        return inputs if length >= 3 else type(inputs)(*(part[:, :length] for part in inputs))

    def _inputs(self, expressions: list[str]) -> BracketInputs | SequenceInputs:
        inputs = inputs_of(expressions)
        return inputs if self.interface == "brackets" else SequenceInputs(inputs.tokens, inputs.mask)

    def heuristics(self, problems: Problems) -> Mapping[str, float]:
        """What a glance gives away: how many T there are, and what the outermost operator is."""
        assert isinstance(problems.inputs, BracketInputs | SequenceInputs)
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


def inputs_of(expressions: list[str]) -> BracketInputs:
    """What the codec would make of these expressions, padded to the longest."""
    rows = [tokens_of(expression) for expression in expressions]
    shape = len(rows), max(map(len, rows))
    tokens, group, outer = np.zeros((3, *shape), np.int64)
    mask = np.zeros(shape, np.bool_)
    for place, row in enumerate(rows):
        tokens[place, : len(row)] = row
        group[place, : len(row)], outer[place, : len(row)] = groups_of(row)
        mask[place, : len(row)] = True
    return BracketInputs(*(torch.from_numpy(part) for part in (tokens, group, outer, mask)))


def _drawn(
    rng: np.random.Generator, generator: Callable[[np.random.Generator, int], str], depth: int, limit: int
) -> str:
    """An expression of at most so many characters."""
    while len(expression := generator(rng, depth)) > limit:
        pass
    return expression
