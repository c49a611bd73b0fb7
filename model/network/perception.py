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
from model.codecs.logic import CHARACTERS
from model.codecs.words import NAME, NAMES, WORDS
from model.network.config import RecurrentConfig

HANDS = (3, 4, 5)  # places of each hand of the clock of generations; together they tell 60 apart
UNKNOWN = 2  # the class behind false and true
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


class WordInputs(NamedTuple):
    """What the words codec makes of a story and its question, batched and padded at the end."""

    tokens: Tensor  # (B, N) int64: the kind of each word
    placed: Tensor  # (B, N) int64: the generation that a token is given, 1..GENERATIONS; 0: none
    mask: Tensor  # (B, N) bool: True on real words, False on padding


Inputs = GraphInputs | FamilyInputs | SequenceInputs | WordInputs


class Context(NamedTuple):
    """What stays the same from step to step."""

    places: Tensor  # (B, R, N) one-hot rows: where the R tokens stand that the readout reads
    attention: Tensor | None = None  # (B, V, N, N) added to the attention logits; views share heads
    routes: Tensor | None = None  # (B, H, N, N) attention weights, where the input decides on them
    counts: Tensor | None = None  # (B, N, M) where the counters stand, where the state decides
    wanted: Tensor | None = None  # (B, GENERATIONS + 1) one-hot: which generation is asked about
    injection: Tensor | None = None  # (B, N, D) the embedded input, where re-injection adds it at every step
    given: Tensor | None = None  # (B, N, D) the embedded input, where the tokens that are `known` keep it
    known: Tensor | None = None  # (B, N, 1) bool: which tokens something is known of from the start


class _Given:
    """Of some tokens something is given; kind 0 says that nothing is."""

    unknown: int | None = None  # the class of an answer that says "not known yet", where there is one
    distinct: slice | None = None  # kinds of token that mean nothing but themselves
    nothing: int | None = None  # the kind that adds nothing to what a token is

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
        self.questions = (config.classes,)

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
        return kinds.unsqueeze(-1), Context(places, _attention((seen,), dtype))


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
    questions: ClassVar[tuple[int, ...]] = (classes,)

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
        return hands(placed), Context((asked > 0).unsqueeze(1).to(dtype), attention, wanted=wanted)

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
    positions have to tell the order. A network that reads finds its own routes (model/network/reading.py).
    """

    inputs: ClassVar[type[SequenceInputs]] = SequenceInputs
    readers = 1

    def __init__(self, config: RecurrentConfig) -> None:
        words = config.perception == "words"
        self.kinds = 1 + len(WORDS if words else CHARACTERS)  # the last is a token that is not known yet
        self.classes = config.classes
        self.questions = (config.classes,)
        self.unknown = UNKNOWN if config.classes > UNKNOWN else None
        self.reads = config.reading > 0
        self.context = ("places",) if self.reads else ("attention", "places")
        self.views = 2 if config.attention == "nearest" else 1

    def see(self, inputs: Inputs, dtype: torch.dtype) -> tuple[Tensor, Context]:
        """Inputs -> the embedding index of every token (B, N, 1), and the context."""
        assert isinstance(inputs, SequenceInputs)
        tokens, mask = inputs
        return tokens.unsqueeze(-1), Context(_first(tokens, dtype), self._attention(tokens, mask, dtype))

    def _attention(self, tokens: Tensor, mask: Tensor, dtype: torch.dtype) -> Tensor | None:
        if self.reads:
            return None
        seen = mask.unsqueeze(1)
        if self.views == 1:
            return _attention((seen,), dtype)
        to_right = ahead(tokens)
        sides = (seen & (to_right < 0), seen & (to_right > 0))
        return torch.stack([torch.where(side, 0.0, NO_ATTENTION).to(dtype) for side in sides], dim=1)


class SentencePerception(_Given):
    """Words in a row, each with the three hands of a clock of generations; the readout reads the last.

    The hands are strands, as with FamilyPerception. Every token is asked two questions: which generation
    it stands in, and whether two that it compares are equal. The last token is the question's mark, from
    which counting begins; what it answers to the second question is the answer: three hands that are
    equal say that the generations are.
    """

    inputs: ClassVar[type[WordInputs]] = WordInputs
    context: ClassVar[tuple[str, ...]] = ("places",)
    readers = 1
    strands = len(HANDS)
    questions: ClassVar[tuple[int, ...]] = (sum(HANDS) + 1, 3)  # the second: not known, equal, not equal
    classes = sum(questions)  # of the head
    unknown = UNKNOWN
    kinds = len(WORDS) + 1 + sum(HANDS) + 1  # the words, one that is not known yet, the hands of `placed`
    distinct = slice(NAME, NAME + NAMES)
    nothing = len(WORDS) + 1  # the hands of a token that is not placed
    views = 1

    def __init__(self, config: RecurrentConfig) -> None:
        if not config.reading or config.classes != 3:
            raise ValueError(
                "perception=sentences needs a network that reads, and three classes: false, true, unknown"
            )

    def see(self, inputs: Inputs, dtype: torch.dtype) -> tuple[Tensor, Context]:
        """Inputs -> the embedding indices of every token (B, N, 4), and the context."""
        assert isinstance(inputs, WordInputs)
        tokens, placed, mask = inputs
        kinds = torch.cat((tokens.unsqueeze(-1), len(WORDS) + 1 + hands(placed)), dim=-1)
        place = torch.arange(tokens.shape[1], device=tokens.device)
        last = place == mask.sum(dim=1, keepdim=True) - 1
        return kinds, Context(last.unsqueeze(1).to(dtype))

    def spread(self, said: Tensor) -> Tensor:
        """As it is: (..., 3, 16)."""
        return said

    def answer(self, logits: Tensor, context: Context) -> Tensor:  # noqa: ARG002  the other one needs it
        """What the hands say at the last token, (B, 3, 16), -> log p of false, true, unknown: (B, 3)."""
        unknown, equal, other = torch.log_softmax(logits[..., self.questions[0] :], dim=-1).unbind(-1)
        known = torch.logaddexp(equal, other)  # (B, 3), each
        true = equal.sum(dim=-1)
        # Of three hands that are known the first, the second or the third is the first that differs; of
        # three hands the first, the second or the third is the first that is not known.
        rest = torch.flip(torch.flip(known, (-1,)).cumsum(dim=-1), (-1,)) - known
        false = torch.logsumexp(equal.cumsum(dim=-1) - equal + other + rest, dim=-1)
        unheard = torch.logsumexp(known.cumsum(dim=-1) - known + unknown, dim=-1)
        return torch.stack((false, true, unheard), dim=-1)


Perception = GraphPerception | FamilyPerception | SequencePerception | SentencePerception


def perception_of(config: RecurrentConfig) -> Perception:
    """The perception a configuration names. Raises ValueError where they do not go together."""
    if config.perception == "graph":
        return GraphPerception(config)
    if config.perception == "family":
        return FamilyPerception(config)
    if config.perception == "sentences":
        return SentencePerception(config)
    return SequencePerception(config)


def ahead(tokens: Tensor) -> Tensor:
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
