"""Tensors outside a graph: found wherever they hide, and no bundle with them is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from model.bundle import EMBED_ONNX, STEP_ONNX, read_bundle, write_manifest
from model.errors import BundleError
from model.external_data import MESSAGES, has_external_data
from tests.model.test_bundle import FACTS


def model(weights: onnx.TensorProto | None = None) -> onnx.ModelProto:
    held = weights or numpy_helper.from_array(np.ones(1024, np.float32), "w")
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "graph",
        [value("x", onnx.TensorProto.FLOAT, [1024])],
        [value("y", onnx.TensorProto.FLOAT, [1024])],
        [held],
    )
    return helper.make_model(graph)


def outside() -> onnx.TensorProto:
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[1024])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    return tensor


@pytest.mark.parametrize("name", [EMBED_ONNX, STEP_ONNX])
def test_a_bundle_whose_weights_lie_beside_its_graph_is_refused(tmp_path: Path, name: str) -> None:
    onnx.save(model(), tmp_path / name, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (tmp_path / "weights.bin").stat().st_size == 4096, "the weights are really outside"
    for files in ([name], [name, "weights.bin"]):
        with pytest.raises(BundleError, match=rf"{name}: keeps tensors in other files"):
            write_manifest(tmp_path, FACTS, files)
        with pytest.raises(BundleError, match=rf"{name}: keeps tensors in other files"):
            read_bundle(tmp_path)


def test_a_bundle_with_its_weights_inside_is_read(tmp_path: Path) -> None:
    onnx.save(model(), tmp_path / STEP_ONNX)
    assert write_manifest(tmp_path, FACTS, [STEP_ONNX]).has(STEP_ONNX)


def hidden() -> dict[str, onnx.ModelProto]:
    """A model for every place in which a tensor can hide."""
    places: dict[str, onnx.ModelProto] = {"an initializer": model(outside())}
    for name in ("t", "tensors", "g", "graphs", "sparse_tensor", "sparse_tensors"):
        whole = model()
        attribute = whole.graph.node[0].attribute.add(name=name)
        field = getattr(attribute, name)
        part = field.add() if name.endswith("s") else field
        if name.startswith("g"):
            part.initializer.append(outside())
        elif name.startswith("sparse"):
            part.indices.CopyFrom(outside())
        else:
            part.CopyFrom(outside())
        places[f"attribute {name}"] = whole
    sparse, trained, function = model(), model(), model()
    sparse.graph.sparse_initializer.add().values.CopyFrom(outside())
    trained.training_info.add().algorithm.initializer.append(outside())
    function.functions.add().node.add().attribute.add().t.CopyFrom(outside())
    deep, graph = model(), onnx.GraphProto(initializer=[outside()])
    for _ in range(20):
        outer = onnx.GraphProto()
        outer.node.add().attribute.add().g.CopyFrom(graph)
        graph = outer
    deep.graph.node.add().attribute.add().g.CopyFrom(graph)
    only_named, only_located = outside(), outside()
    only_named.ClearField("data_location")
    only_located.ClearField("external_data")
    return {
        **places,
        "a sparse initializer": sparse,
        "training": trained,
        "a function": function,
        "twenty graphs deep": deep,
        "a name without a location": model(only_named),
        "a location without a name": model(only_located),
    }


@pytest.mark.parametrize("whole", hidden().values(), ids=hidden())
def test_a_tensor_outside_is_found_wherever_it_hides(whole: onnx.ModelProto) -> None:
    assert has_external_data(whole.SerializeToString())


def test_every_way_to_a_tensor_is_walked() -> None:
    """Held against the format itself, as the installed onnx describes it."""
    fields: dict[str, dict[int, str]] = {}
    waiting = [onnx.ModelProto.DESCRIPTOR]
    while waiting:
        message = waiting.pop()
        inner = [field for field in message.fields if field.message_type]
        fields[message.name] = {field.number: field.message_type.name for field in inner}
        waiting += [field.message_type for field in inner if field.message_type.name not in fields]
    leading = {"TensorProto"}
    for _ in fields:
        leading |= {name for name, parts in fields.items() if leading & set(parts.values())}
    ways = {
        name: {number: part for number, part in fields[name].items() if part in leading} for name in leading
    }
    assert {**ways, "TensorProto": {}} == MESSAGES


@pytest.mark.parametrize("folder", ["graph/1", "logic/2", "text/1", "text-words/1"])
def test_the_graphs_that_ship_hold_their_weights(folder: str) -> None:
    for file in (EMBED_ONNX, STEP_ONNX):
        assert not has_external_data(Path("bundles", folder, file).read_bytes())


@pytest.mark.parametrize(
    "content", [b"step", b"\x00", b"\x3a\xff", b"\x08", b"\x08" + b"\xff" * 12, b"\x3a\x02\x0b"]
)
def test_what_is_no_graph_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / STEP_ONNX).write_bytes(content)
    with pytest.raises(BundleError, match=r"step\.onnx: is no ONNX graph \(.*\); export the bundle again"):
        write_manifest(tmp_path, FACTS, [STEP_ONNX])


def test_a_graph_that_is_cut_off_breaks_nothing() -> None:
    whole = model().SerializeToString()
    for end in range(len(whole)):
        try:
            found = has_external_data(whole[:end])
        except ValueError:
            continue
        assert not found
