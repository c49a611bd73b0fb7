"""Opening an exported graph: what it computes, and what is wrong where it cannot be had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from model.bundle import EMBED_ONNX, read_bundle
from model.errors import BundleError
from model.sessions import OnnxGraph, Placed

BUNDLE = read_bundle(Path("bundles/graph/1"))
INPUTS = [spec.name for spec in BUNDLE.manifest.inputs]
OUTPUTS = BUNDLE.manifest.embed_outputs


def test_a_graph_takes_and_gives_arrays_in_the_order_of_the_names() -> None:
    path = BUNDLE.path(EMBED_ONNX)
    inputs = [np.zeros((1, *[3] * (len(s.shape) - 1)), s.numpy_dtype) for s in BUNDLE.manifest.inputs]
    there = OnnxGraph(path, INPUTS, OUTPUTS).run(inputs)
    back = OnnxGraph(path, INPUTS[::-1], OUTPUTS[::-1]).run(inputs[::-1])
    assert len(there) == len(OUTPUTS)
    for one, other in zip(there, reversed(back), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("inputs", "outputs"), [(INPUTS[1:], OUTPUTS), (INPUTS, ("state", "nothing"))])
def test_a_graph_with_other_names_than_its_manifest_is_refused(
    inputs: list[str], outputs: tuple[str, ...]
) -> None:
    with pytest.raises(BundleError, match=r"embed\.onnx and manifest\.json disagree about tensor names"):
        OnnxGraph(BUNDLE.path(EMBED_ONNX), inputs, outputs)


def test_what_is_no_graph_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "embed.onnx").write_bytes(b"garbage" * 100)
    with pytest.raises(BundleError, match="ONNX Runtime cannot load it") as refusal:
        OnnxGraph(tmp_path / "embed.onnx", INPUTS, OUTPUTS)
    assert "\n" not in refusal.value.message


class OnCuda:
    """Stands in for a session on a GPU, and remembers what it was asked."""

    asked: dict[str, Any]

    def __init__(self, path: str, options: object, providers: list[tuple[str, dict[str, str]]]) -> None:
        OnCuda.asked = {"provider": providers[0], "bound": []}

    def get_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def get_provider_graph_assignment_info(self) -> list[object]:
        return []

    def get_inputs(self) -> list[Any]:
        return [type("Value", (), {"name": name}) for name in INPUTS]

    def get_outputs(self) -> list[Any]:
        return [type("Value", (), {"name": name}) for name in OUTPUTS]

    def io_binding(self) -> OnCuda:
        return self

    def bind_input(self, *where: object) -> None:
        self.asked["bound"].append(where)

    bind_output = bind_input

    def run_with_iobinding(self, binding: object, options: ort.RunOptions) -> None:
        self.asked["waits"] = options.get_run_config_entry("disable_synchronize_execution_providers") != "1"


def test_on_a_gpu_a_graph_computes_in_place_on_the_stream_it_is_given_and_nobody_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ort, "InferenceSession", OnCuda)
    monkeypatch.setattr(ort, "preload_dlls", lambda: None)
    graph = OnnxGraph(BUNDLE.path(EMBED_ONNX), INPUTS, OUTPUTS, "cuda", tf32=False, stream=4096)
    inputs = [Placed(place, np.dtype(np.float32), (2, 3)) for place, _ in enumerate(INPUTS)]
    outputs = [Placed(100 + place, np.dtype(np.float32), (2, 3)) for place, _ in enumerate(OUTPUTS)]
    graph.in_place(inputs, outputs, 1)()
    assert OnCuda.asked["provider"] == (
        "CUDAExecutionProvider",
        {"use_tf32": "0", "user_compute_stream": "4096"},
    )
    assert OnCuda.asked["waits"] is False
    names = [*INPUTS, *OUTPUTS]
    assert [bound[:3] for bound in OnCuda.asked["bound"]] == [(name, "cuda", 1) for name in names]
    assert [bound[5] for bound in OnCuda.asked["bound"]] == [each.address for each in (*inputs, *outputs)]
