"""Terms: what a request is held to, and what is known against a rule, without HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from model.errors import RequestError
from model.halting import HaltingRule
from model.manifest import Manifest
from service.terms import RequestedRule, RequestedTerms, beyond, terms_of
from tests.service.servers import counting_bundle

STEPS = {"steps": {"default": 16, "limit": 100}}


def point(
    criterion: str, threshold: float, hardest: float, patience: int = 1, **more: float
) -> dict[str, Any]:
    shown = {"accuracy": 0.9, "mean_steps": 5.0, "guaranteed": hardest - 0.01}
    point = {"criterion": criterion, "threshold": threshold, "patience": patience}
    return {**point, "hardest_accuracy": hardest, **shown, **more}


def calibrated(*points: dict[str, Any], **changes: Any) -> Manifest:
    calibration = {"problems": 100, "max_steps": 64, "confidence": 0.95, "points": points}
    return counting_bundle(calibration=calibration, **STEPS, **changes).manifest


POINTS = (
    point("kl", 1e-6, 0.98, patience=2),
    point("kl", 1e-4, 0.7, patience=2),
    point("kl", 1e-2, 0.5, patience=2),
    point("confidence", 0.999, 0.9, mean_steps=9.0),
    point("confidence", 0.9, 0.6),
    point("entropy", 0.1, 0.75),
)


def warned(**rule: Any) -> tuple[str, ...]:
    steps = {key: rule.pop(key) for key in ("min_steps", "max_steps") if key in rule}
    return terms_of(RequestedTerms(rule=RequestedRule(**rule), **steps), calibrated(*POINTS), 0.0).warnings


def test_what_nobody_asked_for_is_the_bundles() -> None:
    terms = terms_of(RequestedTerms(), calibrated(*POINTS), 5.0)
    assert (terms.max_steps, terms.min_steps, terms.deadline) == (16, 2, None)
    assert terms.rule == HaltingRule("confidence", 0.9)
    assert not terms.warnings, "whoever leaves the choice to the bundle is not told to do so"


def test_a_deadline_counts_from_arrival_and_a_default_floor_gives_way() -> None:
    terms = terms_of(RequestedTerms(max_steps=1, deadline_ms=250), calibrated(), 5.0)
    assert (terms.max_steps, terms.min_steps, terms.deadline) == (1, 1, 5.25)


def test_an_accuracy_chooses_rule_and_budget() -> None:
    terms = terms_of(RequestedTerms(rule=RequestedRule(target_accuracy=0.95)), calibrated(*POINTS), 0.0)
    assert terms.rule == HaltingRule("kl", 1e-6, 2)
    assert terms.max_steps == 64


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (RequestedTerms(max_steps=101), "max_steps"),
        (RequestedTerms(max_steps=4, min_steps=5), "min_steps"),
        (RequestedTerms(rule=RequestedRule()), "halting.criterion"),
        (RequestedTerms(rule=RequestedRule(threshold=0.1)), "halting.criterion"),
        (RequestedTerms(rule=RequestedRule(criterion="cosine")), "halting.criterion"),
        (RequestedTerms(rule=RequestedRule(criterion="kl", threshold=-1.0)), "halting.threshold"),
        (RequestedTerms(rule=RequestedRule(criterion="kl", target_accuracy=0.9)), "halting.criterion"),
        (RequestedTerms(rule=RequestedRule(target_accuracy=0.99)), "halting.target_accuracy"),
    ],
)
def test_what_is_out_of_range_is_named(asked: RequestedTerms, field: str) -> None:
    with pytest.raises(RequestError) as refusal:
        terms_of(asked, calibrated(*POINTS), 0.0)
    assert refusal.value.field == field


def test_a_rule_that_was_measured_to_be_near_chance_warns_with_the_figure_and_the_default() -> None:
    assert warned(criterion="kl", threshold=0.5) == (
        "kl at 0.5 may stop too early: at 0.01 it was right on 50.0% of the hardest problems that were "
        "measured; leave halting out for the default rule (confidence at 0.9)",
    )
    assert "at 0.0001 it was right on 70.0%" in warned(criterion="kl", threshold=1e-4, patience=2)[0]
    assert "right on 60.0%" in warned(criterion="confidence", threshold=0.5)[0], "the other direction"


@pytest.mark.parametrize(
    "rule",
    [
        {"criterion": "kl", "threshold": 5e-5},  # between a sound one and a bad one: not known
        {"criterion": "kl", "threshold": 1e-8},
        {"criterion": "kl", "threshold": 0.5, "patience": 3},  # waits for longer than was measured
        {"criterion": "kl", "threshold": 0.5, "min_steps": 3},
        {"criterion": "confidence", "threshold": 0.95},
        {"criterion": "entropy", "threshold": 0.2},  # not below three quarters
        {"criterion": "argmax_stability", "threshold": 2.0},  # never measured
        {"criterion": "none"},
        {"target_accuracy": 0.5},
    ],
    ids=str,
)
def test_a_rule_against_which_nothing_is_known_does_not_warn(rule: dict[str, Any]) -> None:
    assert not warned(**rule)


def test_a_problem_beyond_the_domain_is_told_what_the_model_is_right_about() -> None:
    domain = {"sentence": "Right up to five.", "limits": {"nodes": 5, "edges": 9}}
    manifest = counting_bundle(domain=domain).manifest
    assert beyond(manifest, {"nodes": 5, "edges": 9}) == []
    assert beyond(manifest, {"nodes": 6, "edges": 9}) == [
        "with 6 nodes, over 5, the answer may be wrong: Right up to five."
    ]
    assert len(beyond(manifest, {"nodes": 6, "edges": 10})) == 2
    assert beyond(counting_bundle().manifest, {"nodes": 6}) == []
