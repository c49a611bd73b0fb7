"""Perception: what the network sees of a problem. All else about it is the same for every task.

A perception turns a codec's tensors into an embedding index per token, into who may attend to whom,
and into where the readout reads. Tokens carry no names: they differ by what is known of them and by
how they are joined, so any names and any number of them make the same sense.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from model.codecs.generations import GENERATIONS
from model.codecs.logic import CHARACTERS, CLOSING, OPENING
from model.codecs.words import WORDS
from model.config import RecurrentConfig

HANDS = (3, 4, 5)  # places of each hand of the clock of generations; together they tell 60 apart
ATOMS = tuple(CHARACTERS.index(atom) for atom in "TF")
NO_ATTENTION = -1e9  # added to a masked attention logit; finite, so that fp16 export stays free of NaN


class GraphInputs(NamedTuple):
    """What the graph codec makes of a problem, batched and padded."""

    roles: Tensor  # (B, N) int64: bit 0 marks the source, bit 1 the target
    adjacency: Tensor  # (B, N, N) bool: [b, i, j] is True where an edge j -> i lets i attend to j
    mask: Tensor  # (B, N) bool: True on real nodes, False on padding


class FamilyInputs(NamedTuple):
    """What the text codec makes of a problem, batched and padded."""

    placed: Tensor  # (B, N) int64: the generation a person is placed in, 1..GENERATIONS; 0: not known
    asked: Tensor  # (B, N) int64: the generation that the person asked about would have; 0: not asked about
    parents: Tensor  # (B, N, N) bool: [b, i, j] is True where j is a parent of i
    mask: Tensor  # (B, N) bool: True on real people, False on padding


class SequenceInputs(NamedTuple):
    """What a codec makes of a problem that is read token by token, batched and padded at the end."""

    tokens: Tensor  # (B, N) int64: the kind of each token
    mask: Tensor  # (B, N) bool: True on real tokens, False on padding


class BracketInputs(NamedTuple):
    """What the logic codec makes of a problem, batched and padded at the end."""

    tokens: Tensor  # (B, N) int64: the kind of each character
    group: Tensor  # (B, N) int64: where the bracket opens that a character stands in, or closes
    outer: Tensor  # (B, N) int64: for a bracket the group that it stands in, -1 for none; else as `group`
    mask: Tensor  # (B, N) bool: True on real characters, False on padding


Inputs = GraphInputs | FamilyInputs | SequenceInputs | BracketInputs


class Context(NamedTuple):
    """What stays the same from step to step."""

    attention: Tensor  # (B, V, N, N) added to the attention logits; V views share the heads evenly
    places: Tensor  # (B, R, N) one-hot rows: where the R tokens stand that the readout reads
    wanted: Tensor | None = None  # (B, GENERATIONS + 1) one-hot: which generation is asked about
    injection: Tensor | None = None  # (B, N, D) the embedded input, where re-injection adds it at every step
    given: Tensor | None = None  # (B, N, D) the embedded input, where the tokens that are `known` keep it
    known: Tensor | None = None  # (B, N, 1) bool: which tokens something is known of from the start


class _Given:
    """Of some tokens something is given; kind 0 says that nothing is."""

    unknown: tuple[int, ...] = (0,)  # the kinds that a token may be of, before anything is given

    def known(self, kinds: Tensor) -> Tensor:
        """Of which tokens something is given: (B, N, K) -> (B, N, 1) bool."""
        return kinds.amax(dim=-1, keepdim=True) > 0


class _Classes(_Given):
    """What the head says is the answer: there is one strand, and a logit per class."""

    strands = 1

    def spread(self, said: Tensor) -> Tensor:
        """What the head says is a logit per class: (..., 1, C) -> (..., C)."""
        return said.squeeze(-2)

    def answer(self, logits: Tensor, context: Context) -> Tensor:  # noqa: ARG002  the other one needs it
        """They are the answer: (B, C) -> (B, C)."""
        return logits


class GraphPerception(_Classes):
    """Directed edges: a node hears its predecessors; the readout compares the source and the target."""

    inputs: ClassVar[type[GraphInputs]] = GraphInputs
    context: ClassVar[tuple[str, ...]] = ("attention", "places")
    kinds = 4  # rows of the embedding
    views = 1
    readers = 2  # R

    def __init__(self, config: RecurrentConfig) -> None:
        self._config = config
        self.classes = config.classes

    def see(self, inputs: Inputs, dtype: torch.dtype) -> tuple[Tensor, Context]:
        """Inputs -> the embedding index of every token (B, N, 1), and the context.

        Only the source is marked (and the target, where the configuration says so).
        """
        assert isinstance(inputs, GraphInputs)
        roles, adjacency, mask = inputs
        source, target = roles % 2, roles // 2
        seen = adjacency if self._config.adjacency_mask else mask.unsqueeze(1)
        places = torch.stack((source, target), dim=1).to(dtype)
        kinds = roles if self._config.target_role else source
        return kinds.unsqueeze(-1), Context(_attention((seen,), dtype), places)


class FamilyPerception(_Given):
    """Parents and children: half of the heads listen to a person's children, half to the parents.

    One person is placed in a generation, all others stand in an unknown one; a step can place those
    next to somebody placed. Training places the first person anywhere on the clock, so that a few
    steps on short chains teach "one up" and "one down" all around it: positions drawn at random, as
    in "Randomized Positional Encodings Boost Length Generalization of Transformers" (arXiv
    2305.16843). The readout names the generation of whoever is asked about.

    A generation is shown by three hands that go round in 3, 4 and 5 places: a residue number system.
    Each hand is a strand of its own, so that a step has 12 places and two directions to know instead of
    60, wherever the others stand, and tells them apart even after hundreds of steps.
    """

    inputs: ClassVar[type[FamilyInputs]] = FamilyInputs
    context: ClassVar[tuple[str, ...]] = ("attention", "places", "wanted")
    kinds = sum(HANDS) + 1
    views = 2
    readers = 1
    strands = len(HANDS)
    classes = kinds  # of the head: the places of the hands, and first "no relative"

    def __init__(self, config: RecurrentConfig) -> None:
        if config.heads % self.views or config.classes != 2:
            raise ValueError(
                "perception=family needs an even number of heads and two classes, false and true"
            )

    def see(self, inputs: Inputs, dtype: torch.dtype) -> tuple[Tensor, Context]:
        """Inputs -> the embedding indices of every token (B, N, 3), and the context."""
        assert isinstance(inputs, FamilyInputs)
        placed, asked, parents, _ = inputs
        attention = _attention((parents.transpose(1, 2), parents), dtype)
        generations = torch.arange(GENERATIONS + 1, device=asked.device)
        wanted = (asked.amax(dim=1).unsqueeze(1) == generations).to(dtype)
        return hands(placed), Context(attention, (asked > 0).unsqueeze(1).to(dtype), wanted)

    def spread(self, said: Tensor) -> Tensor:
        """What the head says of each hand, (..., 3, 13) -> a logit per generation, (..., 61)."""
        places = hands(torch.arange(GENERATIONS + 1, device=said.device)).unsqueeze(-1)
        shown = torch.zeros(*places.shape[:2], self.classes, device=said.device, dtype=said.dtype)
        return said.flatten(-2) @ shown.scatter(2, places, 1.0).flatten(1).transpose(0, 1)

    def answer(self, logits: Tensor, context: Context) -> Tensor:
        """Of all generations -> those of false and true: log p(another one), log p(the one asked)."""
        assert context.wanted is not None
        log_p = torch.log_softmax(logits, dim=-1)
        true = (log_p * context.wanted).sum(dim=-1)
        false = torch.logsumexp(log_p + NO_ATTENTION * context.wanted, dim=-1)
        return torch.stack((false, true), dim=-1)


class SequencePerception(_Classes):
    """Tokens in a row; the readout reads the first.

    With nearest-match attention half of the heads look to the left, half to the right, which says all
    about the order there is to say. With softmax attention everybody sees everybody, and rotary
    positions have to tell the order.
    """

    inputs: ClassVar[type[SequenceInputs]] = SequenceInputs
    context: ClassVar[tuple[str, ...]] = ("attention", "places")
    readers = 1

    def __init__(self, config: RecurrentConfig) -> None:
        self.kinds = len(WORDS if config.perception == "words" else CHARACTERS)
        self.classes = config.classes
        self.views = 2 if config.attention == "nearest" else 1
        if config.heads % self.views:
            raise ValueError("attention=nearest needs an even number of heads, half for either side")

    def see(self, inputs: Inputs, dtype: torch.dtype) -> tuple[Tensor, Context]:
        """Inputs -> the embedding index of every token (B, N, 1), and the context."""
        assert isinstance(inputs, SequenceInputs)
        tokens, mask = inputs
        seen = mask.unsqueeze(1)
        if self.views == 2:
            ahead = _ahead(tokens)
            sides = (seen & (ahead < 0), seen & (ahead > 0))
            attention = torch.stack([torch.where(side, 0.0, NO_ATTENTION).to(dtype) for side in sides], dim=1)
        else:
            attention = _attention((seen,), dtype)
        return tokens.unsqueeze(-1), Context(attention, _first(tokens, dtype))


class BracketPerception(_Classes):
    """Characters that hear the group they stand in: what is in the same brackets, and the brackets.

    A pair of brackets is in the group around it, too, where it stands for what is inside. An opening
    one looks to the left for its neighbours and to the right for what it holds, a closing one the
    other way round. Half of the heads look to the left, half to the right.
    """

    inputs: ClassVar[type[BracketInputs]] = BracketInputs
    context: ClassVar[tuple[str, ...]] = ("attention", "places")
    kinds = len(CHARACTERS)
    unknown = ATOMS
    views = 2
    readers = 1

    def __init__(self, config: RecurrentConfig) -> None:
        self.classes = config.classes
        if config.heads % self.views:
            raise ValueError("perception=brackets needs an even number of heads, half for either side")

    def known(self, kinds: Tensor) -> Tensor:
        """The atoms are given: (B, N, 1) -> (B, N, 1) bool."""
        return (kinds == ATOMS[0]) | (kinds == ATOMS[1])

    def see(self, inputs: Inputs, dtype: torch.dtype) -> tuple[Tensor, Context]:
        """Inputs -> the embedding index of every token (B, N, 1), and the context."""
        assert isinstance(inputs, BracketInputs)
        tokens, group, outer, mask = inputs
        ahead = _ahead(tokens)
        sides = []
        for far, facing_out in ((ahead < 0, OPENING), (ahead > 0, CLOSING)):
            looks_in = torch.where(tokens == facing_out, outer, group).unsqueeze(-1)
            stands_in = (looks_in == group.unsqueeze(1)) | (looks_in == outer.unsqueeze(1))
            sides.append(torch.where(far & stands_in & mask.unsqueeze(1), 0.0, NO_ATTENTION).to(dtype))
        return tokens.unsqueeze(-1), Context(torch.stack(sides, dim=1), _first(tokens, dtype))


Perception = GraphPerception | FamilyPerception | SequencePerception | BracketPerception


def perception_of(config: RecurrentConfig) -> Perception:
    """The perception a configuration names. Raises ValueError where they do not go together."""
    if config.perception == "graph":
        return GraphPerception(config)
    if config.perception == "family":
        return FamilyPerception(config)
    return BracketPerception(config) if config.perception == "brackets" else SequencePerception(config)


def _ahead(tokens: Tensor) -> Tensor:
    """How far token j stands to the right of i, [i, j]: (N, N)."""
    place = torch.arange(tokens.shape[1], device=tokens.device)
    return place.unsqueeze(0) - place.unsqueeze(1)


def _first(tokens: Tensor, dtype: torch.dtype) -> Tensor:
    """The place of the first token, where the readout reads: (B, 1, N)."""
    place = torch.arange(tokens.shape[1], device=tokens.device)
    return (place == 0).to(dtype).expand(tokens.shape[0], 1, -1)


def hands(generation: Tensor) -> Tensor:
    """Where the hands stand, each in its own range of embedding indices; all at 0 for "not known"."""
    places, start = [], 1
    for size in HANDS:
        places.append(start + generation % size)
        start += size
    return torch.where((generation > 0).unsqueeze(-1), torch.stack(places, dim=-1), 0)


def _attention(seen: tuple[Tensor, ...], dtype: torch.dtype) -> Tensor:
    """Who sees whom, by view, each (B or 1, N or 1, N) -> what to add to the logits: (B, V, N, N)."""
    itself = torch.eye(seen[0].shape[-1], dtype=torch.bool, device=seen[0].device)
    return torch.stack([torch.where(view | itself, 0.0, NO_ATTENTION).to(dtype) for view in seen], dim=1)
