"""Problems that are tensors: read exactly, or refused with the field and the tensor's name."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.calibration import Calibration
from model.codecs import CodecLimits, codec_of
from model.codecs.tensors import TensorsCodec
from model.codecs.tensors import packed as in_bytes
from model.errors import BundleError, RequestError
from model.manifest import Manifest

Body = dict[str, Any]
EXAMPLE: Body = {
    "x": [[0.5, 1], [2, 3]],
    "half": [1, 2],
    "kinds": [1, 2],
    "small": [3],
    "real": [True, False],
}


def manifest_of(example: object = {"tensors": EXAMPLE}, **changes: object) -> Manifest:
    content = {
        "name": "toy",
        "version": "1",
        "task": "toy",
        "codec": {"name": "tensors"},
        "readout": {"kind": "tensor"},
        "inputs": [
            {"name": "x", "dtype": "float32", "shape": ["B", "N", 2]},
            {"name": "half", "dtype": "float16", "shape": ["B", "N"]},
            {"name": "kinds", "dtype": "int64", "shape": ["B", "N"]},
            {"name": "small", "dtype": "int32", "shape": ["B", 1]},
            {"name": "real", "dtype": "bool", "shape": ["B", "N"]},
        ],
        "state": [{"name": "state", "dtype": "float32", "shape": ["B", "N", 4]}],
        "logits": {"name": "logits", "dtype": "float32", "shape": ["B"]},
        "axes": {"N": {"max": 3}},
        "steps": {"default": 4, "limit": 8},
        "example": example,
        "files": {},
    }
    return Manifest.model_validate(content | changes)


CODEC = TensorsCodec(manifest_of())


def packed(values: object, dtype: str, **changes: object) -> Body:
    array = np.array(values, np.dtype(dtype).newbyteorder("<"))
    data = base64.b64encode(array.tobytes()).decode()
    return {"shape": list(array.shape), "dtype": dtype, "data": data, **changes}


def test_lists_and_bytes_are_read_alike_and_in_the_types_of_the_manifest() -> None:
    as_bytes = {spec.name: packed(EXAMPLE[spec.name], spec.dtype) for spec in CODEC._manifest.inputs}
    for given in (EXAMPLE, as_bytes):
        tensors = CODEC.encode({"tensors": given}, "input")
        for spec in CODEC._manifest.inputs:
            tensor = tensors[spec.name]
            assert tensor.dtype == spec.numpy_dtype
            assert tensor.dtype.isnative
            assert tensor.tolist() == EXAMPLE[spec.name]


def test_integers_keep_all_their_64_bits() -> None:
    for number in (2**63 - 1, -(2**63), 2**53 + 1):
        for given in ([number, 0], packed([number, 0], "int64")):
            tensors = CODEC.encode({"tensors": EXAMPLE | {"kinds": given}}, "input")
            assert tensors["kinds"].tolist() == [number, 0]


@pytest.mark.parametrize(
    ("name", "given", "field", "words"),
    [
        ("x", 1.0, "x", "must have a list along N here"),
        ("x", [], "x", "has 0 along N, and may have 1 to 3"),
        ("x", [[1, 2]] * 4, "x", "has 4 along N, and may have 1 to 3"),
        ("x", [[1, 2, 3]], "x", "has 3 along axis 1, but must have 2"),
        ("x", [[1, 2], [1]], "x.1", "is ragged: 1 along 2 where others have 2"),
        ("x", [[1, 2], 1], "x.1", "must have a list along 2 here"),
        ("x", [[1, 2], [3, [4]]], "x.1.1", "must have a number here"),
        ("x", [[1, 2], [3, True]], "x.1.1", "must have a number here"),
        ("x", [[1, 2], [3, None]], "x.1.1", "must have a number here"),
        ("x", [[1, 2], [3, float("nan")]], "x", r"at \[1, 1\] a number that float32 cannot hold, or none"),
        ("x", [[1, 2], [1e39, 4]], "x", r"at \[1, 0\] a number that float32 cannot hold"),
        ("x", [[1, 2], [10**400, 4]], "x", "a number that float32 cannot hold"),
        ("half", [1, 65520.0], "half", r"at \[1\] a number that float16 cannot hold"),
        ("kinds", [1, 2.0], "kinds.1", "must have an integer here"),
        ("kinds", [True, 2], "kinds.0", "must have an integer here"),
        ("kinds", [2**63, 2], "kinds", "a number that int64 cannot hold"),
        ("small", [2**31], "small", "a number that int32 cannot hold"),
        ("real", [1, 0], "real.0", "must have true or false here"),
        ("x", packed([[1, 2]], "float64"), "x", "must have the dtype float32"),
        ("x", packed([[1, 2]], "float32") | {"dtype": ["float32"]}, "x", "must have the dtype float32"),
        ("x", packed([[np.nan, 2]], "float32"), "x", r"at \[0, 0\] a number .* or none at all"),
        ("x", packed([[np.inf, 2]], "float32"), "x", "a number"),
        ("x", packed([[1, 2]], "float32", shape=[2, 2]), "x", "data must be the base64 of 16 bytes"),
        ("x", packed([[1, 2]], "float32", shape=[10**9, 2]), "x", "has 1000000000 along N"),
        ("x", packed([[1, 2]], "float32", shape=[10**4000, 2]), "x", "a shape of 2 sizes"),
        ("x", packed([[1, 2]], "float32", shape=[True, 2]), "x", "a shape of 2 sizes"),
        ("x", packed([[1, 2]], "float32", shape=[-1, -2]), "x", "a shape of 2 sizes"),
        ("x", packed([[1, 2]], "float32", shape=[2]), "x", "a shape of 2 sizes"),
        ("x", packed([[1, 2]], "float32", data="*" * 12), "x", "base64"),
        ("x", packed([[1, 2]], "float32", data="\u00e9" * 12), "x", "base64"),
        ("x", packed([[1, 2]], "float32", data=7), "x", "base64"),
        ("x", packed([[1, 2]], "float32", more=1), "x", "shape, dtype, data and nothing else"),
        ("x", {"shape": [1, 2]}, "x", "shape, dtype, data and nothing else"),
        ("real", packed([1, 2], "bool", data="AQI="), "real", "bytes other than 0 and 1"),
        ("y", [1], "y", "unknown tensor 'y'; this model takes x, half, kinds, small, real"),
    ],
)
def test_what_does_not_fit_is_named(name: str, given: object, field: str, words: str) -> None:
    with pytest.raises(RequestError, match=words) as refusal:
        CODEC.encode({"tensors": EXAMPLE | {name: given}}, "input")
    assert refusal.value.field == f"input.tensors.{field}"
    assert f"tensor {name}" in refusal.value.message or name == "y"


@pytest.mark.parametrize(
    ("problem", "field"),
    [
        (None, "input"),
        ([], "input"),
        ({}, "input"),
        ({"tensors": []}, "input"),
        ({"tensors": EXAMPLE, "more": 1}, "input.more"),
        ({"tensors": {"x": [[1, 2]]}}, "input.tensors.half"),
    ],
)
def test_what_is_no_problem_is_named(problem: object, field: str) -> None:
    with pytest.raises(RequestError) as refusal:
        CODEC.encode(problem, "input")
    assert refusal.value.field == field


def test_a_tensor_without_axes_is_one_value() -> None:
    inputs = [{"name": "x", "dtype": "float32", "shape": ["B"]}]
    state = [{"name": "state", "dtype": "float32", "shape": ["B", 5, 4]}]
    codec = TensorsCodec(manifest_of({"tensors": {"x": 1}}, inputs=inputs, state=state, axes={}))
    for given in (2.5, packed(2.5, "float32")):
        tensor = codec.encode({"tensors": {"x": given}}, "input")["x"]
        assert (tensor.shape, float(tensor)) == ((), 2.5)
    with pytest.raises(RequestError, match="must have a number here"):
        codec.encode({"tensors": {"x": [1]}}, "input")
    with pytest.raises(RequestError, match=r"at \[\] a number"):
        codec.encode({"tensors": {"x": float("inf")}}, "input")
    assert codec.readout_tokens({"x": np.zeros(())}) == [0, 1, 2, 3, 4]


def test_a_problem_is_measured_by_its_axes() -> None:
    assert CODEC.measure(CODEC.encode({"tensors": EXAMPLE}, "input")) == {"N": 2}
    assert CODEC.readout_tokens(CODEC.encode({"tensors": EXAMPLE}, "input")) == [0, 1]


def test_what_marks_real_tokens_may_be_left_out() -> None:
    codec = TensorsCodec(manifest_of(mask="real"))
    given = {name: values for name, values in EXAMPLE.items() if name != "real"}
    encoded = codec.encode({"tensors": given}, "input")
    assert list(encoded) == list(EXAMPLE)
    assert (encoded["real"].tolist(), encoded["real"].dtype) == ([True, True], np.bool_)
    assert codec.encode({"tensors": EXAMPLE}, "input")["real"].tolist() == [True, False]
    assert codec.schema["properties"]["tensors"]["required"] == list(given)


def test_a_mask_whose_length_nothing_else_tells_is_asked_for() -> None:
    inputs = [
        {"name": "x", "dtype": "float32", "shape": ["B", 2]},
        {"name": "real", "dtype": "bool", "shape": ["B", "N"]},
    ]
    alone = manifest_of({"tensors": {"x": [1, 2], "real": [True]}}, inputs=inputs, mask="real")
    with pytest.raises(RequestError, match="tensor real is missing"):
        TensorsCodec(alone).encode({"tensors": {"x": [1, 2]}}, "input")


def test_bytes_are_what_they_were() -> None:
    values = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3).T
    given = {"half": [1, 2, 3], "kinds": [1, 2, 3], "small": [3], "real": [True] * 3, "x": in_bytes(values)}
    assert np.array_equal(CODEC.encode({"tensors": given}, "input")["x"], values)


def test_the_schema_holds_the_axes_of_the_manifest() -> None:
    tensors = CODEC.schema["properties"]["tensors"]
    assert tensors["required"] == list(EXAMPLE)
    lists, as_bytes = tensors["properties"]["x"]["anyOf"]
    assert (lists["minItems"], lists["maxItems"], lists["items"]["maxItems"]) == (1, 3, 2)
    assert lists["items"]["items"] == {"type": "number"}
    assert as_bytes["properties"]["dtype"] == {"const": "float32"}


def test_the_manifest_in_the_docs_is_one_and_its_problems_are_the_same() -> None:
    blocks = re.findall(r"```json\n(.*?)```", Path("docs/bundles.md").read_text(), re.DOTALL)
    manifest, problem, calibration = (json.loads(block) for block in blocks)
    assert Calibration.model_validate(calibration).points
    codec = TensorsCodec(Manifest.model_validate({**manifest, "files": {}}))
    assert set(manifest) < set(Manifest.model_fields)
    as_lists, as_bytes = (codec.encode(given, "input") for given in (manifest["example"], problem))
    assert {name: tensor.tolist() for name, tensor in as_lists.items()} == manifest["example"]["tensors"]
    assert as_bytes["goal"].tolist() == as_lists["goal"].tolist()


@pytest.mark.parametrize(
    ("example", "words"),
    [
        (None, "needs an example"),
        ({"tensors": {}}, r"example\.tensors\.x: tensor x is missing"),
        ({"tensors": EXAMPLE | {"real": [True]}}, "tensor real has 1 along N, but must have 2"),
    ],
)
def test_a_bundle_whose_example_is_none_is_refused(example: object, words: str) -> None:
    with pytest.raises(BundleError, match=rf"bundle toy: .*{words}"):
        codec_of(manifest_of(example), CodecLimits())
