"""`fathom check`: a sound bundle is told what it can do, and a broken one what is wrong with it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from typer.testing import CliRunner

import fathom
from model.bundle import EMBED_ONNX, LEAN_ONNX, STEP_ONNX, TORCHSCRIPT, write_manifest
from model.calibration import Calibration, CalibrationPoint, HaltingDefault
from model.manifest import (
    Axis,
    ClassSpec,
    CodecSpec,
    Domain,
    FileEntry,
    Manifest,
    OwnScore,
    Readout,
    StepLimits,
    TensorSpec,
)
from service.check import check
from tests.service.tensor_bundles import grid_bundle, problem, scalar_bundle, tokens_bundle

Body = dict[str, Any]
CELLS = ["B", "N", 2]
KINDS = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "float64": TensorProto.DOUBLE}


def node(kind: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def bundle(
    folder: Path,
    step: list[onnx.NodeProto],
    embed: list[onnx.NodeProto] | None = None,
    shape: list[int | str] = CELLS,
    dtypes: tuple[str, str] = ("float32", "float32"),
    **changes: object,
) -> Path:
    """A bundle of the state `cells`, which begins as the input `x`; dtypes of the graphs' x and logits."""
    place = folder / "own" / "1"
    place.mkdir(parents=True)
    one = helper.make_tensor("one", TensorProto.FLOAT, [], [1.0])
    embedding = embed or [node("Identity", "x", "cells")]
    for file, nodes, inputs, outputs in (
        (EMBED_ONNX, embedding, {"x": dtypes[0]}, {"cells": "float32"}),
        (STEP_ONNX, step, {"cells": "float32"}, {"next_cells": "float32", "logits": dtypes[1]}),
    ):
        taken = [helper.make_tensor_value_info(n, KINDS[k], shape) for n, k in inputs.items()]
        given = [helper.make_tensor_value_info(n, KINDS[k], None) for n, k in outputs.items()]
        graph = helper.make_graph(nodes, "graph", taken, given, [one])
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("somebody", 1)]
        (place / file).write_bytes(
            helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
        )
    spec: Body = {"dtype": "float32", "shape": CELLS}
    manifest: Body = {
        "name": "own",
        "version": "1",
        "task": "own",
        "codec": {"name": "tensors"},
        "readout": {"kind": "tensor"},
        "inputs": [{"name": "x", **spec}],
        "state": [{"name": "cells", **spec}],
        "logits": {"name": "logits", **spec},
        "axes": {"N": {"max": 64, "padded": False}},
        "steps": {"default": 4, "limit": 100},
        "example": {"tensors": {"x": [[1.0, 2.0], [3.0, 4.0], [5.0, -6.0]]}},
    }
    write_manifest(place, manifest | changes, [EMBED_ONNX, STEP_ONNX])
    return place


SHOW = node("Identity", "next_cells", "logits")
HALVE = [node("Add", "one one", "two"), node("Div", "cells two", "next_cells"), SHOW]


def test_a_sound_bundle_is_told_what_a_server_will_do_with_it(tmp_path: Path) -> None:
    verdict = check(bundle(tmp_path, HALVE))
    assert verdict.faults == []
    assert verdict.facts[:5] == [
        "problems: tensors, encoded as x float32 [N, 2]",
        "answers: a tensor [N, 2] of float32",
        "N: 1 to 64; only equal lengths share a batch",
        "steps: 4 unless a request says otherwise, 100 at most",
        "halting: none; by default none",
    ]
    timed = re.fullmatch(
        r"onnx: a step of the example takes, on one thread: 1 row [\d.e-]+ ms, 4 rows .+, 64 rows .+ ms",
        verdict.facts[-1],
    )
    assert timed


def test_the_bundles_of_the_other_tests_are_sound(tmp_path: Path) -> None:
    scored: Body = {"name": "scored", "scores": [{"name": "q_halt", "halts": "above", "default": 7.0}]}
    for made in (
        tokens_bundle(tmp_path),
        tokens_bundle(tmp_path, **scored),
        grid_bundle(tmp_path, example={"tensors": {"x": [[1.0, 2.0], [0.5, 3.0]]}}),
        scalar_bundle(tmp_path),
    ):
        assert check(made.folder).faults == []


def test_wrong_types_are_named(tmp_path: Path) -> None:
    embed = [node("Cast", "x", "cells", to=TensorProto.FLOAT)]
    faults = check(bundle(tmp_path / "in", HALVE, embed, dtypes=("int64", "float32"))).faults
    assert faults[0] == "embed.onnx takes x as int64, but the manifest has float32"
    doubled = [*HALVE[:2], node("Cast", "next_cells", "logits", to=TensorProto.DOUBLE)]
    faults = check(bundle(tmp_path / "out", doubled, dtypes=("float32", "float64"))).faults
    assert faults == ["onnx: step gives logits as float64, but must give float32"]


def test_missing_tensors_are_named(tmp_path: Path) -> None:
    memory = [{"name": "last", "dtype": "float32", "shape": ["B", "N", 2]}]
    (fault,) = check(bundle(tmp_path, HALVE, memory=memory)).faults
    assert fault.startswith("embed.onnx and manifest.json disagree about tensor names: the graph has inputs")


def test_axes_that_are_not_dynamic_are_named(tmp_path: Path) -> None:
    faults = check(bundle(tmp_path, HALVE, shape=["B", 3, 2])).faults
    assert faults[:2] == [
        "embed.onnx fixes axis 1 of x at 3; it must be dynamic, N",
        "step.onnx fixes axis 1 of cells at 3; it must be dynamic, N",
    ]
    assert faults[2].startswith("onnx: embed does not run with 2 rows, N = 4: ")


def test_a_step_that_changes_the_shape_of_its_state_is_named(tmp_path: Path) -> None:
    wider = [node("Concat", "cells cells", "next_cells", axis=2), node("Identity", "cells", "logits")]
    (fault, *_) = check(bundle(tmp_path, wider)).faults
    assert fault == (
        "onnx: step gives next_cells the shape [1, 3, 4], not [1, 3, 2], with 1 row, N = 3; a step must keep "
        "the shape of what it carries"
    )


def test_what_is_no_number_on_the_example_is_named(tmp_path: Path) -> None:
    (fault,) = check(bundle(tmp_path, [node("Log", "cells", "next_cells"), SHOW])).faults
    assert fault == "onnx: cells of the example is not finite after 1 steps"


def test_custom_operators_are_named(tmp_path: Path) -> None:
    (fault,) = check(bundle(tmp_path, [node("Wish", "cells", "next_cells", domain="somebody"), SHOW])).faults
    assert fault.startswith("there is a custom operator, somebody:Wish(")


def test_rows_that_influence_each_other_are_named(tmp_path: Path) -> None:
    mean = node("ReduceMean", "cells", "mean", axes=[0], keepdims=1)
    (fault,) = check(bundle(tmp_path, [mean, node("Sub", "cells mean", "next_cells"), SHOW])).faults
    assert re.fullmatch(r"onnx: rows influence each other: .* move its cells by [\d.]+", fault)


def test_padding_that_moves_a_row_is_named(tmp_path: Path) -> None:
    mean = node("ReduceMean", "cells", "mean", axes=[1], keepdims=1)
    step = [mean, node("Sub", "cells mean", "next_cells"), SHOW]
    assert check(bundle(tmp_path / "apart", step)).faults == []
    (fault,) = check(bundle(tmp_path / "padded", step, axes={"N": {"max": 64}})).faults
    assert re.fullmatch(
        r"onnx: padding along N moves cells by [\d.]+: mask it, or say `padded: false`", fault
    )


def test_chance_is_named(tmp_path: Path) -> None:
    noise = node("RandomNormalLike", "cells", "noise")
    (fault,) = check(bundle(tmp_path, [noise, node("Add", "cells noise", "next_cells"), SHOW])).faults
    assert fault.startswith("onnx: cells is left to chance: it differs by ")


def test_a_lean_step_that_does_something_else_is_named(tmp_path: Path) -> None:
    place, other = (
        bundle(tmp_path / "a", HALVE),
        bundle(tmp_path / "b", [node("Neg", "cells", "next_cells"), SHOW]),
    )
    content = json.loads((place / "manifest.json").read_text())
    changes = {name: content[name] for name in content if name not in ("files", "format_version")}
    for source, faults in (
        (place, []),
        (
            other,
            [
                "lean.onnx differs from step.onnx in next_cells by 1.3",
                "lean.onnx differs from step.onnx in logits by 1.3",
            ],
        ),
    ):
        (place / LEAN_ONNX).write_bytes((source / STEP_ONNX).read_bytes())
        write_manifest(place, changes | {"lean": []}, [EMBED_ONNX, STEP_ONNX, LEAN_ONNX])
        assert check(place).faults == faults


class Other(torch.nn.Module):
    """Not what the graphs of `bundle` do."""

    @torch.jit.export
    def embed(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (x + 0.0,)

    @torch.jit.export
    def step(self, cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        following = cells / 4.0
        return following, following + 0.0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_backends_that_disagree_are_named(tmp_path: Path) -> None:
    place = bundle(tmp_path, HALVE)
    torch.jit.script(Other()).save(str(place / TORCHSCRIPT))
    content = json.loads((place / "manifest.json").read_text())
    changes = {name: content[name] for name in content if name not in ("files", "format_version")}
    write_manifest(place, changes, [EMBED_ONNX, STEP_ONNX, TORCHSCRIPT])
    (fault,) = check(place).faults
    assert fault.startswith("onnx and torchscript differ in next_cells by ")


def test_an_example_that_does_not_fit_and_a_file_that_was_changed_are_named(tmp_path: Path) -> None:
    made = tokens_bundle(tmp_path)
    file = made.folder / "manifest.json"
    sound = file.read_text()
    file.write_text(json.dumps(json.loads(sound) | {"example": problem([0.5] * 65)}))
    (fault,) = check(made.folder).faults
    assert "example.tensors.x: tensor x has 65 along N, and may have 1 to 64" in fault
    file.write_text(sound)
    (made.folder / STEP_ONNX).write_bytes(b"")
    (fault,) = check(made.folder).faults
    assert "differs from what manifest.json vouches for" in fault


def test_the_command_exits_with_1_where_something_is_wrong(tmp_path: Path) -> None:
    sound, broken = bundle(tmp_path / "a", HALVE), bundle(tmp_path / "b", HALVE, shape=["B", 3, 2])
    runner = CliRunner()
    done = runner.invoke(fathom.app, ["check", str(sound)], prog_name="fathom")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == f"{sound}: sound"
    done = runner.invoke(fathom.app, ["check", str(broken)], prog_name="fathom")
    assert done.exit_code == 1
    assert done.stderr.startswith("fault: embed.onnx fixes axis 1 of x at 3")
    done = runner.invoke(fathom.app, ["check", str(tmp_path / "none")], prog_name="fathom")
    assert (done.exit_code, "cannot be read" in done.stderr) == (1, True)


def test_every_shipped_bundle_is_sound() -> None:
    places = sorted(path.parent for path in Path("bundles").glob("*/*/manifest.json"))
    assert len(places) >= 4
    for place in places:
        assert check(place).faults == [], place


def test_the_page_names_every_field_of_a_manifest() -> None:
    page = Path("docs/bundles.md").read_text("utf-8")
    for field in Manifest.model_fields:
        assert re.search(rf"^\| .*`{field}`.* \|$", page, re.MULTILINE), field
    parts = (Axis, ClassSpec, CodecSpec, Domain, FileEntry, OwnScore, Readout, StepLimits, TensorSpec)
    for part in (*parts, Calibration, CalibrationPoint, HaltingDefault):
        for field in part.model_fields:
            assert f'"{field}"' in page or f"`{field}`" in page, f"{part.__name__}.{field}"


def test_the_model_in_the_docs_can_be_built_with_onnx_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Path("docs/bundles.md").read_text("utf-8")
    (example,) = re.findall(r"```python\n(.+?)```", page, re.DOTALL)
    assert set(re.findall(r"^(?:import|from) (\w+)", example, re.MULTILINE)) == {
        "hashlib",
        "json",
        "pathlib",
        "onnx",
    }
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "docs/bundles.md", "exec"), {})
    verdict = check(Path("bundles/counter/1"))
    assert verdict.faults == []
    assert "halting: none, moved; by default moved" in verdict.facts
