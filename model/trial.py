"""A model run by hand: step by step, by tensor names, each tensor held against the manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.codecs import Tensors
from model.errors import BundleError, first_line
from model.manifest import Manifest, TensorSpec
from model.row import Arrays, Bucket, Layout, Row


@dataclass(frozen=True)
class Graphs:
    """The two computations of a bundle in one of its forms, on arrays in the manifest's order.

    embed: inputs -> context, state, memory
    step:  context, state, memory (, depth) -> next state, next memory, logits (, scores)
    """

    embed: Callable[[Arrays], Arrays]
    step: Callable[[Arrays], Arrays]


class Trial:
    """Runs a model by tensor names, and says what its tensors are that they should not be."""

    def __init__(self, manifest: Manifest, graphs: Graphs) -> None:
        self.manifest = manifest
        self.layout = Layout(manifest)
        self._graphs = graphs
        following = [_next(spec) for spec in (*manifest.state, *manifest.memory)]
        self._embedded = (*manifest.context, *manifest.state, *manifest.memory)
        self._shown = [*following, manifest.logits]
        if manifest.scores:
            columns = ("B", len(manifest.scores))
            self._shown.append(TensorSpec(name="scores", dtype="float32", shape=columns))
        self.specs = {spec.name: spec for spec in (*self._embedded, *self._shown)}

    def embed(self, rows: Sequence[Row]) -> Tensors:
        """Context, state and memory of a batch. Raises BundleError where they are not as they must be."""
        arrays = self._run("embed", self._graphs.embed, self.layout.stack(rows), rows)
        return self._named("embed", self._embedded, arrays, rows)

    def walk(self, rows: Sequence[Row], steps: int) -> Iterator[Tensors]:
        """What embedding gives, and then what each step gives. Raises BundleError as `embed` does."""
        carried = self.embed(rows)
        yield carried
        for depth in range(steps):
            inputs = list(carried.values())
            if self.manifest.takes_depth:
                inputs.append(np.full(len(rows), depth, np.int64))
            said = self._named("step", self._shown, self._run("step", self._graphs.step, inputs, rows), rows)
            yield said
            carried = {name: said.get(f"next_{name}", values) for name, values in carried.items()}

    def compared(self, said: Tensors) -> list[str]:
        """Context, state, logits and scores: what the scores remember, nobody sees."""
        memory = {spec.name for spec in self.manifest.memory}
        return [name for name in said if name.removeprefix("next_") not in memory]

    def cut(self, name: str, values: NDArray[np.generic], row: Row) -> NDArray[np.generic]:
        """One row of a tensor, without its padding; of the scores, those that rounding moves a little."""
        values = self.layout.cut(self.specs[name], values, row.lengths)
        return without_counts(self.manifest, values) if name == "scores" else values

    def _run(
        self, what: str, verb: Callable[[Arrays], Arrays], inputs: Arrays, rows: Sequence[Row]
    ) -> Arrays:
        try:
            return list(verb(inputs))
        except Exception as error:  # a backend may raise anything
            size = self._size(len(rows), rows[0].bucket)
            raise BundleError(f"{what} does not run with {size}: {first_line(error)}") from error

    def _named(self, what: str, specs: Sequence[TensorSpec], arrays: Arrays, rows: Sequence[Row]) -> Tensors:
        if len(arrays) != len(specs):
            names = ", ".join(spec.name for spec in specs)
            raise BundleError(f"{what} gives {len(arrays)} tensors, not the {len(specs)} it must: {names}")
        for spec, values in zip(specs, arrays, strict=True):
            expected = (len(rows), *self.layout.shape(spec, rows[0].bucket))
            if values.dtype != spec.numpy_dtype:
                raise BundleError(f"{what} gives {spec.name} as {values.dtype}, but must give {spec.dtype}")
            if values.shape != expected:
                size = self._size(len(rows), rows[0].bucket)
                carried = spec.name.startswith("next_")
                changes = "; a step must keep the shape of what it carries" if carried else ""
                raise BundleError(
                    f"{what} gives {spec.name} the shape {list(values.shape)}, not {list(expected)}, "
                    f"with {size}{changes}"
                )
        return {spec.name: values for spec, values in zip(specs, arrays, strict=True)}

    def _size(self, rows: int, bucket: Bucket) -> str:
        sizes = [f"{axis} = {size}" for axis, size in zip(self.manifest.axes, bucket, strict=True)]
        return ", ".join([f"{rows} row{'s' * (rows > 1)}", *sizes])


def without_counts(manifest: Manifest, scores: NDArray[np.generic]) -> NDArray[np.generic]:
    """Scores (..., S) but for the steps that an answer has stood, which a tie between answers sets back."""
    names = manifest.score_names
    return scores[..., [place for place, name in enumerate(names) if name != "argmax_stability"]]


def apart(one: NDArray[np.generic], other: NDArray[np.generic]) -> float:
    """The largest difference, relative to 1 + the largest number; infinite where only one is a number."""
    a, b = one.astype(np.float64), other.astype(np.float64)
    sound = np.isfinite(a)
    if not np.array_equal(sound, np.isfinite(b)):
        return float("inf")
    a, b = a[sound], b[sound]
    return float(np.abs(a - b).max() / (1 + np.abs(a).max())) if a.size else 0.0


def _next(spec: TensorSpec) -> TensorSpec:
    return spec.model_copy(update={"name": f"next_{spec.name}"})
