"""Halting criteria by hand: small arrays whose scores can be worked out on paper."""

from __future__ import annotations

import numpy as np
import pytest

from model import halting
from model.halting import CRITERIA, HaltingRule, agreement, decide, terms_of

EVEN, SURE = np.array([[0.0, 0.0]]), np.array([[0.0, 20.0]])


def test_readout_criteria_on_an_even_and_a_sure_readout() -> None:
    assert halting.confidence(EVEN)[0] == pytest.approx(0.5)
    assert halting.entropy(EVEN)[0] == pytest.approx(np.log(2))
    assert halting.entropy(SURE)[0] == pytest.approx(0, abs=1e-6)
    assert halting.entropy_diff(SURE, EVEN)[0] == pytest.approx(np.log(2), abs=1e-6)
    assert halting.kl(EVEN, EVEN)[0] == pytest.approx(0, abs=1e-9)
    assert halting.kl(SURE, EVEN)[0] == pytest.approx(np.log(2), abs=1e-6)


def test_latent_criteria_take_the_token_that_moved_most_and_no_padding() -> None:
    previous = np.zeros((1, 3, 2))
    previous[0, :, 0] = 1.0
    state = previous.copy()
    state[0, 1] = [0.0, 1.0]  # a quarter turn: the movement is sqrt(2), the cosine 0
    state[0, 2] = [0.0, 9.0]  # padding
    mask = np.array([[True, True, False]])
    assert halting.latent_diff(state, previous, mask)[0] == pytest.approx(np.sqrt(2))
    assert halting.cosine(state, previous, mask)[0] == pytest.approx(1.0)
    delta = state - previous
    assert halting.acceleration(state, delta, np.zeros_like(delta), mask)[0] == pytest.approx(np.sqrt(2))
    assert halting.acceleration(state, delta, delta, mask)[0] == 0


def test_argmax_stability_counts_and_starts_again() -> None:
    assert halting.argmax_stability(SURE, SURE, np.array([3.0]))[0] == 4
    assert halting.argmax_stability(SURE, -SURE, np.array([3.0]))[0] == 0


def test_learned_is_a_sigmoid() -> None:
    assert halting.learned(np.array([0.0, 50.0])).tolist() == pytest.approx([0.5, 1.0])


def test_each_row_is_held_against_its_own_rule() -> None:
    criteria = {name: CRITERIA[name] for name in ("none", "confidence", "kl")}
    scores = np.array([[0.9, 0.5], [0.9, 0.5], [0.9, np.nan], [0.9, 0.5]])
    rules = [HaltingRule("confidence", 0.8), *(HaltingRule("kl", value) for value in (0.1, 1)), HaltingRule()]
    terms = np.stack([terms_of(rule, 1, 4, criteria) for rule in rules])
    depth, held_for = np.full(4, 3), np.zeros(4, np.int64)
    halted, spent, held_for = decide(scores, depth, held_for, terms)
    assert halted.tolist() == [True, False, False, False]
    assert held_for.tolist() == [1, 0, 0, 0]
    assert not spent.any()
    assert decide(scores, depth + 1, held_for, terms)[1].all(), "a budget of four steps"


def test_a_model_without_scores_only_spends_its_budget() -> None:
    terms = terms_of(HaltingRule(), 1, 2, {"none": CRITERIA["none"]})
    nothing, held_for = np.zeros((1, 0)), np.zeros(1, np.int64)
    for depth, over in ((1, False), (2, True)):
        halted, spent, held_for = decide(nothing, np.array([depth]), held_for, terms)
        assert (halted[0], spent[0]) == (False, over)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (("sleep", 1e300, 1), r"threshold 1e\+300 is out of range for sleep: choose from -1e\+06"),
        (("confidence", 1.5, 1), "threshold 1.5 is out of range for confidence: choose from 0 to 1"),
        (("kl", -1.0, 1), "out of range"),
        (("kl", float("nan"), 1), "out of range"),
        (("kl", float("inf"), 1), r"choose from 0 to 1e\+06"),
        (("argmax_stability", 1e300, 1), "out of range"),
        (("kl", 0.1, 0), "patience is 0"),
        (("kl", 0.1, 2**63), "must be from 1 to 1000000"),
    ],
)
def test_rules_that_make_no_sense_are_refused(rule: tuple[str, float, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        HaltingRule(*rule)


def test_every_criterions_usual_threshold_is_in_its_range() -> None:
    assert len(CRITERIA) == 12
    for criterion in CRITERIA.values():
        HaltingRule(criterion.name, criterion.default)


def test_agreement_wants_all_three_and_its_stillness_is_never_above_that_of_jensen_and_shannon() -> None:
    draw = np.random.default_rng(0)
    p, q = draw.dirichlet([0.3] * 5, (2, 1000))
    divergence = (p * np.log(p / q)).sum(axis=-1)
    middle = (p + q) / 2
    js = ((p * np.log(p / middle)).sum(axis=-1) + (q * np.log(q / middle)).sum(axis=-1)) / 2
    still = agreement(np.ones(1000), np.full(1000, 50.0), divergence)
    assert (still <= 1 - js / np.log(2) + 1e-9).all()
    assert agreement(np.array([0.9]), np.array([9.0]), np.array([0.0])).tolist() == [0.9]
    assert agreement(np.array([1.0]), np.array([2.0]), np.array([0.0])).tolist() == [0.75]
    assert agreement(np.array([1.0]), np.array([0.0]), np.array([0.0])).tolist() == [0.0]
    assert np.isnan(agreement(np.array([1.0]), np.array([9.0]), np.array([np.nan]))).all()


def test_rows_beside_each_other_halt_on_agreement_and_on_other_scores() -> None:
    criteria = {name: CRITERIA[name] for name in ("none", "kl", "confidence", "argmax_stability")}
    rules = [HaltingRule("agreement", 0.9), HaltingRule("confidence", 0.9), HaltingRule()]
    terms = np.array([terms_of(rule, 1, 9, criteria) for rule in rules])
    depth, held_for = np.full(3, 4), np.zeros(3, np.int64)
    sure = np.array([[0.0, 0.95, 3.0]] * 3)  # the answer has stood for three steps: 1 - 1/8
    assert decide(sure, depth, held_for, terms)[0].tolist() == [False, True, False]
    sure[:, 2] = 4.0
    assert decide(sure, depth, held_for, terms)[0].tolist() == [True, True, False]
    assert decide(sure, depth, held_for, terms[0])[0].tolist() == [True, True, True], "one rule for all"
