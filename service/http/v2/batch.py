"""From the tensors of a request to rows, each without its padding, and from their ends to padded tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from model.bundle import Bundle
from model.codecs import Tensors
from model.errors import RequestError
from model.manifest import Manifest, TensorSpec
from model.row import Bucket, Layout, Row
from service.engine.messages import EVENT_BYTES, READOUT_BYTES, Finished, Submission, Trajectory
from service.engine.served_model import ServedModel
from service.http.envelope import Envelope
from service.http.v2.body import Input, Parameters, ParsedRequest, Tensor
from service.http.v2.tensors import DATATYPES, Values, from_bytes, from_lists
from service.runners.runner import View
from service.settings import Settings
from service.terms import RequestedRule, RequestedTerms, terms_of

LOGITS, STEPS, HALT_REASON = "logits", "steps", "halt_reason"
USUAL = (LOGITS, STEPS, HALT_REASON)
FIELDS = {"halting": "halting_criterion"}  # what /v1 calls what has another name here


@dataclass(frozen=True)
class Wanted:
    """An output that is asked for, and whether as raw bytes."""

    name: str
    binary: bool


@dataclass(frozen=True)
class PreparedTensors:
    """A request that has been understood: what to submit, and what to answer."""

    submission: Submission
    reserved: int  # bytes of what must be kept for the answer
    bundle: Bundle
    layout: Layout
    sizes: Bucket  # of the axes as they were sent: answers are padded to them
    wanted: tuple[Wanted, ...]
    warnings: tuple[str, ...]

    def tensors(self, ends: Sequence[Finished]) -> list[Tensor]:
        """The outputs, rows in the request's order."""
        ordered = sorted(ends, key=lambda end: end.index)
        return [
            Tensor(wanted.name, self._output(wanted.name, ordered), wanted.binary) for wanted in self.wanted
        ]

    def _output(self, name: str, ends: Sequence[Finished]) -> Values:
        if name == STEPS:
            return np.array([end.steps for end in ends], np.int32)
        if name == HALT_REASON:
            return np.array([end.reason.value for end in ends], np.object_)
        if name == LOGITS:
            return self._padded(self.bundle.manifest.logits, [end.logits for end in ends])
        spec = next(spec for spec in self.bundle.manifest.state if spec.name == name)
        return self._padded(spec, [None if end.state is None else end.state[name] for end in ends])

    def _padded(self, spec: TensorSpec, rows: Sequence[Values | None]) -> Values:
        """Rows -> (B, ...), zero where a row is padded; a row without an answer is no number."""
        whole = np.zeros((len(rows), *self.layout.shape(spec, self.sizes)), spec.numpy_dtype)
        for place, row in enumerate(rows):
            if row is not None:
                whole[place : place + 1, *(slice(size) for size in row.shape)] = row
            elif whole.dtype.kind == "f":
                whole[place] = np.nan
        return whole


def prepare_tensors(
    asked: ParsedRequest, served: ServedModel, settings: Settings, envelope: Envelope
) -> PreparedTensors:
    """Everything that can be refused about a request, and the work it asks for. Raises RequestError."""
    manifest, request = served.bundle.manifest, asked.request
    if request.model_name not in (None, manifest.name):
        raise RequestError(f"is another model than {manifest.name}, which the path names", "model_name")
    parameters = request.parameters or Parameters()
    try:
        terms = terms_of(_terms(parameters), manifest, envelope.arrived)
    except RequestError as error:
        name = str(error.field).replace(".", "_")
        raise RequestError(error.message, f"parameters.{FIELDS.get(name, name)}") from None
    wanted = _wanted(asked, parameters, manifest)
    rows, sizes = _rows(
        _inputs(asked, manifest), served.layout, envelope.max_problems, _longest(manifest, settings)
    )
    view = None if {one.name for one in wanted} <= set(USUAL) else View("full")
    reserved = len(rows) * _bytes_of_a_row(served.layout, sizes, view)
    if reserved > settings.max_event_bytes:
        raise RequestError(
            f"the answer could take {reserved} bytes, and this server keeps {settings.max_event_bytes} for a "
            "request; send fewer or shorter rows, or ask for fewer outputs"
        )
    trajectories = tuple(
        Trajectory(row, terms.max_steps, terms.min_steps, terms.rule, terms.deadline, view=view, scored=False)
        for row in rows
    )
    submission = Submission(trajectories, envelope.arrived, envelope.key, envelope.id)
    return PreparedTensors(submission, reserved, served.bundle, served.layout, sizes, wanted, terms.warnings)


def _terms(parameters: Parameters) -> RequestedTerms:
    rule = RequestedRule(
        parameters.halting_criterion, parameters.halting_threshold, parameters.halting_patience
    )
    return RequestedTerms(
        parameters.max_steps,
        parameters.min_steps,
        None if rule == RequestedRule() else rule,
        parameters.deadline_ms,
    )


def _wanted(asked: ParsedRequest, parameters: Parameters, manifest: Manifest) -> tuple[Wanted, ...]:
    binary = bool(parameters.binary_data_output)
    offered = [*USUAL, *(spec.name for spec in manifest.state)]
    if not asked.request.outputs:
        return tuple(Wanted(name, binary) for name in USUAL)
    wanted: list[Wanted] = []
    for place, output in enumerate(asked.request.outputs):
        if output.name not in offered:
            raise RequestError(
                f"is no output of {manifest.name}: {', '.join(offered)}", f"outputs.{place}.name"
            )
        if output.name in (one.name for one in wanted):
            raise RequestError("is asked for twice", f"outputs.{place}.name")
        said = output.parameters.binary_data if output.parameters else None
        wanted.append(Wanted(output.name, binary if said is None else said))
    return tuple(wanted)


def _inputs(asked: ParsedRequest, manifest: Manifest) -> Tensors:
    """The tensors by name, of the manifest's types, with their batch axis."""
    specs = {spec.name: spec for spec in manifest.inputs}
    found: Tensors = {}
    begin = 0
    for place, given in enumerate(asked.request.inputs):
        spec, field = specs.get(given.name), f"inputs.{place}"
        if spec is None or given.name in found:
            what = "is there twice" if spec else f"is no input of {manifest.name}: {', '.join(specs)}"
            raise RequestError(what, f"{field}.name")
        size = given.parameters.binary_data_size if given.parameters else None
        _check(given, spec, size is not None, field)
        if size is None:
            found[given.name] = from_lists(given.data, spec, given.shape, f"{field}.data")
        else:
            data = asked.raw[begin : begin + size]
            found[given.name] = from_bytes(data, spec, given.shape, f"{field}.parameters.binary_data_size")
            begin += size
    if begin != len(asked.raw):
        raise RequestError(f"{len(asked.raw)} bytes follow the JSON, and the inputs have {begin}")
    if missing := [name for name in specs if name not in found]:
        raise RequestError(f"{', '.join(missing)} missing; this model takes {', '.join(specs)}", "inputs")
    return found


def _check(given: Input, spec: TensorSpec, binary: bool, field: str) -> None:
    expected = DATATYPES[spec.dtype]
    if given.datatype != expected:
        raise RequestError(f"must be {expected} for {spec.name}", f"{field}.datatype")
    if len(given.shape) != len(spec.shape):
        raise RequestError(f"must have {len(spec.shape)} sizes, for {list(spec.shape)}", f"{field}.shape")
    if binary == (given.data is not None):
        raise RequestError("give data, or a binary_data_size and the bytes after the JSON", field)


def _longest(manifest: Manifest, settings: Settings) -> int | None:
    """How long a row may be by the settings; None where only the manifest says, as in /v1."""
    return None if manifest.codec.name == "tensors" else settings.max_nodes


def _rows(arrays: Tensors, layout: Layout, most_rows: int, longest: int | None) -> tuple[list[Row], Bucket]:
    """Rows without their padding, and the lengths of the axes as they were sent."""
    manifest = layout.manifest
    sizes = _sizes(arrays, manifest)
    count = sizes.pop("B")
    if not 1 <= count <= most_rows:
        raise RequestError(f"{count} rows, and this server takes 1 to {most_rows}", "inputs")
    mask = next((spec for spec in manifest.inputs if spec.name == manifest.mask), None)
    cut = mask is not None and len(mask.shape) == 2 and mask.shape[1] in manifest.axes
    rows = []
    for place in range(count):
        real: dict[Any, int] = {}
        if mask is not None and cut:
            marked = np.flatnonzero(arrays[mask.name][place])
            if not len(marked):
                raise RequestError(f"row {place} has no token: its {mask.name} is all false", "inputs")
            real = {mask.shape[1]: int(marked[-1]) + 1}
        tensors = {
            spec.name: arrays[spec.name][(place, *(slice(real.get(axis)) for axis in spec.shape[1:]), ...)]
            for spec in manifest.inputs
        }
        row = layout.row(tensors, f"inputs, row {place}")
        if longest is not None and max(row.lengths, default=0) > longest:
            raise RequestError(
                f"row {place} is {max(row.lengths)} long, and this server takes {longest}", "inputs"
            )
        rows.append(row)
    return rows, tuple(sizes.get(axis, 1) for axis in manifest.axes)


def _sizes(arrays: Mapping[str, Values], manifest: Manifest) -> dict[str, int]:
    """The length of each axis, B included. Raises RequestError where tensors disagree."""
    found: dict[str, int] = {}
    for spec in manifest.inputs:
        for axis, size in zip(spec.shape, arrays[spec.name].shape, strict=True):
            if isinstance(axis, str) and found.setdefault(axis, size) != size:
                raise RequestError(
                    f"{spec.name} has {size} along {axis}, where others have {found[axis]}", "inputs"
                )
    return found


def _bytes_of_a_row(layout: Layout, sizes: Bucket, view: View | None) -> int:
    logits = READOUT_BYTES * int(np.prod(layout.shape(layout.manifest.logits, sizes), dtype=np.float64))
    states = layout.bytes_of(layout.manifest.state, sizes) if view else 0
    return EVENT_BYTES + logits + 2 * states  # those of the row, and those of the answer
