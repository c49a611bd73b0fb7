"""Families told in sentences, one token a word, as the words codec reads them (model/codecs/words.py)."""

from __future__ import annotations

import numpy as np
import torch

from model.codecs.words import (
    ANSWER,
    ASK,
    ASKED,
    IS,
    LENGTH,
    NAME,
    NAMES,
    OF,
    ORIGIN,
    RELATION,
    STOP,
    THE,
    WORDS,
)
from model.network.perception import SequenceInputs, WordInputs
from training.tasks.text.families import Families, Ints


def sentences_of(rng: np.random.Generator, families: Families, last: Ints, asked: Ints) -> SequenceInputs:
    """Facts in any order, each as "parent" or as "child", names drawn anew; then whether `last` stands
    `asked` generations above the first.

    The families of a batch have as many facts each, and at most NAMES people.
    """
    count, people = families.parents.shape[:2]
    names = NAME + rng.permuted(np.tile(np.arange(NAMES), (count, 1)), axis=1)[:, :people]
    links = np.argwhere(families.parents).reshape(count, -1, 3)  # (B, facts, 3): row, child, parent
    order = rng.permuted(np.tile(np.arange(links.shape[1]), (count, 1)), axis=1)
    links = np.take_along_axis(links, order[..., None], axis=1)
    child, parent = (np.take_along_axis(names, links[..., who], axis=1) for who in (1, 2))
    up = rng.random(child.shape) < 0.5  # "X is the parent of Y", and not "Y is the child of X"
    rows = np.arange(count)
    facts = _sentences(
        np.where(up, parent, child), np.where(up, 1, -1), np.where(up, child, parent), STOP
    ).reshape(count, -1)
    query = _sentences(names[rows, last], asked, names[rows, families.first], ASK)
    tokens = torch.from_numpy(np.concatenate((np.full((count, 1), ANSWER), facts, query), axis=1))
    return SequenceInputs(tokens, torch.ones_like(tokens, dtype=torch.bool))


def counted(inputs: SequenceInputs) -> WordInputs:
    """The same for a network that counts from the question's mark."""
    tokens, mask = inputs
    last = torch.arange(tokens.shape[1]) == mask.sum(dim=1, keepdim=True) - 1
    return WordInputs(tokens, torch.where(last, ORIGIN, 0), mask)


def asked_in(inputs: SequenceInputs | WordInputs) -> Ints:
    """The generations that each query asks about: (B,)."""
    ends = inputs.mask.sum(dim=1) - ASKED
    asked: Ints = (inputs.tokens.gather(1, ends.unsqueeze(1)).squeeze(1) - RELATION).numpy()
    return asked


def room_for_strangers(links: int) -> int:
    """How many facts about strangers fit beside a chain: each has two people of its own."""
    return (NAMES - links - 1) // 2


def any_tokens(rng: np.random.Generator, rows: int, length: int) -> SequenceInputs:
    """Any words at all, rows of `length` tokens, most of them padded at the end."""
    tokens = torch.from_numpy(rng.integers(0, len(WORDS), (rows, length)))
    sizes = rng.integers(1, length + 1, rows)
    sizes[0] = length  # one row fills the length
    mask = torch.from_numpy(np.arange(length) < sizes[:, None])
    return SequenceInputs(tokens * mask, mask)


def padded(inputs: SequenceInputs, length: int) -> SequenceInputs:
    """The same sentences with room for `length` tokens."""
    missing = length - inputs.tokens.shape[1]
    return SequenceInputs(*(torch.nn.functional.pad(part, (0, missing)) for part in inputs))


def length_of(facts: int) -> int:
    """Tokens of a problem."""
    return 1 + LENGTH * (facts + 1)


def _sentences(one: Ints, generations: Ints, other: Ints, end: int) -> Ints:
    """(...,) each -> (..., LENGTH)."""
    words = [np.full(one.shape, word) for word in (IS, THE, OF, end)]
    return np.stack((one, words[0], words[1], RELATION + generations, words[2], other, words[3]), axis=-1)
