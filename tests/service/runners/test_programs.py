"""What else computes for the device runner: ONNX Runtime in place, and a network that is built."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model.bundle import CONFIG, EMBED_ONNX, LEAN_ONNX, STEP_ONNX, TORCHSCRIPT, Bundle, read_bundle
from model.codecs import CodecLimits, codec_of
from model.row import Layout, Row
from model.sessions import OnnxGraph
from service.errors import StartupError
from service.runners.computing import Parity
from service.runners.device.bound import BOUND, OnnxModule
from service.runners.device.built import BUILT, COMPILED, BuiltNetwork
from service.runners.device.lane import Lane
from service.runners.device.program import load_scripted
from service.runners.device.runner import DeviceRunner
from service.runners.device.tables import Table
from service.runners.torchscript import load_torchscript, move_constants

SHIPPED = ["graph/1", "logic/2", "text/1", "text-words/1"]
STEPS = 3


@pytest.fixture(scope="module", params=SHIPPED)
def bundle(request: pytest.FixtureRequest) -> Bundle:
    return read_bundle(Path("bundles") / request.param)


def example_of(bundle: Bundle) -> Row:
    codec = codec_of(bundle.manifest, CodecLimits())
    return Layout(bundle.manifest).row(codec.encode(codec.example, "input"))


def walked(bundle: Bundle, module: Any, rows: int, device: str = "cpu") -> list[tuple[Tensor, ...]]:
    """What embedding gives and what a few steps give, of copies of the example; then a lean step."""
    manifest = bundle.manifest
    carried = len(manifest.state) + len(manifest.memory)
    arrays = Layout(manifest).stack([example_of(bundle)] * rows)
    inputs = [torch.from_numpy(array).to(device) for array in arrays]
    with Lane("cpu").work():
        said = [tuple(module.embed(*inputs))]
        tensors = list(said[0])
        for _ in range(STEPS):
            said.append(tuple(module.step(*tensors)))
            tensors[len(manifest.context) :] = said[-1][:carried]
        said.append(tuple(module.lean(*tensors[: len(tensors) - len(manifest.memory)])))
    return said


def test_graphs_in_place_give_what_they_give_otherwise_to_the_bit(bundle: Bundle) -> None:
    manifest = bundle.manifest
    names = {
        EMBED_ONNX: ([spec.name for spec in manifest.inputs], manifest.embed_outputs),
        STEP_ONNX: (manifest.step_inputs, manifest.step_outputs),
        LEAN_ONNX: (manifest.lean_inputs, manifest.lean_outputs),
    }

    def plain(file: str) -> Callable[..., list[Tensor]]:
        graph = OnnxGraph(bundle.path(file), *names[file])
        return lambda *tensors: [torch.from_numpy(array) for array in graph.run([t.numpy() for t in tensors])]

    class Plain:
        embed, step, lean = (staticmethod(plain(file)) for file in names)

    for rows in (1, 5):
        mine, theirs = (walked(bundle, each, rows) for each in (OnnxModule(bundle, Lane("cpu")), Plain()))
        for ours, others in zip(mine, theirs, strict=True):
            assert len(ours) == len(others)
            assert all(torch.equal(one, other) for one, other in zip(ours, others, strict=True))


def test_the_network_that_is_built_computes_as_model_ts_does(bundle: Bundle) -> None:
    lane = Lane("cpu")
    mine, theirs = (
        walked(bundle, each, 3) for each in (BuiltNetwork(bundle, lane), load_scripted(bundle, lane))
    )
    for ours, others in zip(mine, theirs, strict=True):
        for one, other in zip(ours, others, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


@pytest.mark.parametrize("form", ["model.ts", "built"])
def test_a_network_that_is_moved_leaves_nothing_behind_and_asks_its_device_for_nothing(
    bundle: Bundle, form: str
) -> None:
    """On the device "meta", which has shapes and no numbers: as on a GPU, tensors of others are refused."""
    meta, lane = torch.device("meta"), Lane("cpu")
    lane.device = meta
    if form == "model.ts":
        module: Any = load_torchscript(bundle.path(TORCHSCRIPT), "cpu")
        move_constants(module, meta)
        for part in module.modules():
            for name, tensor in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]:
                part._c.setattr(name, tensor.detach().to(meta))
    else:
        module = BuiltNetwork(bundle, lane)
    said = walked(bundle, module, 3, "meta")
    assert {tensor.device for tensors in said for tensor in tensors} == {meta}
    table = Table(lane, module, bundle.manifest, example_of(bundle).bucket, [1, 4])
    with Lane("cpu").work():  # what is captured on a GPU, which may read nothing either
        table._embedder._run(2)
        for lean in (False, True):
            table._step(4, lean)


@pytest.mark.filterwarnings(r"ignore:`torch\.jit\.\w+` is")  # deprecated
def test_tensors_that_tracing_wrote_into_somebodys_module_move_with_it(tmp_path: Path) -> None:
    half = torch.tensor([0.5])

    class Careless(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.arange(x.shape[1]) * half + torch.zeros(x.shape[1])

    torch.jit.trace(Careless(), torch.zeros(2, 5)).save(tmp_path / "model.ts")  # type: ignore[no-untyped-call]
    meta = torch.device("meta")
    module = load_torchscript(tmp_path / "model.ts", "cpu")
    move_constants(module, meta)
    with Lane("cpu").work():
        assert module(torch.zeros(3, 7, device=meta)).device == meta


def test_what_another_program_changes_is_measured_before_it_serves() -> None:
    bundle = read_bundle(Path("bundles/graph/1"))
    row = example_of(bundle)
    built = DeviceRunner(bundle, "cpu", 2, example=row, program=BUILT)
    assert isinstance(built.computing.parity, Parity)
    assert built.computing.parity.logits < 1e-4
    assert (built.computing.parity.same_depth, built.computing.parity.same_answer) == (True, True)
    assert DeviceRunner(bundle, "cpu", 2, example=row, program=BOUND).computing.parity is None


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.filterwarnings(
    "ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"
)  # torch's own
def test_the_network_as_inductor_compiles_it_computes_the_same() -> None:
    bundle, lane = read_bundle(Path("bundles/graph/1")), Lane("cpu")
    modules = COMPILED.load(bundle, lane), load_scripted(bundle, lane)
    mine, theirs = (walked(bundle, module, 3) for module in modules)
    for ours, others in zip(mine, theirs, strict=True):
        for one, other in zip(ours, others, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


def with_files(bundle: Bundle, folder: Path, config: dict[str, Any]) -> Bundle:
    """The bundle with another configuration, as if its manifest vouched for it."""
    for file in bundle.manifest.files:
        (folder / file).symlink_to(bundle.path(file).resolve())
    (folder / CONFIG).unlink()
    (folder / CONFIG).write_text(json.dumps(config))
    return Bundle(folder, bundle.manifest)


def test_a_bundle_whose_network_cannot_be_built_is_refused(tmp_path: Path) -> None:
    bundle = read_bundle(Path("bundles/graph/1"))
    config = json.loads(bundle.path(CONFIG).read_bytes())
    cases = {
        "other tensors or scores": {**config, "reinjection": True},
        "layers is of no network that can be served": {**config, "layers": 6},
        "no network can be built": {**config, "width": 32},
    }
    for number, (message, wrong) in enumerate(cases.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(StartupError, match=message):
            BuiltNetwork(with_files(bundle, folder, wrong), Lane("cpu"))
    files = {name: entry for name, entry in bundle.manifest.files.items() if name != CONFIG}
    poor = Bundle(bundle.folder, bundle.manifest.model_copy(update={"files": files}))
    with pytest.raises(StartupError, match=r"has no config\.json and weights\.safetensors"):
        BuiltNetwork(poor, Lane("cpu"))


def test_logits_with_an_axis_of_their_own_are_refused_with_onnx() -> None:
    bundle = read_bundle(Path("bundles/graph/1"))
    manifest = bundle.manifest
    odd = manifest.logits.model_copy(update={"shape": ("B", "M", 2)})
    axes = {**manifest.axes, "M": manifest.axes["N"]}
    other = Bundle(bundle.folder, manifest.model_copy(update={"logits": odd, "axes": axes}))
    with pytest.raises(StartupError, match="logits have the axis M"):
        OnnxModule(other, Lane("cpu"))
