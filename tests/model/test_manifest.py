"""Manifests of models that are not ours: readouts, scores of their own, examples and domains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from model.bounds import LONGEST_EXAMPLE, MOST_LEVELS, MOST_SCORES
from model.halting import FAR
from model.manifest import Manifest

BASE: dict[str, Any] = {
    "name": "toy",
    "version": "1",
    "task": "toy",
    "codec": {"name": "tensors"},
    "inputs": [{"name": "x", "dtype": "float32", "shape": ["B", "N"]}],
    "state": [{"name": "state", "dtype": "float32", "shape": ["B", "N", 4]}],
    "axes": {"N": {"max": 8}},
    "steps": {"default": 4, "limit": 8},
    "files": {},
}
TWO = [{"label": "no", "answer": False}, {"label": "yes", "answer": True}]
OWN = {"name": "q_halt", "halts": "below", "default": 0.5}
TENSOR: dict[str, Any] = {"readout": {"kind": "tensor"}}


def manifest(shape: tuple[object, ...] = ("B", 2), **changes: Any) -> Manifest:
    logits = {"name": "logits", "dtype": "float32", "shape": shape}
    return Manifest.model_validate({**BASE, "logits": logits, **changes})


@pytest.mark.parametrize("folder", ["graph/1", "logic/2", "text/1", "text-words/1"])
def test_the_shipped_manifests_are_classifications(folder: str) -> None:
    content = json.loads((Path("bundles") / folder / "manifest.json").read_text())
    shipped = Manifest.model_validate(content)
    assert shipped.readout.kind == "classes"
    assert list(shipped.criteria) == ["none", *content["scores"], "agreement"]
    assert shipped.step_outputs[-2:] == ("logits", "scores")


def test_a_model_without_scores_runs_to_the_end_of_its_budget() -> None:
    plain = manifest(classes=TWO)
    assert list(plain.criteria) == ["none"]
    assert plain.halting.rule().criterion == "none"
    assert plain.step_outputs == ("next_state", "logits")


def test_a_score_of_a_models_own_says_when_it_halts() -> None:
    mixed = manifest(classes=TWO, scores=["kl", OWN], halting={"criterion": "q_halt", "threshold": -3})
    assert mixed.score_names == ("kl", "q_halt")
    own = mixed.criteria["q_halt"]
    assert (own.halts_above, own.default, own.low, own.high) == (False, 0.5, -FAR, FAR)
    assert mixed.halting.rule().threshold == -3


@pytest.mark.parametrize(
    ("shape", "changes"),
    [
        (("B", 2), {"classes": TWO}),
        (("B", "N", 2), {"classes": TWO, "readout": {"kind": "tokens", "axis": "N"}}),
        (("B", 9, 2), {"classes": TWO, "readout": {"kind": "tokens", "axis": 9}}),
        (("B", "N", 4, 2), {"classes": TWO, "readout": {"kind": "tokens", "axis": ["N", 4]}}),
        (("B",), TENSOR),
        (("B", "N", 3, "N"), TENSOR),
    ],
)
def test_readouts_of_every_kind_are_read(shape: tuple[object, ...], changes: dict[str, Any]) -> None:
    assert manifest(shape, **changes).logits.shape == shape


@pytest.mark.parametrize(
    ("shape", "changes", "words"),
    [
        (("B", 2), {}, "there are 0 classes, but logits has the shape"),
        (("B", 3), {"classes": TWO}, "2 classes, but logits has the shape"),
        (("B", "N", 2), {"classes": TWO}, "readout is classes"),
        (("B", "N"), {"classes": TWO}, "readout is classes"),
        (("B", 2), {"classes": TWO, "readout": {"kind": "tokens", "axis": "N"}}, "readout is tokens"),
        (("B", "N", 2), {"classes": TWO, "readout": {"kind": "tokens", "axis": "M"}}, "readout is tokens"),
        (("B", "N", 2), {"classes": TWO, "readout": {"kind": "tokens", "axis": ["N", "N"]}}, "readout is"),
        (("B", "N", 2), {"classes": TWO, "readout": {"kind": "tokens"}}, "an axis belongs to the kind"),
        (("B", 2), {"classes": TWO, "readout": {"kind": "classes", "axis": "N"}}, "an axis belongs"),
        (("B", 2), {"classes": TWO, "readout": {"kind": "mood"}}, "readout.kind"),
        (("B", 2), {"classes": TWO, **TENSOR}, "has no classes"),
        (("B", 2), {"scores": ["mood"], "classes": TWO}, "unknown score 'mood'"),
        (("B", 2), {"scores": ["none"], "classes": TWO}, "unknown score 'none'"),
        (("B", 2), {"scores": ["kl", "kl"], "classes": TWO}, "'kl' is named twice"),
        (("B", 2), {"scores": [OWN, OWN], "classes": TWO}, "'q_halt' is named twice"),
        (("B", 2), {"scores": [OWN | {"name": "kl"}], "classes": TWO}, "name of a built-in one"),
        (("B", 2), {"scores": [OWN | {"name": "none"}], "classes": TWO}, "name of a built-in one"),
        (("B", 2), {"scores": [OWN | {"name": "q halt"}], "classes": TWO}, "should match pattern"),
        (("B", 2), {"scores": [OWN | {"default": 1e300}], "classes": TWO}, "less than or equal"),
        (("B", 2), {"scores": [OWN | {"halts": "there"}], "classes": TWO}, "'above' or 'below'"),
        (
            ("B", 2),
            {"scores": [OWN | {"name": f"s{n}"} for n in range(MOST_SCORES + 1)], "classes": TWO},
            "at most 64",
        ),
        (("B",), TENSOR | {"halting": {"criterion": "q", "threshold": 1}}, "'q' is not among the scores"),
        (("B",), TENSOR | {"axes": {"N": {"max": 8}, "M": {"max": 8}}}, "axis 'M' is in no input"),
        (("B",), TENSOR | {"example": "x" * LONGEST_EXAMPLE}, "take a smaller problem"),
        (("B",), TENSOR | {"example": {"a": 10**25}}, "over 64 bits"),
        (("B",), TENSOR | {"example": json.loads("[" * 40 + "]" * 40)}, f"more than {MOST_LEVELS} levels"),
        (("B",), TENSOR | {"domain": {"sentence": ""}}, "domain.sentence"),
        (("B",), TENSOR | {"domain": {"sentence": "x" * 1001}}, "domain.sentence"),
        (("B",), TENSOR | {"domain": {"sentence": "x", "limits": {"N": -1}}}, "domain.limits.N"),
        (("B",), TENSOR | {"domain": {"sentence": "x", "limits": {"N": 10**25}}}, "domain.limits.N"),
        (
            ("B",),
            TENSOR | {"domain": {"sentence": "x", "limits": {str(n): n for n in range(33)}}},
            "at most 32",
        ),
        (("B",), TENSOR | {"codec": {"name": "../tensors"}}, "codec.name"),
    ],
)
def test_what_does_not_hang_together_is_refused(
    shape: tuple[object, ...], changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        manifest(shape, **changes)


def test_a_calibrated_point_of_a_score_that_is_not_computed_is_refused() -> None:
    point = {"criterion": "kl", "threshold": 0.1, "accuracy": 1, "mean_steps": 1, "hardest_accuracy": 1}
    curve = {"problems": 1, "max_steps": 4, "confidence": 0.9, "points": [point | {"guaranteed": 0.9}]}
    manifest(classes=TWO, scores=["kl"], calibration=curve)
    with pytest.raises(ValidationError, match="calibrated criterion 'kl' is not among the scores"):
        manifest(classes=TWO, scores=["entropy"], calibration=curve)


def test_a_domain_is_a_sentence_and_what_can_be_measured() -> None:
    domain = {"sentence": "Right up to ten levels.", "limits": {"levels": 10}}
    assert manifest(("B",), **TENSOR, domain=domain).domain.model_dump() == domain
