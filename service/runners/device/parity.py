"""How far a precision, or a program, is from the exact one on a model's own example, before it serves."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.bundle import Bundle
from model.halting import HaltingRule, decide, terms_of
from model.manifest import Manifest
from model.row import Floats, Layout, Row
from service.runners.computing import Parity, Precision
from service.runners.device.lane import Lane
from service.runners.device.program import Load, Program
from service.runners.runner import Device

log = logging.getLogger("fathom")
MOST_STEPS = 64


def parity(bundle: Bundle, device: Device, precision: Precision, row: Row, program: Program) -> Parity:
    """What a precision, or another program than the bundle's own, changes for a problem.

    Each way has its own module, for TorchScript compiles for one.
    """

    def walked(load: Load, precision: Precision) -> tuple[Floats, Floats]:
        lane = Lane(device, precision)
        return walk(lane, load(bundle, lane), bundle.manifest, row)

    exact, other = walked(program.exact or program.load, "ieee"), walked(program.load, precision)
    found = compared(bundle.manifest, exact, other)
    if not (found.same_depth and found.same_answer):
        log.warning(
            "backend %s in %s changes the depth or the answer of %s's own example: %s",
            program.backend,
            precision,
            bundle.manifest.name,
            found,
        )
    return found


def walk(lane: Lane, module: Any, manifest: Manifest, row: Row) -> tuple[Floats, Floats]:
    """A problem alone for as many steps as are its model's default: logits (K, ...) and scores (K, S)."""
    layout, count = Layout(manifest), min(manifest.steps.default, MOST_STEPS)
    carried = len(manifest.state) + len(manifest.memory)
    logits, scores = [], []
    lane.settle()
    with lane.work():
        tensors = list(module.embed(*map(lane.send, layout.stack([row]))))
        for taken in range(count):
            depth = [lane.send(np.array([taken]))] if manifest.takes_depth else []
            moved = module.step(*tensors, *depth)
            tensors[len(manifest.context) :] = moved[:carried]
            said = [tensor.float().cpu().numpy()[0] for tensor in moved[carried:]]
            logits.append(layout.cut(manifest.logits, said[0], row.lengths))
            scores.append(said[1] if manifest.scores else np.zeros(0, np.float32))
    return np.stack(logits), np.stack(scores)


def compared(manifest: Manifest, exact: tuple[Floats, Floats], other: tuple[Floats, Floats]) -> Parity:
    """What two walks of one problem have in common."""
    depths = [_halts_at(manifest, scores) for _, scores in (exact, other)]
    ends = [logits[depth - 1] for (logits, _), depth in zip((exact, other), depths, strict=True)]
    return Parity(
        steps=len(exact[0]),
        logits=float(np.abs(exact[0] - other[0]).max()),
        same_depth=depths[0] == depths[1],
        same_answer=np.array_equal(_answer(manifest, ends[0]), _answer(manifest, ends[1])),
    )


def _halts_at(manifest: Manifest, scores: Floats) -> int:
    """The step after which the model's default rule lets the problem go."""
    default, count = manifest.halting, len(scores)
    rule = HaltingRule(default.criterion, default.threshold, default.patience)
    terms = terms_of(rule, default.min_steps, count, manifest.criteria)
    held = np.zeros(1, np.int64)
    for depth, row in enumerate(scores, start=1):
        halted, spent, held = decide(row[None], np.array([depth]), held, terms)
        if halted[0] or spent[0]:
            return depth
    raise AssertionError("the budget ends with the scores")


def _answer(manifest: Manifest, logits: Floats) -> NDArray[np.intp]:
    return np.zeros(0, np.intp) if manifest.readout.kind == "tensor" else logits.argmax(axis=-1)
