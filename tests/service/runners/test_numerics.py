"""How exactly a GPU computes: what is asked, refused, measured and shown; on a CPU, which has bfloat16."""

from __future__ import annotations

import subprocess
import sys
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch

from model.bundle import STEP_ONNX, Bundle, read_bundle
from model.codecs import CodecLimits, codec_of
from model.row import Layout, Row
from model.sessions import astray
from service.errors import StartupError
from service.runners.computing import IEEE, Numerics, Parity
from service.runners.device.lane import Lane, allow_tf32
from service.runners.device.parity import compared, parity
from service.runners.device.program import SCRIPTED
from service.runners.device.runner import DeviceRunner
from service.runners.open import open_runner
from service.runners.runner import Carry

SHIPPED = ["graph/1", "logic/2", "text/1", "text-words/1"]
SLOTS = 8


def shipped(name: str) -> Bundle:
    return read_bundle(Path("bundles") / name)


def example_of(bundle: Bundle) -> Row:
    codec = codec_of(bundle.manifest, CodecLimits())
    return Layout(bundle.manifest).row(codec.encode(codec.example, "input"))


@pytest.mark.parametrize("name", SHIPPED)
def test_bfloat16_products_keep_the_answer_and_the_depth_of_the_example(name: str) -> None:
    bundle = shipped(name)
    found = parity(bundle, "cpu", "bf16", example_of(bundle), SCRIPTED)
    assert 0 < found.logits < 0.5
    assert found.same_depth
    assert found.same_answer
    assert found.steps == min(64, bundle.manifest.steps.default)


def test_what_is_compared_is_the_step_at_which_each_way_halts() -> None:
    manifest = shipped("graph/1").manifest
    column = manifest.score_names.index(manifest.halting.criterion)
    steps, threshold = 6, manifest.halting.threshold
    assert not manifest.criteria[manifest.halting.criterion].halts_above
    logits = np.tile(np.array([2.0, 1.0], np.float32), (steps, 1))
    scores = np.full((steps, len(manifest.scores)), np.nan, np.float32)

    def walk(halts_at: int, other: bool = False) -> tuple[Any, Any]:
        said = np.where(np.arange(1, steps + 1) >= halts_at, threshold / 2, threshold * 2)
        mine = scores.copy()
        mine[:, column] = said
        return (logits[:, ::-1] if other else logits), mine

    exact = walk(2)
    assert compared(manifest, exact, walk(2)) == Parity(steps, 0.0, same_depth=True, same_answer=True)
    assert compared(manifest, exact, walk(4)) == Parity(steps, 0.0, same_depth=False, same_answer=True)
    assert compared(manifest, exact, walk(2, other=True)) == Parity(steps, 1.0, True, same_answer=False)


def test_a_runner_shows_what_was_asked_and_what_it_changes() -> None:
    bundle = shipped("graph/1")
    row = example_of(bundle)
    exact = DeviceRunner(bundle, "cpu", SLOTS, numerics=IEEE, example=row)
    assert exact.computing.parity is None
    rough = DeviceRunner(bundle, "cpu", SLOTS, numerics=Numerics("bf16"), example=row)
    assert rough.computing.numerics == Numerics("bf16")
    logits = []
    for runner in (exact, rough):
        runner.put(0, Carry(row))
        runner.launch([0], [])
        logits.append(runner.land()[0].logits)
    assert rough.computing.parity is not None
    assert 0 < np.abs(logits[0] - logits[1]).max() <= rough.computing.parity.logits + 1e-6


def test_a_precision_that_changes_the_example_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    changed = Parity(3, 9.0, same_depth=False, same_answer=True)
    monkeypatch.setattr("service.runners.device.parity.compared", lambda *_: changed)
    bundle = shipped("graph/1")
    assert parity(bundle, "cpu", "bf16", example_of(bundle), SCRIPTED) == changed
    assert "backend torchscript in bf16 changes the depth or the answer of graph" in caplog.text


def test_products_of_a_gpu_are_computed_as_asked_and_a_cpu_changes_nothing() -> None:
    parts = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [part.allow_tf32 for part in parts]
    Lane("cpu", "tf32")
    assert [part.allow_tf32 for part in parts] == before
    try:
        for allowed in (True, False):
            allow_tf32(allowed)
            assert [part.allow_tf32 for part in parts] == [allowed, allowed]
    finally:
        for part, allowed in zip(parts, before, strict=True):
            part.allow_tf32 = allowed


@pytest.mark.parametrize("name", ["graph/1", "text-words/1"])
def test_deterministic_means_to_the_bit_wherever_a_row_sits_and_whoever_is_beside_it(name: str) -> None:
    bundle = shipped(name)
    row, draw = example_of(bundle), np.random.default_rng(0)
    stories = []
    for slots in ([0], [3, 1, 0], [7, 6, 5, 4, 3, 2, 1, 0]):
        runner = DeviceRunner(bundle, "cpu", SLOTS, numerics=Numerics(deterministic=True))
        for _ in draw.permutation(slots):
            runner.put(len(runner._seats), Carry(row))
        mine, story = len(slots) - 1, []
        for _ in range(5):
            runner.launch(range(len(slots)), [mine])
            (landing,) = runner.land()
            story.append(np.concatenate([landing.logits[mine].ravel(), landing.scores[mine]]))
        stories.append(np.stack(story))
    for story in stories[1:]:
        np.testing.assert_array_equal(story, stories[0])


@pytest.mark.parametrize(
    ("numerics", "asked"),
    [
        (Numerics("bf16"), "precision bf16"),
        (Numerics("tf32"), "precision tf32"),
        (Numerics(deterministic=True), "deterministic"),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_what_is_about_a_gpu_is_refused_on_a_cpu(numerics: Numerics, asked: str, device: Any) -> None:
    if device == "auto" and torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(StartupError, match=f"{asked} is about a GPU's arithmetic.*device cuda"):
        open_runner(shipped("graph/1"), device, "auto", SLOTS, 1, numerics)


def test_without_a_driver_nothing_is_loaded_to_look_for_a_gpu() -> None:
    script = (
        "import sys, pathlib; from model.bundle import read_bundle;"
        "from service.runners.open import open_runner;"
        "import service.runners.open as module; module.finds_a_device = lambda: False;"
        "runner = open_runner(read_bundle(pathlib.Path('bundles/graph/1')), 'auto', 'auto');"
        "print(runner.device, runner.backend, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["cpu", "onnx", "False"]


class Opened:
    """Stands in for a runner, and remembers how it was opened."""

    def __init__(self, bundle: Bundle, device: str, slots: int, *rest: Any, **settings: object) -> None:
        self.device, self.rest, self.settings = device, rest, settings


@pytest.fixture
def with_a_gpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr("service.runners.open.finds_a_device", lambda: True)
    monkeypatch.setattr("service.runners.torchscript.has_cuda", lambda: True)
    monkeypatch.setattr("service.runners.onnx.has_cuda", lambda: True)
    monkeypatch.setattr("service.runners.device.runner.DeviceRunner", type("OnTorch", (Opened,), {}))
    monkeypatch.setattr("service.runners.onnx.OnnxRunner", type("OnOnnx", (Opened,), {}))
    return monkeypatch


@pytest.mark.parametrize("device", ["cuda", "auto"])
def test_on_a_gpu_rows_stay_on_the_device_whatever_computes_them(
    with_a_gpu: pytest.MonkeyPatch, device: Any
) -> None:
    bundle = shipped("graph/1")
    for backend in ("auto", "torchscript", "onnx", "torch", "inductor", "fused"):
        if backend == "fused" and not util.find_spec("triton"):
            continue
        opened: Any = open_runner(bundle, device, backend)  # type: ignore[arg-type]
        assert (type(opened).__name__, opened.device) == ("OnTorch", "cuda")
        ahead, _, _, program = opened.rest
        assert program.backend == ("torchscript" if backend == "auto" else backend)
        assert ahead == (backend != "fused"), "who takes several steps at once does not look ahead"
    asked = Numerics("bf16", deterministic=True)
    opened = open_runner(bundle, device, "auto", numerics=asked)
    assert opened.rest[1] == asked


def test_onnx_serves_on_a_gpu_where_torch_cannot(with_a_gpu: pytest.MonkeyPatch) -> None:
    with_a_gpu.setattr("service.runners.torchscript.has_cuda", lambda: False)
    bundle = shipped("graph/1")
    opened: Any = open_runner(bundle, "cuda", "auto", numerics=Numerics("tf32"))
    assert (type(opened).__name__, opened.settings) == ("OnOnnx", {"tf32": True})
    with pytest.raises(StartupError, match=r"torch finds none: check the driver.*neither precision bf16"):
        open_runner(bundle, "cuda", "auto", numerics=Numerics("bf16"))
    for backend in ("torchscript", "torch"):
        with pytest.raises(StartupError, match="device cuda was asked for, but torch finds none"):
            open_runner(bundle, "cuda", backend)  # type: ignore[arg-type]


def test_what_a_backend_cannot_have_is_refused(with_a_gpu: pytest.MonkeyPatch) -> None:
    bundle = shipped("graph/1")
    with pytest.raises(StartupError, match="fused computes in IEEE float32: leave precision tf32 out"):
        open_runner(bundle, "cuda", "fused", numerics=Numerics("tf32"))
    with pytest.raises(StartupError, match="neither precision bf16 nor deterministic"):
        open_runner(bundle, "cuda", "onnx", numerics=Numerics(deterministic=True))
    with_a_gpu.undo()
    for backend in ("torch", "inductor", "fused"):
        with pytest.raises(StartupError, match=f"backend {backend} needs a GPU: choose device cuda"):
            open_runner(bundle, "cpu", backend)  # type: ignore[arg-type]


def test_auto_takes_the_cpu_where_no_backend_can_use_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.runners.open.finds_a_device", lambda: True)
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    assert open_runner(shipped("graph/1"), "auto", "auto").device == "cpu"


def test_operators_that_would_compute_on_the_cpu_are_found_and_reckoning_with_shapes_is_let_be() -> None:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    path = str(shipped("graph/1").path(STEP_ONNX))
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    found = astray(session)
    assert {"MatMul", "Softmax", "LayerNormalization"} <= set(found)
    assert not {"Shape", "Concat", "Unsqueeze"} & set(found)
