"""Whether a model does what its manifest says: measured on a problem, in whatever form it is run.

Every fault is a sentence. What is looked at: names, types and shapes for several numbers of rows and
lengths, numbers that are none, chance, and that neither neighbours nor padding move a row.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from model.codecs import Tensors
from model.errors import BundleError
from model.manifest import Manifest
from model.row import Layout, Row
from model.trial import Graphs, Trial, apart

STEPS = 8  # that are looked at for numbers that are none
FEW_STEPS = 3  # that must agree: a model may magnify what rounding does
CLOSE = 1e-3  # relative to 1 + the largest number: what rounding may do
SAME = 1e-5  # and where the shapes are the same
SECONDS = 0.2  # that a step is timed for
SEED = 31


def faults(manifest: Manifest, graphs: Graphs, row: Row) -> list[str]:
    """What is wrong with a model, on the tensors of one problem and others made from it; none: all is well.

    Later looks are only taken where the earlier ones find nothing.
    """
    looks = (_fit, _are_numbers, _are_no_chance, _ignore_neighbours, _ignore_padding)
    for look in looks:
        if found := list(dict.fromkeys(look(Trial(manifest, graphs), row))):
            return found
    return []


def resized(manifest: Manifest, row: Row, sizes: Mapping[str, int]) -> Row:
    """The row with other lengths along some axes: what is there is repeated, or cut."""
    tensors: Tensors = {}
    for spec in manifest.inputs:
        values = row.tensors[spec.name]
        for place, axis in enumerate(spec.shape[1:]):
            if axis in sizes:
                values = np.take(values, np.arange(sizes[str(axis)]) % values.shape[place], axis=place)
        tensors[spec.name] = values
    return Layout(manifest).row(tensors)


def other_sizes(manifest: Manifest, row: Row) -> list[dict[str, int]]:
    """Lengths to try beside a row's own, an axis at a time: longer ones, or shorter ones at the maximum."""
    tried = []
    for (name, axis), length in zip(manifest.axes.items(), row.lengths, strict=True):
        sizes = {min(axis.max, length + 1), min(axis.max, 2 * length)} - {length}
        sizes = sizes or {max(1, length - 1), max(1, length // 2)} - {length}
        tried += [{name: size} for size in sorted(sizes)]
    return tried


def unlike(manifest: Manifest, row: Row, rng: np.random.Generator) -> Row:
    """A row of the same shape with other values of the same kind; what marks real tokens stays."""
    tensors: Tensors = {}
    for name, values in row.tensors.items():
        if name == manifest.mask:
            tensors[name] = values
        elif values.dtype.kind == "f":
            noise = rng.normal(0, 1 + float(np.std(values.astype(np.float64))), values.shape)
            tensors[name] = (values + noise).astype(values.dtype)
        else:
            tensors[name] = rng.permutation(values.reshape(-1)).reshape(values.shape)
    return Row(tensors, row.lengths, row.bucket)


def follow(manifest: Manifest, graphs: Graphs, row: Row) -> Iterator[Tensors]:
    """Context and state of a row, then what a few steps give; without its padding, by name."""
    trial = Trial(manifest, graphs)
    for said in trial.walk([row], FEW_STEPS):
        yield {name: trial.cut(name, said[name][0], row) for name in trial.compared(said)}


def seconds_of_a_step(manifest: Manifest, graphs: Graphs, row: Row, rows: int) -> float:
    """The median time of a step with so many copies of a row."""
    trial = Trial(manifest, graphs)
    carried = list(trial.embed([row] * rows).values())
    inputs = [*carried, np.zeros(rows, np.int64)] if manifest.takes_depth else carried
    taken: list[float] = []
    while len(taken) < 3 or sum(taken) < SECONDS:
        began = time.perf_counter()
        graphs.step(inputs)
        taken.append(time.perf_counter() - began)
    return float(np.median(taken))


def _fit(trial: Trial, row: Row) -> Iterator[str]:
    """Types and shapes, for several numbers of rows and lengths."""
    shapes = [({}, 1), ({}, 2), ({}, 5), *((sizes, 2) for sizes in other_sizes(trial.manifest, row))]
    for sizes, rows in shapes:
        try:
            for _ in trial.walk([resized(trial.manifest, row, sizes)] * rows, 2):
                pass
        except BundleError as fault:
            yield fault.message


def _are_numbers(trial: Trial, row: Row) -> Iterator[str]:
    """What the server shows of a problem is finite, or fails it."""
    states = [spec.name for spec in trial.manifest.state]
    watched = {"logits", "scores", *states, *(f"next_{name}" for name in states)}
    for step, said in enumerate(trial.walk([row], STEPS)):
        for name in (name for name, values in said.items() if name in watched and values.dtype.kind == "f"):
            if not np.isfinite(trial.cut(name, said[name][0], row)).all():
                yield f"{_shown(name)} of the example is not finite after {step} steps"
                return


def _are_no_chance(trial: Trial, row: Row) -> Iterator[str]:
    rows = [row, unlike(trial.manifest, row, np.random.default_rng(SEED))]
    for name, far in _moved(trial, rows, rows, (0, 0), SAME):
        yield f"{_shown(name)} is left to chance: it differs by {far:.2g} when it is computed again"
        return


def _ignore_neighbours(trial: Trial, row: Row) -> Iterator[str]:
    """Other neighbours, another place in the batch, nobody beside it."""
    rng = np.random.default_rng(SEED)
    one, two, three, four = (unlike(trial.manifest, row, rng) for _ in range(4))
    here = [row, one, two]
    elsewhere = (([row, three, four], 0, SAME), ([one, two, row], 2, CLOSE), ([row], 0, CLOSE))
    for others, place, close in elsewhere:
        for name, far in _moved(trial, here, others, (0, place), close):
            yield f"rows influence each other: the rows beside a row move its {_shown(name)} by {far:.2g}"
            return


def _ignore_padding(trial: Trial, row: Row) -> Iterator[str]:
    for sizes in ({}, *other_sizes(trial.manifest, row)):
        padded = resized(trial.manifest, row, sizes)
        exact = Row(padded.tensors, padded.lengths, padded.lengths)
        if padded.bucket == padded.lengths:
            continue
        for name, far in _moved(trial, [exact], [padded], (0, 0), CLOSE):
            axes = ", ".join(axis for axis, about in trial.manifest.axes.items() if about.padded)
            yield f"padding along {axes} moves {_shown(name)} by {far:.2g}: mask it, or say `padded: false`"
            return


def _moved(
    trial: Trial, rows: Sequence[Row], others: Sequence[Row], places: tuple[int, int], close: float
) -> Iterator[tuple[str, float]]:
    """Tensors of one row that two batches with it do not agree on, and how far they are apart."""
    here, there = places
    for ours, theirs in zip(trial.walk(rows, FEW_STEPS), trial.walk(others, FEW_STEPS), strict=True):
        for name in trial.compared(ours):
            far = apart(
                trial.cut(name, ours[name][here], rows[here]),
                trial.cut(name, theirs[name][there], others[there]),
            )
            if far > close:
                yield name, far


def _shown(name: str) -> str:
    return name.removeprefix("next_")
