"""Bundles for problems that are tensors: graphs made by hand, with several states and other readouts.

Each step halves `cells` (B, N, 2) and adds `bias`, and counts in `total` (B, 3). The readout is one of:
    tokens  (B, N, 2): cells, plus the logarithm of |bias|, which is no number where there is padding
    tensor  (B, H, W): cells on a grid whose axes are not padded, less their mean, which padding would move
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from model.bundle import EMBED_ONNX, STEP_ONNX, Bundle, write_manifest

Body = dict[str, Any]
Floats = NDArray[np.float32]
GOAL = [1.0, 2.0, 3.0]


def tokens_bundle(repository: Path, **changes: Any) -> Bundle:
    """Two states of different rank, no scores, an answer per token."""
    bias = {"name": "bias", "dtype": "float32", "shape": ["B", "N"]}
    cells = {"name": "cells", "dtype": "float32", "shape": ["B", "N", 2]}
    total = {"name": "total", "dtype": "float32", "shape": ["B", 3]}
    scored = bool(changes.get("scores"))
    embed = [
        helper.make_node("Identity", ["x"], ["bias"]),
        helper.make_node("Unsqueeze", ["x", "last"], ["x1"]),
        helper.make_node("Concat", ["x1", "x1"], ["cells"], axis=2),
        helper.make_node("Identity", ["goal"], ["total"]),
    ]
    step = [
        helper.make_node("Unsqueeze", ["bias", "last"], ["bias1"]),
        helper.make_node("Mul", ["cells", "halves"], ["less"]),
        helper.make_node("Add", ["less", "bias1"], ["next_cells"]),
        helper.make_node("Add", ["total", "one"], ["next_total"]),
        helper.make_node("Abs", ["bias1"], ["size"]),
        helper.make_node("Log", ["size"], ["log"]),
        helper.make_node("Add", ["next_cells", "log"], ["logits"]),
        *([helper.make_node("ReduceMax", ["next_total"], ["scores"], axes=[1], keepdims=1)] * scored),
    ]
    constants = {"last": np.array([2]), "halves": np.float32([0.5, 0.25]), "one": np.float32(1)}
    logits = {"name": "logits", "dtype": "float32", "shape": ["B", "N", 2]}
    manifest: Body = {
        "name": "cells",
        "version": "1",
        "task": "cells",
        "codec": {"name": "tensors"},
        "readout": {"kind": "tokens", "axis": "N"},
        "classes": [{"label": "low", "answer": 0}, {"label": "high", "answer": 1}],
        "inputs": [{**bias, "name": "x"}, {**total, "name": "goal"}],
        "context": [bias],
        "state": [cells, total],
        "logits": logits,
        "axes": {"N": {"max": 64}},
        "steps": {"default": 5, "limit": 1_000_000},
        "example": problem([0.5, -1.0]),
    }
    scores = [{"name": "scores", "dtype": "float32", "shape": ["B", 1]}] * scored
    return _written(repository, manifest | changes, embed, step, constants, scores)


def grid_bundle(repository: Path, **changes: Any) -> Bundle:
    """A grid of any size, without padding; the output is the answer."""
    grid = {"name": "grid", "dtype": "float32", "shape": ["B", "H", "W"]}
    embed = [helper.make_node("Identity", ["x"], ["grid"])]
    step = [
        helper.make_node("ReduceMean", ["grid"], ["mean"], axes=[1, 2], keepdims=1),
        helper.make_node("Sub", ["grid", "mean"], ["apart"]),
        helper.make_node("Add", ["apart", "one"], ["next_grid"]),
        helper.make_node("Identity", ["next_grid"], ["logits"]),
    ]
    manifest: Body = {
        "name": "grid",
        "version": "1",
        "task": "grid",
        "codec": {"name": "tensors"},
        "readout": {"kind": "tensor"},
        "inputs": [{**grid, "name": "x"}],
        "state": [grid],
        "logits": {**grid, "name": "logits"},
        "axes": {"H": {"max": 32, "padded": False}, "W": {"max": 32, "padded": False}},
        "steps": {"default": 3, "limit": 1000},
        "example": {"tensors": {"x": [[1.0]]}},
        "domain": {"sentence": "Right for up to 8 rows.", "limits": {"H": 8}},
    }
    return _written(repository, manifest | changes, embed, step, {"one": np.float32(1)}, [])


def scalar_bundle(repository: Path) -> Bundle:
    """No axes at all: it counts, from a number, in a state that is a number."""
    return _counting(repository, "scalar", [helper.make_node("Identity", ["x"], ["number"])])


def lookup_bundle(repository: Path) -> Bundle:
    """As the scalar one, from a number that is looked up in a table of three."""
    embed = [
        helper.make_node("Cast", ["x"], ["place"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "place"], ["number"]),
    ]
    return _counting(repository, "lookup", embed)


def problem(x: Sequence[float], goal: Sequence[float] = GOAL) -> Body:
    return {"tensors": {"x": list(x), "goal": list(goal)}}


def cells_after(x: Sequence[float], steps: int) -> Floats:
    """The state `cells` of a problem, worked out by hand."""
    bias = np.float32(x)[:, None]
    cells = np.repeat(bias, 2, axis=1)
    for _ in range(steps):
        cells = cells * np.float32([0.5, 0.25]) + bias
    return cells


def grid_after(x: Sequence[Sequence[float]], steps: int) -> Floats:
    grid = np.float32(x)
    for _ in range(steps):
        grid = grid - grid.mean() + 1
    return grid


def _counting(repository: Path, name: str, embed: list[onnx.NodeProto]) -> Bundle:
    number = {"name": "number", "dtype": "float32", "shape": ["B"]}
    step = [
        helper.make_node("Add", ["number", "one"], ["next_number"]),
        helper.make_node("Identity", ["next_number"], ["logits"]),
    ]
    manifest: Body = {
        "name": name,
        "version": "1",
        "task": name,
        "codec": {"name": "tensors"},
        "readout": {"kind": "tensor"},
        "inputs": [{**number, "name": "x"}],
        "state": [number],
        "logits": {**number, "name": "logits"},
        "steps": {"default": 3, "limit": 1000},
        "example": {"tensors": {"x": 1.0}},
    }
    constants = {"one": np.float32(1), "table": np.float32([5, 6, 7])}
    return _written(repository, manifest, embed, step, constants, [])


def _written(
    repository: Path,
    manifest: Body,
    embed: list[onnx.NodeProto],
    step: list[onnx.NodeProto],
    constants: dict[str, NDArray[Any]],
    scores: list[Body],
) -> Bundle:
    folder = repository / manifest["name"] / manifest["version"]
    folder.mkdir(parents=True)
    carried = [*manifest.get("context", []), *manifest["state"]]
    following = [{**spec, "name": f"next_{spec['name']}"} for spec in manifest["state"]]
    shown = [*following, manifest["logits"], *scores]
    _save(folder / EMBED_ONNX, embed, manifest["inputs"], carried, constants)
    _save(folder / STEP_ONNX, step, carried, shown, constants)
    return write_manifest(folder, manifest, [EMBED_ONNX, STEP_ONNX])


def _save(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[Body],
    outputs: list[Body],
    constants: dict[str, NDArray[Any]],
) -> None:
    def values(specs: list[Body]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(s["name"], TensorProto.FLOAT, s["shape"]) for s in specs]

    used = {name for node in nodes for name in node.input}
    held = [onnx.numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items() if n in used]
    graph = helper.make_graph(nodes, "graph", values(inputs), values(outputs), held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
