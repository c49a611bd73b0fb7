"""`fathom check`: what is wrong with a bundle, a sentence each, and what a server will do with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import util
from pathlib import Path

import numpy as np

from model.bundle import EMBED_ONNX, LEAN_ONNX, STEP_ONNX, TORCHSCRIPT, Bundle, read_bundle
from model.check import faults, follow, seconds_of_a_step
from model.codecs import CodecLimits, codec_of
from model.errors import FathomError, first_line
from model.manifest import Manifest, TensorSpec
from model.row import Layout, Row
from model.sessions import OnnxGraph
from model.trial import Graphs, apart
from service.runners.host import HostRunner
from service.runners.open import open_runner

ROWS = (1, 4, 16, 64)  # that a step is timed with
AGREES = 1e-3  # of two backends, relative to 1 + the largest number
CUSTOM = "is not a registered function/op"  # how ONNX Runtime says so


@dataclass
class Verdict:
    """Faults, and what else is worth saying; each a sentence."""

    faults: list[str] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)


def check(folder: Path, codecs: tuple[str, ...] = ()) -> Verdict:
    """Look at the bundle in a folder, run it on its example, and time it on one thread."""
    verdict = Verdict()
    try:
        bundle = read_bundle(folder)
        row = _example(bundle.manifest, codecs)
    except FathomError as error:
        verdict.faults.append(error.message)
        return verdict
    manifest = bundle.manifest
    sound: dict[str, Graphs] = {}
    for backend in _backends(bundle, verdict):
        try:
            graphs = _onnx(bundle, verdict) if backend == "onnx" else _torchscript(bundle)
        except FathomError as error:
            verdict.faults.append(_unloaded(error.message))
            continue
        if found := faults(manifest, graphs, row):
            verdict.faults += [f"{backend}: {fault}" for fault in found]
        else:
            sound[backend] = graphs
    if len(sound) == 2:
        verdict.faults += _disagreement(manifest, sound, row)
    if manifest.lean is not None and bundle.has(LEAN_ONNX) and "onnx" in sound:
        verdict.faults += _lean(bundle, sound["onnx"], row)
    if verdict.faults or not sound:
        return verdict
    verdict.facts += _can(manifest, row)
    verdict.facts += [_timing(manifest, backend, graphs, row) for backend, graphs in sound.items()]
    return verdict


def _example(manifest: Manifest, codecs: tuple[str, ...]) -> Row:
    """The example of the bundle's codec, as a row. Raises FathomError where there is none that fits."""
    axes = {name: axis.max for name, axis in manifest.axes.items()}
    codec = codec_of(manifest, CodecLimits(axes=axes), codecs)
    return Layout(manifest).row(codec.encode(codec.example, "example"), "example")


def _backends(bundle: Bundle, verdict: Verdict) -> Iterator[str]:
    """Those that the bundle is exported for and that can be tried here."""
    has_onnx = bundle.has(EMBED_ONNX) and bundle.has(STEP_ONNX)
    if not has_onnx and not bundle.has(TORCHSCRIPT):
        verdict.faults.append(f"there is neither {EMBED_ONNX} with {STEP_ONNX} nor {TORCHSCRIPT}")
    there_are = (has_onnx, "onnx", "onnxruntime"), (bundle.has(TORCHSCRIPT), "torchscript", "torch")
    for there, backend, library in there_are:
        if there and util.find_spec(library):
            yield backend
        elif there:
            verdict.facts.append(f"{backend} was not tried: {library} is not installed")


def _onnx(bundle: Bundle, verdict: Verdict) -> Graphs:
    manifest = bundle.manifest
    inputs = tuple(spec.name for spec in manifest.inputs)
    embed = OnnxGraph(bundle.path(EMBED_ONNX), inputs, manifest.embed_outputs)
    step = OnnxGraph(bundle.path(STEP_ONNX), manifest.step_inputs, manifest.step_outputs)
    carried = (*manifest.context, *manifest.state, *manifest.memory)
    for file, graph, specs in ((EMBED_ONNX, embed, manifest.inputs), (STEP_ONNX, step, carried)):
        verdict.faults += _unlike(file, graph, specs)
    return Graphs(embed.run, step.run)


def _torchscript(bundle: Bundle) -> Graphs:
    runner = open_runner(bundle, "cpu", "torchscript", slots=1, cpu_threads=1)
    assert isinstance(runner, HostRunner), "on a CPU tensors lie in host memory"
    return runner.graphs


def _unlike(file: str, graph: OnnxGraph, specs: tuple[TensorSpec, ...]) -> Iterator[str]:
    """Where a graph's inputs are not what the manifest has them."""
    told = graph.signature()
    for spec in specs:
        dtype, shape = told[spec.name]
        if dtype != spec.dtype:
            yield f"{file} takes {spec.name} as {dtype}, but the manifest has {spec.dtype}"
        if len(shape) != len(spec.shape):
            yield f"{file} takes {spec.name} with {len(shape)} axes, but the manifest has {list(spec.shape)}"
            continue
        for place, (size, expected) in enumerate(zip(shape, spec.shape, strict=True)):
            if isinstance(size, int) and isinstance(expected, str):
                yield f"{file} fixes axis {place} of {spec.name} at {size}; it must be dynamic, {expected}"
            elif isinstance(size, int) and size != expected:
                yield f"{file} has {size} along axis {place} of {spec.name}, but the manifest has {expected}"


def _unloaded(message: str) -> str:
    if CUSTOM in message:
        operator = message.partition(CUSTOM)[0].split()[-1]
        return f"there is a custom operator, {operator}, which no server here has: {message}"
    return message


def _disagreement(manifest: Manifest, sound: dict[str, Graphs], row: Row) -> Iterator[str]:
    one, other = (list(follow(manifest, graphs, row)) for graphs in sound.values())
    for step, (ours, theirs) in enumerate(zip(one, other, strict=True)):
        for name in ours:
            if (far := apart(ours[name], theirs[name])) > AGREES:
                yield f"onnx and torchscript differ in {name} by {far:.2g} after {step} steps"
                return


def _lean(bundle: Bundle, graphs: Graphs, row: Row) -> Iterator[str]:
    """Where a lean step does something else than the step."""
    manifest = bundle.manifest
    try:
        lean = OnnxGraph(bundle.path(LEAN_ONNX), manifest.lean_inputs, manifest.lean_outputs)
        embedded = graphs.embed(Layout(manifest).stack([row]))
        depth = [np.zeros(1, np.int64)] if manifest.takes_depth else []
        kept = embedded[: len(manifest.context) + len(manifest.state)]
        said = dict(zip(manifest.lean_outputs, lean.run([*kept, *depth]), strict=True))
    except Exception as error:  # noqa: BLE001  whatever a backend makes of a graph that is none
        yield f"{LEAN_ONNX} cannot be used: {first_line(error)}"
        return
    whole = dict(zip(manifest.step_outputs, graphs.step([*embedded, *depth]), strict=True))
    if manifest.lean:
        columns = [manifest.score_names.index(name) for name in manifest.lean]
        whole["scores"] = whole["scores"][:, columns]
    for name, values in said.items():
        if values.shape != whole[name].shape or (far := apart(values, whole[name])) > AGREES:
            how = f"by {far:.2g}" if values.shape == whole[name].shape else f"in its shape {values.shape}"
            yield f"{LEAN_ONNX} differs from {STEP_ONNX} in {name} {how}"


def _timing(manifest: Manifest, backend: str, graphs: Graphs, row: Row) -> str:
    taken = ((rows, 1e3 * seconds_of_a_step(manifest, graphs, row, rows)) for rows in ROWS)
    words = ", ".join(f"{rows} row{'s' * (rows > 1)} {each:.3g} ms" for rows, each in taken)
    return f"{backend}: a step of the example takes, on one thread: {words}"


def _shape(spec: TensorSpec) -> str:
    """Without the batch, as this project writes shapes: [N, 2]."""
    return f"[{', '.join(map(str, spec.shape[1:]))}]"


def _can(manifest: Manifest, row: Row) -> Iterator[str]:
    """What the server will be able to do."""
    layout = Layout(manifest)
    kind = manifest.readout.kind
    labels = [spec.label for spec in manifest.classes]
    few = ", ".join(labels[:8]) + (", …" if len(labels) > 8 else "")
    answers = {
        "classes": f"one answer: {few}",
        "tokens": f"an answer along {', '.join(map(str, manifest.readout.axes))}: {few}",
        "tensor": f"a tensor {_shape(manifest.logits)} of {manifest.logits.dtype}",
    }
    inputs = ", ".join(f"{spec.name} {spec.dtype} {_shape(spec)}" for spec in manifest.inputs)
    yield f"problems: {manifest.codec.name}, encoded as {inputs}"
    yield f"answers: {answers[kind]}"
    for name, axis in manifest.axes.items():
        how = "padded, any lengths share a batch" if axis.padded else "only equal lengths share a batch"
        yield f"{name}: 1 to {axis.max}; {how}"
    yield f"steps: {manifest.steps.default} unless a request says otherwise, {manifest.steps.limit} at most"
    yield f"halting: {', '.join(manifest.criteria)}; by default {manifest.halting.criterion}"
    if manifest.calibration and manifest.calibration.points:
        best = max(point.guaranteed for point in manifest.calibration.points)
        yield f"target_accuracy: up to {best:g}"
    else:
        yield "target_accuracy: none, halting is not calibrated"
    states = ", ".join(f"{spec.name} {spec.dtype} {_shape(spec)}" for spec in manifest.state)
    yield f"latents: {states}"
    specs = (*manifest.context, *manifest.state, *manifest.memory)
    yield f"memory: {layout.bytes_of(specs, row.bucket):,} bytes for the example in a slot"
    if manifest.domain:
        yield f"domain: {manifest.domain.sentence}"
