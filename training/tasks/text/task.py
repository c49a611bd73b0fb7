"""Kinship: is X the grandparent of Y, given who is whose parent?

Problems follow "Thinking Deeper, Not Longer" (arXiv 2603.21676, section 4.3). What is trained is more
than what is asked: everyone's generation is graded, which is a true partial result of every chain
that runs through them, and the first person stands anywhere on the clock (model/network/perception.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from model.codecs.generations import GENERATIONS, later
from model.codecs.sentences import REACH
from model.codecs.text import START
from model.codecs.words import KINDS, NAMES
from model.manifest import ClassSpec, CodecSpec, Domain
from model.network.perception import Context, FamilyInputs, SequenceInputs, WordInputs
from model.network.recurrent import RecurrentTransformer
from training.task import CLASSES, Batch, Problems
from training.tasks.text.families import SHAPES, STRANGER, Families, Ints, chains, relatives, trees
from training.tasks.text.sentences import (
    any_tokens,
    asked_in,
    counted,
    length_of,
    padded,
    room_for_strangers,
    sentences_of,
)
from training.tasks.text.stories import Taste, logits_of, sampled, unusual_stories

Seen = TypeVar("Seen", FamilyInputs, SequenceInputs)
OF_FAMILIES = Domain(
    sentence="Right on every family measured: up to 250 people, those between counted, and 43 "
    "generations from the oldest to the youngest.",
    limits={"people": 250},
)
OF_STORIES = Domain(
    sentence="Right on 98 of 100 or more of every kind of story measured: chains of up to 20 links, "
    "zigzags and branches, up to 24 facts.",
    limits={"facts": 24},
)
WRONG_BY = {"paper": (-4, -2, 2, 4), "near": (-1, 1)}  # generations by which a false question is off


@dataclass(frozen=True)
class TextTask:
    """How families are drawn for training: the paper's chains, and families of any shape between them."""

    name: ClassVar[str] = "text"
    unit: ClassVar[str] = "links"
    splits: ClassVar[tuple[str, ...]] = tuple(WRONG_BY)
    buckets: ClassVar[tuple[int, ...]] = (2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 20)
    calibrated: ClassVar[tuple[int, ...]] = (2, 3, 5, 7, 9, 12)
    probe: ClassVar[int] = 9
    pictured: ClassVar[int] = 9

    frontier_share: float = 0.5  # share of batches at the curriculum's newest difficulty; the rest uniform
    tree_share: float = 0.4  # share of batches with families of any shape; the rest are the paper's chains
    min_people: int = 6  # of a family of any shape
    max_people: int = 14
    min_links: int = 1  # of a chain in a batch that is not at the curriculum's newest difficulty
    # family: a token is a person, everybody's generation is graded. sentences: a token is a word, every
    # word is graded (training/tasks/text/stories.py). words: the same, the query is graded: the paper's way.
    interface: Literal["family", "sentences", "words"] = "family"
    taste: Taste = field(default_factory=Taste)  # of sentences

    def __post_init__(self) -> None:
        for name in ("frontier_share", "tree_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be in [0, 1]")
        if not 2 <= self.min_people <= self.max_people:
            raise ValueError("min_people must be at least 2 and at most max_people")
        if self.min_links < 1:
            raise ValueError(f"min_links is {self.min_links}, but must be at least 1")
        if self.interface == "words" and self.tree_share:
            raise ValueError("interface=words needs tree_share=0: its sentences tell chains")

    @property
    def classes(self) -> tuple[ClassSpec, ...]:
        """False and true; and "not known yet" where that is an answer."""
        return CLASSES if self.interface == "sentences" else CLASSES[:2]

    @property
    def domain(self) -> Domain | None:
        """Of families, and of stories that are read word by word."""
        if self.interface == "words":
            return None
        return OF_FAMILIES if self.interface == "family" else OF_STORIES

    @property
    def codec(self) -> CodecSpec:
        """Words are learned one by one, so that their bundle has a vocabulary; people are just people."""
        return CodecSpec(name="text", vocabulary={} if self.interface == "family" else KINDS)

    def cannot_draw(self, difficulty: int) -> str | None:
        """A chain has at least task.min_links links; in sentences there are names for so many people only."""
        if difficulty < self.min_links:
            return f"task.min_links is {self.min_links}"
        room = {"family": GENERATIONS, "sentences": NAMES - 4, "words": NAMES - 9}[self.interface]
        return None if difficulty <= room else f"task.interface={self.interface} has room for {room}"

    def sample(self, rng: np.random.Generator, rows: int, difficulty: int) -> Batch:
        """One size per batch. Whoever is up to `difficulty` links away, or not related, is graded."""
        if self.interface == "words":
            return self._told(rng, rows, difficulty)
        if self.interface == "sentences":
            return sampled(rng, self.taste, rows, self._links(rng, difficulty))
        if rng.random() < self.tree_share:
            families = trees(rng, rows, int(rng.integers(self.min_people, self.max_people + 1)))
        else:
            families, _ = chains(rng, rows, self._links(rng, difficulty))
        offset, distance = families.relatives()
        related = distance < STRANGER
        first = rng.integers(1, GENERATIONS + 1, rows)
        inputs = inputs_of(families, first)
        labels = np.where(related, later(first[:, None], offset), 0)
        graded = (distance <= difficulty) | ~related
        return Batch(
            inputs,
            torch.from_numpy(labels),
            torch.from_numpy((graded / graded.sum()).astype(np.float32)),
            difficulty,
            earlier=inputs._replace(placed=torch.zeros_like(inputs.placed)),
        )

    def logits(self, network: RecurrentTransformer, state: Tensor, context: Context) -> Tensor:
        """Everyone's generation: (B, N, GENERATIONS + 1); of sentences each question of each word's hands,
        (B, 3 N + 3, 16); of words false and true: (B, 1, 2).
        """
        if self.interface == "words":
            return network.readout(state, context).unsqueeze(1)
        if self.interface == "sentences":
            return logits_of(network.readout_everywhere(state, context), context.places)
        return network.readout_everywhere(state, context)

    def problems(self, rng: np.random.Generator, split: str, bucket: int, count: int) -> Problems:
        """Chains of exactly `bucket` links, half of the questions false by as much as the split says."""
        assert split in self.splits, split
        assert count % 2 == 0, "half of the problems are false"
        parts = []
        words = self.interface != "family"
        for strangers in (2, 3, 4):
            some = count // 3 if strangers < 4 else count - 2 * (count // 3)
            if not some:
                continue
            pairs = min(strangers, room_for_strangers(bucket)) if words else strangers
            families, last = chains(rng, some, bucket, (pairs, pairs), REACH)
            parts.append((families, last))
        labels = torch.from_numpy(rng.permutation(np.arange(count) % 2))
        longest = bucket + 1 + 2 * 4
        inputs: list[FamilyInputs] = []
        told: list[SequenceInputs] = []
        place = 0
        for families, last in parts:
            offset = families.relatives()[0][np.arange(len(last)), last]
            true = labels[place : place + len(last)].numpy() == 1
            place += len(last)
            asked = np.where(true, offset, _wrong(rng, offset, WRONG_BY[split]))
            if words:
                told.append(padded(sentences_of(rng, families, last, asked), length_of(bucket + 4)))
            else:
                inputs.append(inputs_of(families, np.full(len(last), START), last, asked, longest))
        if self.interface == "sentences":
            return Problems(counted(_joined(told)), labels, bucket)
        return Problems(_joined(told) if words else _joined(inputs), labels, bucket)

    def unusual(self, rng: np.random.Generator, count: int) -> Mapping[str, Problems]:
        """Families of other shapes and sizes (families.py), each with one question; word by word none."""
        if self.interface == "words":
            return {}
        if self.interface == "sentences":
            return unusual_stories(rng, count)
        return {name: self._questions(rng, name, count) for name in SHAPES}

    def random_inputs(
        self, rng: np.random.Generator, rows: int, length: int
    ) -> FamilyInputs | SequenceInputs | WordInputs:
        """Families without loops, of any density, consistent or not; or any words."""
        if self.interface != "family":
            tokens = any_tokens(rng, rows, length)
            return tokens if self.interface == "words" else counted(tokens)
        earlier = np.arange(length)[:, None] > np.arange(length)
        parents = earlier & (rng.random((rows, length, length)) < 0.5 * rng.random((rows, 1, 1)) ** 3)
        real = np.arange(length) < rng.integers(1, length + 1, (rows, 1))
        real[0] = True  # one row fills the length
        parents &= real[:, :, None] & real[:, None, :]
        sizes = real.sum(axis=1)
        first, last = rng.integers(0, sizes, (2, rows))
        asked = rng.integers(-REACH, REACH + 1, rows)
        inputs = inputs_of(Families(parents, first), np.full(rows, START), last, asked)
        return inputs._replace(mask=torch.from_numpy(real))

    def heuristics(self, problems: Problems) -> Mapping[str, float]:
        """What the question alone gives away: wrong ones reach farther up or down."""
        if isinstance(problems.inputs, SequenceInputs | WordInputs):
            far = torch.from_numpy(abs(asked_in(problems.inputs)))
        else:
            assert isinstance(problems.inputs, FamilyInputs)
            far = problems.inputs.asked.amax(dim=1) - START
            far = torch.minimum(far, GENERATIONS - far)  # either way round the clock
        truth = problems.labels == 1
        right = [((far <= limit) == truth).float().mean().item() for limit in range(REACH + 1)]
        return {"generations asked about": max(right)}

    def _told(self, rng: np.random.Generator, rows: int, difficulty: int) -> Batch:
        """Chains in sentences, with one question each, half of them false as in the split `paper`."""
        links = self._links(rng, difficulty)
        families, last = chains(rng, rows, links)
        offset = families.relatives()[0][np.arange(rows), last]
        labels = rng.permutation(np.arange(rows) % 2)
        asked = np.where(labels == 1, offset, _wrong(rng, offset, WRONG_BY["paper"]))
        inputs = sentences_of(rng, families, last, asked)
        weights = torch.full((rows, 1), 1 / rows)
        return Batch(inputs, torch.from_numpy(labels).unsqueeze(1), weights, links)

    def _links(self, rng: np.random.Generator, difficulty: int) -> int:
        newest = rng.random() < self.frontier_share
        return difficulty if newest else int(rng.integers(self.min_links, difficulty + 1))

    def _questions(self, rng: np.random.Generator, kind: str, count: int) -> Problems:
        """Half of the questions true; a false one is off by up to four, or is about a stranger."""
        inputs, labels, farthest = [], [], 1
        for _ in range(count):
            parents, first = SHAPES[kind](rng)
            offset, distance = (part[0] for part in relatives(parents[None], np.array([first])))
            others = np.arange(len(parents)) != first
            related = np.flatnonzero(others & (distance < STRANGER) & (abs(offset) <= REACH))
            strangers = np.flatnonzero(distance == STRANGER)
            true = bool(rng.random() < 0.5) and len(related) > 0
            if true or len(strangers) == 0 or (len(related) > 0 and rng.random() < 0.5):
                last = int(rng.choice(related))
                asked = offset[last : last + 1]
                farthest = max(farthest, int(distance[last]))
                if not true:
                    asked = _wrong(rng, asked, (-4, -3, -2, -1, 1, 2, 3, 4))
            else:
                last, asked = int(rng.choice(strangers)), rng.integers(-3, 4, 1)
            family = Families(parents[None], np.array([first]))
            inputs.append(inputs_of(family, np.array([START]), np.array([last]), asked))
            labels.append(int(true))
        longest = max(part.mask.shape[1] for part in inputs)
        return Problems(_joined([_padded(part, longest) for part in inputs]), torch.tensor(labels), farthest)


def inputs_of(
    families: Families,
    placed: Ints,
    last: Ints | None = None,
    asked: Ints | None = None,
    length: int | None = None,
) -> FamilyInputs:
    """What the codec would make of these families, padded to `length` people.

    placed: the generation that each family's first person stands in, 1..GENERATIONS. asked: by how
    many generations the question says that `last` stands above the first.
    """
    count, size = families.parents.shape[:2]
    rows = np.arange(count)
    where, question = np.zeros((2, count, size), np.int64)
    where[rows, families.first] = placed
    if last is not None and asked is not None:
        question[rows, last] = later(placed, asked)
    everyone = np.ones((count, size), np.bool_)
    parts = (torch.from_numpy(part) for part in (where, question, families.parents, everyone))
    return _padded(FamilyInputs(*parts), size if length is None else length)


def _wrong(rng: np.random.Generator, offset: Ints, by: tuple[int, ...]) -> Ints:
    """Other generations, off by one of these numbers; where that has no name, the other way."""
    step = rng.choice(by, len(offset))
    return offset + np.where(abs(offset + step) <= REACH, step, -step)


def _padded(inputs: FamilyInputs, length: int) -> FamilyInputs:
    missing = length - inputs.mask.shape[1]
    pad = torch.nn.functional.pad
    return FamilyInputs(
        pad(inputs.placed, (0, missing)),
        pad(inputs.asked, (0, missing)),
        pad(inputs.parents, (0, missing, 0, missing)),
        pad(inputs.mask, (0, missing)),
    )


def _joined(parts: Sequence[Seen]) -> Seen:
    return type(parts[0])(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))
