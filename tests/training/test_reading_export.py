"""A network that reads, as a bundle: both backends compute what torch does, wherever its routes come from."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from model.bundle import Bundle
from model.codecs import CodecLimits, codec_of
from model.network.scores import SCORES
from training import fit
from training.judge.calibrate import CalibrationSize
from training.ship.export import export

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = [
    "network.width=16",
    "network.heads=2",
    "network.feed_forward=16",
    "network.reading=16",
    "batch=4",
    "updates=2",
    "curriculum.start=2",
    "curriculum.end=2",
    "device=cpu",
]
SIZE = CalibrationSize(problems=4, max_steps=4)


@pytest.mark.slow
@pytest.mark.parametrize("routing", ["input", "state"])
@pytest.mark.parametrize(("task", "preset"), [("logic", "characters"), ("text", "words")])
def test_both_backends_of_a_network_that_reads_compute_what_torch_does(
    task: str, preset: str, routing: str, tmp_path: Path
) -> None:
    quiet = Console(file=io.StringIO())
    fit.train(task, preset, tmp_path / "run", None, [*SMALL, f"network.routing={routing}"], quiet, True)
    bundle = export(tmp_path / "run", tmp_path / task / "1", SIZE, False, Console(quiet=True))
    manifest = bundle.manifest
    for backend in ("onnx", "torchscript"):
        assert manifest.parity[backend]["answers"] == 0
        assert max(manifest.parity[backend]["state"], manifest.parity[backend]["logits"]) < 1e-3
    context = [spec.name for spec in manifest.context]
    counts = ["counts"] if task == "logic" else []  # words have no counters
    where = {"input": ["routes"], "state": counts}[routing]
    assert context == ["places", *where, "injection", "real"]
    assert manifest.scores == (*SCORES, "known")
    assert [(spec.label, spec.answer) for spec in manifest.classes] == [
        ("false", False),
        ("true", True),
        ("unknown", None),
    ]
    assert manifest.calibration is not None
    assert "known" in {point.criterion for point in manifest.calibration.points}
    check_codec(bundle)


def check_codec(bundle: Bundle) -> None:
    """The codec that a server picks makes what the bundle takes."""
    codec = codec_of(bundle.manifest, CodecLimits())
    tensors = codec.encode(codec.example, "input")
    assert list(tensors) == [spec.name for spec in bundle.manifest.inputs]
    assert [str(tensors[spec.name].dtype) for spec in bundle.manifest.inputs] == [
        spec.dtype for spec in bundle.manifest.inputs
    ]
