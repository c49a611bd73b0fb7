"""Calibration on labelled problems from a file, for models whose task nobody here has a generator for.

A line is `{"input": {"tensors": …}, "label": …, "difficulty": 3}`, or the problem's own fields beside the
label: what a class means, its label, or its number; a list of them, nested as it may be, where there is an
answer per token. Without a difficulty all lines are equally hard.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.calibration import Calibration
from model.codecs.tensors import TensorsCodec
from model.errors import BundleError, RequestError
from model.halting import FAR, HaltingRule
from model.manifest import Manifest, OwnScore
from model.row import Layout, Row
from training.judge.backends import Backend
from training.judge.calibrate import (
    CONFIDENCE,
    LOSS,
    Outcomes,
    calibration_points,
    choose_default,
    outcomes,
    rules_for,
)
from training.judge.traces import Trace

TOGETHER = 32  # rows that run together
PILOT = 4  # of so many problems one only serves to choose thresholds of the model's own scores
SHARES = (1.0, 0.999, 0.99, 0.97, 0.95, 0.9, 0.8, 0.65, 0.5, 0.3)  # of scores on the safe side of a threshold
FEWEST = 8  # problems


@dataclass(frozen=True)
class Labelled:
    """A problem whose answer is known."""

    row: Row
    label: NDArray[np.int64]  # the class: of shape (), or one per token
    difficulty: int


def read_labelled(path: Path, manifest: Manifest) -> list[Labelled]:
    """The problems of a file. Raises BundleError that names the line."""
    if manifest.readout.kind == "tensor":
        raise BundleError(
            "a readout that is a tensor has no right answers to calibrate on; leave --problems out"
        )
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: cannot be read ({error})") from error
    codec, layout = TensorsCodec(manifest), Layout(manifest)
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            found.append(_read(json.loads(line), manifest, codec, layout))
        except RequestError as error:
            raise BundleError(f"{path}:{number}: {error.field}: {error.message}") from None
        except (ValueError, TypeError, AttributeError) as error:
            raise BundleError(f"{path}:{number}: {error}; a line is {{'input': …, 'answer': …}}") from None
    if len(found) < FEWEST:
        raise BundleError(f"{path}: has {len(found)} problems; {FEWEST} are the fewest to calibrate on")
    return found


def calibrate_labelled(manifest: Manifest, backend: Backend, problems: Sequence[Labelled]) -> dict[str, Any]:
    """`calibration`, `halting` and `scores` of the manifest, measured on the problems."""
    steps = manifest.steps.default
    own = {score.name: score for score in manifest.scores if isinstance(score, OwnScore)}
    pilot = [problem for place, problem in enumerate(problems) if own and place % PILOT == 0]
    others = [problem for place, problem in enumerate(problems) if not own or place % PILOT]
    rules = list(rules_for(manifest.score_names))
    if own:
        tried = _trace(manifest, backend, pilot, steps)
        rules += [rule for score in own.values() for rule in _own_rules(score, tried)]
    measured: dict[int, Outcomes] = {}
    for difficulty in sorted({problem.difficulty for problem in others}):
        chosen = [problem for problem in others if problem.difficulty == difficulty]
        measured[difficulty] = outcomes(rules, _trace(manifest, backend, chosen, steps))
    calibration = Calibration(
        problems=len(others),
        max_steps=steps,
        confidence=CONFIDENCE,
        description=(
            f"{len(others)} labelled problems of {len(measured)} difficulties that came with the export; "
            "guaranteed: for the hardest of these, by Learn-then-Test with a fixed sequence per criterion"
        ),
        points=calibration_points(rules, measured),
    )
    scores = [
        score if isinstance(score, str) else score.model_copy(update={"default": _usual(score, calibration)})
        for score in manifest.scores
    ]
    return {"calibration": calibration, "halting": choose_default(calibration), "scores": scores}


def _read(fields: dict[str, Any], manifest: Manifest, codec: TensorsCodec, layout: Layout) -> Labelled:
    given = fields.pop("label", None)
    difficulty = fields.pop("difficulty", 0)
    if given is None:
        raise ValueError("it has no label")
    if type(difficulty) is not int:
        raise ValueError("a difficulty is a whole number")
    row = layout.row(codec.encode(fields.get("input", fields), "input"), "input")
    label = np.array([_class(manifest, one) for one in _flat(given)], np.int64)
    shape = layout.shape(manifest.logits, row.lengths)[:-1]
    if label.size != int(np.prod(shape)):
        raise ValueError(f"it has {label.size} labels, but the readout gives {int(np.prod(shape))} answers")
    return Labelled(row, label.reshape(shape), difficulty)


def _flat(label: Any) -> Iterator[Any]:
    if not isinstance(label, list):
        yield label
        return
    for part in label:
        yield from _flat(part)


def _class(manifest: Manifest, given: Any) -> int:
    for place, known in enumerate(manifest.classes):
        if known.label == given or (known.answer == given and type(known.answer) is type(given)):
            return place
    if type(given) is int and 0 <= given < len(manifest.classes):
        return given
    raise ValueError(f"{given!r} is no answer of this model; its labels are {_labels(manifest)}")


def _labels(manifest: Manifest) -> str:
    return ", ".join(known.label for known in manifest.classes[:20])


@torch.inference_mode()
def _trace(manifest: Manifest, backend: Backend, problems: Sequence[Labelled], steps: int) -> Trace:
    """What every step says about the problems, in their own order; rows of one padded shape run together."""
    layout, names = Layout(manifest), manifest.score_names
    right = np.empty((len(problems), steps), np.bool_)
    scores = np.empty((len(problems), steps, len(names)), np.float32)
    order = sorted(range(len(problems)), key=lambda place: problems[place].row.bucket)
    for bucket, group in groupby(order, key=lambda place: problems[place].row.bucket):
        places = list(group)
        shape = layout.shape(manifest.logits, bucket)[:-1]
        for chosen in (places[start : start + TOGETHER] for start in range(0, len(places), TOGETHER)):
            labels = np.full((len(chosen), *shape), -1, np.int64)  # where there is padding nothing is wrong
            for at, place in enumerate(chosen):
                label = problems[place].label
                labels[at : at + 1, *(slice(size) for size in label.shape)] = label
            inputs = [torch.from_numpy(array) for array in layout.stack([problems[p].row for p in chosen])]
            for step, said in enumerate(backend.walk(inputs, steps)):
                logits, scored = (said[-2], said[-1]) if names else (said[-1], None)
                same = (logits.argmax(dim=-1).numpy() == labels) | (labels < 0)
                right[chosen, step] = same.reshape(len(chosen), -1).all(axis=1)
                if scored is not None:
                    scores[chosen, step] = scored.numpy()
    own = {score.name: score.criterion for score in manifest.scores if isinstance(score, OwnScore)}
    return Trace(right, scores, names, own)


def _own_rules(score: OwnScore, tried: Trace) -> list[HaltingRule]:
    """Thresholds from the safest to the loosest, where the score was seen to be."""
    seen = tried.scores[..., tried.names.index(score.name)]
    seen = seen[np.isfinite(seen)]
    if not seen.size:
        return []
    shares = SHARES if score.halts == "above" else [1 - share for share in SHARES]
    values = np.clip(np.quantile(seen.astype(np.float64), shares), -FAR, FAR)
    return [HaltingRule(score.name, value) for value in dict.fromkeys(float(f"{v:.6g}") for v in values)]


def _usual(score: OwnScore, calibration: Calibration) -> float:
    """The threshold with the fewest steps that loses next to nothing."""
    best = max(point.accuracy for point in calibration.points) - LOSS
    sound = [p for p in calibration.points if p.criterion == score.name and p.accuracy >= best]
    return min(sound, key=lambda point: point.mean_steps).threshold if sound else score.default
