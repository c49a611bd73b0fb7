"""What three hands say together: false, true, or not known yet."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from model.halting import CRITERIA, HaltingRule, decide, probabilities, terms_of
from model.network.config import RecurrentConfig
from model.network.perception import UNKNOWN, Context, SentencePerception, SequenceInputs, WordInputs
from model.network.recurrent import RecurrentTransformer
from training.judge.backends import torch_backend

CONFIG = RecurrentConfig(
    width=16, heads=2, feed_forward=16, classes=3, layer_scale=1.0, perception="sentences", reading=16
)
NOT_KNOWN, EQUAL, OTHER = range(3)  # what a hand answers to the second question
PLACES = 13  # classes of the first


def answer(verdicts: Tensor) -> Tensor:
    """log p of false, true and unknown, of what the hands say: (B, 3, 3) -> (B, 3)."""
    said = torch.cat((torch.randn(*verdicts.shape[:2], PLACES), verdicts), dim=-1)
    return SentencePerception(CONFIG).answer(said, Context(torch.zeros(1)))


def combined(hands: Tensor) -> list[float]:
    """The same of one row's probabilities, (3, 3), by all that three hands can say."""
    total = [0.0, 0.0, 0.0]
    for said in itertools.product((NOT_KNOWN, EQUAL, OTHER), repeat=3):
        p = float(hands[0, said[0]] * hands[1, said[1]] * hands[2, said[2]])
        total[UNKNOWN if NOT_KNOWN in said else int(said == (EQUAL, EQUAL, EQUAL))] += p
    return total


@pytest.mark.parametrize("sharp", [0.3, 2.0, 8.0])
def test_three_equal_hands_are_true_one_that_differs_is_false_and_one_unknown_is_neither(
    sharp: float,
) -> None:
    verdicts = sharp * torch.randn(50, 3, 3, generator=torch.Generator().manual_seed(1))
    shares = answer(verdicts).exp()
    torch.testing.assert_close(shares.sum(dim=-1), torch.ones(50))
    expected = [combined(row) for row in torch.softmax(verdicts.double(), dim=-1)]
    torch.testing.assert_close(shares.double(), torch.tensor(expected).double(), atol=1e-6, rtol=1e-4)


def test_where_a_counting_hand_stands_is_no_part_of_the_answer() -> None:
    verdicts = torch.randn(4, 3, 3)
    one, other = answer(verdicts), answer(verdicts)  # each with other places
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("size", [1e2, 1e4, 1e30])
def test_a_verdict_is_a_number_however_sure_the_hands_are(size: float) -> None:
    values = torch.tensor(list(itertools.product((-size, 0.0, size), repeat=3)))  # (27, 3)
    verdicts = torch.stack([values[list(rows)] for rows in itertools.product(range(0, 27, 2), repeat=3)])
    shares = answer(verdicts)
    assert torch.isfinite(shares).all()
    if size <= 1e4:  # beyond, what is left of a sum is its largest part
        torch.testing.assert_close(shares.exp().sum(dim=-1), torch.ones(len(shares)), atol=5e-3, rtol=0)


@torch.inference_mode()
def test_the_readout_reads_the_last_word_of_each_row() -> None:
    torch.manual_seed(2)
    model = RecurrentTransformer(CONFIG).eval()
    tokens = torch.randint(0, 60, (3, 10))
    mask = torch.arange(10) < torch.tensor([[10], [4], [1]])
    inputs = WordInputs(tokens, torch.zeros_like(tokens), mask)
    context, state = model.embed(inputs)
    assert context.places.argmax(dim=-1).flatten().tolist() == [9, 3, 0]
    everywhere = model.readout_everywhere(state, context)
    assert everywhere.shape == (3, 10, 3, PLACES + 3)
    at_the_last = everywhere[torch.arange(3), torch.tensor([9, 3, 0])]
    torch.testing.assert_close(
        model.readout(state, context), SentencePerception(CONFIG).answer(at_the_last, context)
    )


@pytest.mark.parametrize("perception", ["sentences", "characters"])
@torch.inference_mode()
def test_known_is_the_probability_of_unknown_and_halts_where_that_has_fallen(perception: str) -> None:
    """Of the step graph's logits by the NumPy reference, and by its own scores."""
    torch.manual_seed(4)
    sentences = perception == "sentences"
    model = RecurrentTransformer(
        RecurrentConfig(**{**vars(CONFIG), "perception": perception, "feed_forward": 32, "gate_bias": 0.0})
    ).eval()
    tokens, mask = torch.randint(0, 7, (6, 12)), torch.ones(6, 12, dtype=torch.bool)
    inputs = WordInputs(tokens, torch.zeros_like(tokens), mask) if sentences else SequenceInputs(tokens, mask)
    backend = torch_backend(model)
    assert backend.scores[-1] == "known"
    steps = list(backend.walk(inputs, 8))
    scores = torch.stack([scores for *_, scores in steps]).numpy()  # (steps, B, S)
    unknown = probabilities(torch.stack([logits for *_, logits, _ in steps]).double().numpy())[..., UNKNOWN]
    assert scores[..., -1] == pytest.approx(unknown, abs=1e-6)
    threshold = float(sorted(unknown.flatten())[unknown.size // 3])
    criteria = {name: CRITERIA[name] for name in ("none", *backend.scores)}
    terms = terms_of(HaltingRule("known", threshold + 1e-6), 1, 100, criteria)
    held_for, seen = torch.zeros(6, dtype=torch.int64).numpy(), set()
    for taken, (said, expected) in enumerate(zip(scores, unknown, strict=True), start=1):
        depth = torch.full((6,), taken).numpy()
        halted, _, held_for = decide(said, depth, held_for, terms)
        assert halted.tolist() == (expected <= threshold + 1e-6).tolist()
        seen |= set(halted.tolist())
    assert seen == {False, True}


def test_a_network_of_two_classes_has_no_score_for_what_it_cannot_say() -> None:
    plain = RecurrentConfig(width=16, heads=2, feed_forward=16, perception="characters")
    assert "known" not in torch_backend(RecurrentTransformer(plain)).scores
