"""Opening an exported graph: what it computes, and what is wrong where it cannot be had."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model.bundle import EMBED_ONNX, read_bundle
from model.errors import BundleError
from model.sessions import OnnxGraph

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
