"""From a module that is not ours to a bundle: what is found out, what is refused, what is measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import fathom
from model.bundle import EMBED_ONNX, STEP_ONNX, TORCHSCRIPT, Bundle, read_bundle
from model.check import resized
from model.codecs.tensors import TensorsCodec
from model.errors import BundleError
from model.halting import TINY
from model.manifest import OwnScore
from model.row import Layout
from model.sessions import OnnxGraph
from tests.own_modules import Grid, Mixing, Named, Parity, Spread, Verdict, parity
from training.judge.labelled import read_labelled
from training.ship.module import export_module, facts_of, read_module

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def exported(repository: Path, said: list[str]) -> Bundle:
    return export_module(parity(), repository / "parity" / "1", said.append)


@pytest.fixture(scope="module")
def spread(repository: Path) -> Bundle:
    return export_module(Spread().eval(), repository / "spread" / "1", lambda _: None)


def refusal(module: nn.Module, folder: Path) -> str:
    """What an export says that is refused; nothing is left of it."""
    with pytest.raises(BundleError) as caught:
        export_module(module, folder / "own" / "1", lambda _: None)
    assert not list(folder.rglob("*.onnx")), "nothing is left"
    return caught.value.message


def steps(bundle: Bundle, problem: object, count: int) -> list[dict[str, np.ndarray]]:
    """What ONNX says of one problem, by output name, without padding."""
    manifest, layout = bundle.manifest, Layout(bundle.manifest)
    row = layout.row(TensorsCodec(manifest).encode(problem, "input"))
    embed = OnnxGraph(bundle.path(EMBED_ONNX), list(row.tensors), manifest.embed_outputs)
    step = OnnxGraph(bundle.path(STEP_ONNX), manifest.step_inputs, manifest.step_outputs)
    carried = dict(zip(manifest.embed_outputs, embed.run(layout.stack([row])), strict=True))
    shown = []
    for _ in range(count):
        following = dict(zip(manifest.step_outputs, step.run(list(carried.values())), strict=True))
        carried = {name: following.get(f"next_{name}", value) for name, value in carried.items()}
        shown.append({"logits": layout.cut(manifest.logits, following["logits"][0], row.lengths)})
        shown[-1]["scores"] = following["scores"][0]
        for spec in manifest.state:
            shown[-1][spec.name] = layout.cut(spec, carried[spec.name][0], row.lengths)
    return shown


def test_a_module_with_a_mask_is_padded_and_says_all_there_is_to_say(exported: Bundle) -> None:
    manifest = exported.manifest
    assert manifest.codec.name == "tensors"
    assert (manifest.readout.kind, manifest.readout.axis, manifest.mask) == ("tokens", "N", "real")
    assert {axis: (about.max, about.padded) for axis, about in manifest.axes.items()} == {"N": (1024, True)}
    assert [(spec.name, spec.shape) for spec in manifest.state] == [("odd", ("B", "N")), ("count", ("B",))]
    assert [spec.label for spec in manifest.classes] == ["even", "odd"]
    assert manifest.scores[-1] == OwnScore(name="still", halts="above", default=0.5)
    assert {"confidence", "argmax_stability", "kl", "latent_diff"} < set(manifest.score_names)
    assert manifest.steps.default == 24
    assert manifest.example == {"tensors": {"bits": [1, 0, 1, 1, 0, 0, 1, 0, 1, 1, 1]}}
    assert set(manifest.files) == {EMBED_ONNX, STEP_ONNX, TORCHSCRIPT}
    assert manifest.parity["onnx"]["state"] < 1e-5
    assert manifest.parity["torchscript"]["drift"] < 1e-5
    assert manifest.calibration is None
    assert manifest.halting.criterion == "none"


def test_it_says_that_nothing_is_calibrated_without_labelled_problems(
    exported: Bundle, said: list[str]
) -> None:
    assert any(line.startswith("axes that vary: N (up to 1024, padded)") for line in said)
    assert said[-1].startswith("no labelled problems: halting is not calibrated")


def test_an_exported_module_answers_rows_of_any_length(exported: Bundle) -> None:
    bits = [1, 1, 0, 1, 0, 0, 1, 1, 1, 0, 1, 0, 1]
    last = steps(exported, {"tensors": {"bits": bits}}, len(bits))[-1]
    assert last["logits"].argmax(-1).tolist() == [sum(bits[: place + 1]) % 2 for place in range(len(bits))]


def test_the_least_settled_token_counts(exported: Bundle) -> None:
    """Token k is right and still after k steps: what a row says of itself is what its last token does."""
    names = exported.manifest.score_names
    shown = steps(exported, {"tensors": {"bits": [1] * 6}}, 9)
    scores = [dict(zip(names, step["scores"], strict=True)) for step in shown]
    assert [score["still"] for score in scores] == [0, 0, 0, 0, 0, 1, 1, 1, 1]
    assert [score["argmax_stability"] for score in scores] == [0, 0, 0, 0, 0, 1, 2, 3, 4]
    assert [score["kl"] > 1 for score in scores] == [True] * 5 + [False] * 4
    sure = 1 / (1 + np.exp(-8.0))
    assert all(abs(score["confidence"] - sure) < 1e-5 for score in scores)


def test_the_part_of_a_feature_map_that_moved_most_counts(spread: Bundle) -> None:
    heat = np.zeros((1, 4, 6), np.float32)
    heat[0, 1, 2] = 3.0
    shown = steps(spread, {"tensors": {"heat": heat.tolist()}}, 3)
    before, after = shown[1]["map"].astype(np.float64), shown[2]["map"].astype(np.float64)  # (C, H, W)
    moved = np.linalg.norm(after - before, axis=0) / np.maximum(np.linalg.norm(after, axis=0), TINY)
    assert spread.manifest.score_names == ("latent_diff", "cosine", "acceleration")
    assert abs(shown[2]["scores"][0] - moved.max()) < 1e-4 * (1 + moved.max())


def test_an_exported_module_is_its_own_forward_pass(spread: Bundle) -> None:
    module, heat = Spread().eval(), torch.rand(1, 1, 9, 4)
    shown = steps(spread, {"tensors": {"heat": heat[0].tolist()}}, 12)
    with torch.no_grad():
        context, state = module.embed(heat)
        for step in range(1, 13):
            state = module.step(context, state)
            if step in (1, 4, 12):
                ours = module.readout(context, state)[0].numpy()
                assert np.allclose(ours, shown[step - 1]["logits"], atol=1e-5)


def test_axes_are_found_by_trial_and_a_grid_has_an_answer_per_cell(tmp_path: Path) -> None:
    manifest = export_module(Grid().eval(), tmp_path / "grid" / "1", lambda _: None).manifest
    assert manifest.readout.axis == ("N", "M")
    assert manifest.logits.shape == ("B", "N", "M", 2)
    assert manifest.inputs[0].shape == ("B", 1, "N", "M")
    assert [spec.answer for spec in manifest.classes] == [0, 1]
    assert not any(axis.padded for axis in manifest.axes.values())


def test_a_module_of_fixed_size_has_one_answer_and_the_default_budget(tmp_path: Path) -> None:
    manifest = export_module(Verdict().eval(), tmp_path / "verdict" / "1", lambda _: None).manifest
    assert (manifest.axes, manifest.readout.kind, manifest.logits.shape) == ({}, "classes", ("B", 2))
    assert (manifest.steps.default, manifest.steps.limit) == (64, 4096)
    assert manifest.context[0].name == "context_x", "inputs and context may not share a name"


def test_a_module_that_mixes_rows_is_refused_with_what_moved(tmp_path: Path) -> None:
    message = refusal(Mixing(), tmp_path)
    assert message.startswith("rows influence each other: the rows beside a row move its map by 0.")
    assert "it is in training mode: return it after .eval()" in message
    assert export_module(Mixing().eval(), tmp_path / "own" / "1", lambda _: None)


class Chance(Spread):
    def step(self, context: Named, state: Named) -> Named:
        return {"map": state["map"] + torch.rand_like(state["map"])}


class Unmasked(Parity):
    def step(self, context: Named, state: Named) -> Named:
        following = super().step(context, state)
        return {**following, "count": following["odd"].mean(dim=1)}


class Growing(Spread):
    def step(self, context: Named, state: Named) -> Named:
        return {"map": torch.cat((state["map"], state["map"]), dim=1)}


class Renaming(Spread):
    def step(self, context: Named, state: Named) -> Named:
        return {"other": state["map"]}


class Folding(Spread):
    def readout(self, context: Named, state: Named) -> Tensor:
        return state["map"].flatten(1)


class Unlabelled(Verdict):
    labels = ["no", "yes", "perhaps"]  # noqa: RUF012


class Undirected(Parity):
    score_rules = {"still": "over"}  # noqa: RUF012


class Alone(Verdict):
    def example_inputs(self) -> Named:
        return {"x": torch.zeros(1, 6)}


class Broken(Verdict):
    def readout(self, context: Named, state: Named) -> Tensor:
        return torch.log(-self.head(state["h"]).abs())


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (Chance, "map is left to chance: it differs by"),
        (Unmasked, "padding along N moves count by"),
        (Growing, "step changes the state map from torch.float32 [2, 2, 5, 7] to torch.float32 [2, 4, 5, 7]"),
        (Renaming, "step gives the state other, but takes map"),
        (Folding, "readout.logits has 84 along its axis 1 where H is 6: every axis must be as long as"),
        (Unlabelled, "readout gives ['B', 2] and there are 3 labels; readout_kind classes must give"),
        (Undirected, "score_rules['still'] is 'over', but a row halts above or below"),
        (Alone, "example_inputs gives no batch of at least 2 rows"),
        (Broken, "logits of the example is not finite after 1 steps"),
        (nn.Module, "the module has no example_inputs, embed, step, readout, readout_kind"),
    ],
)
def test_what_cannot_be_served_is_refused_in_a_sentence(
    module: type[nn.Module], words: str, tmp_path: Path
) -> None:
    assert words in refusal(module().eval(), tmp_path)


class Fixed(Spread):
    """What the tracer does not follow: a loop over a size."""

    def step(self, context: Named, state: Named) -> Named:
        rows = [state["map"][:, :, place] * 0.5 for place in range(len(state["map"][0, 0]))]
        return {"map": torch.stack(rows, dim=2)} if len(rows) != 5 else {"map": state["map"] * 0.5}


def test_a_module_that_python_unrolls_over_a_size_is_refused(tmp_path: Path) -> None:
    assert "torch cannot export it to ONNX" in refusal(Fixed().eval(), tmp_path)


class Guarded(Spread):
    """Divides by next to nothing, but never by nothing."""

    def step(self, context: Named, state: Named) -> Named:
        size = state["map"].norm(dim=1, keepdim=True)
        return {"map": 0.5 * state["map"] / (size + 1e-9)}


def test_what_keeps_a_division_finite_is_kept(tmp_path: Path) -> None:
    bundle = export_module(Guarded().eval(), tmp_path / "own" / "1", lambda _: None)
    shown = steps(bundle, {"tensors": {"heat": [[[0.0, 1.0], [0.0, 2.0]]]}}, 2)
    assert np.isfinite(shown[-1]["logits"]).all()
    assert shown[-1]["logits"][0, 0] == 0.0


class Counted(Spread):
    """len() is an axis of the graph to ONNX, and a number to the tracer."""

    def step(self, context: Named, state: Named) -> Named:
        return {"map": state["map"] * 0.5 + torch.zeros(len(state["map"]), 1, 1, 1)}


def test_where_tracing_does_not_hold_the_bundle_has_onnx_alone(tmp_path: Path) -> None:
    said: list[str] = []
    bundle = export_module(Counted().eval(), tmp_path / "own" / "1", said.append)
    assert set(bundle.manifest.files) == {EMBED_ONNX, STEP_ONNX}
    assert any(line.startswith("without TorchScript: ") and "x.shape[0] for len(x)" in line for line in said)


def labelled(path: Path, count: int = 64, **more: object) -> Path:
    """Problems of 3 to 18 bits, with the answer of each place."""
    rng = np.random.default_rng(3)
    lines = []
    for _ in range(count):
        bits = rng.integers(0, 2, rng.integers(3, 19)).tolist()
        answer = [("even", "odd")[sum(bits[: place + 1]) % 2] for place in range(len(bits))]
        lines.append(
            {"input": {"tensors": {"bits": bits}}, "label": answer, "difficulty": len(bits) // 8, **more}
        )
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    return path


def test_labelled_problems_calibrate_every_score_and_the_modules_own(tmp_path: Path) -> None:
    said: list[str] = []
    problems = labelled(tmp_path / "problems.jsonl", difficulty=0)
    manifest = export_module(parity(), tmp_path / "parity" / "1", said.append, problems=problems).manifest
    assert said[-1] == "calibrating the halting thresholds on 64 problems"
    calibration = manifest.calibration
    assert calibration is not None
    points = {(point.criterion, point.threshold): point for point in calibration.points}
    assert points["none", 0.0].accuracy == 1.0
    assert calibration.problems == 48, "a quarter chose the thresholds of the module's own score"
    still = [point for point in calibration.points if point.criterion == "still"]
    assert still[0].accuracy == 1.0
    assert still[0].mean_steps < points["none", 0.0].mean_steps
    assert manifest.halting.criterion != "none"
    assert 0.5 < calibration.cheapest(0.7).guaranteed <= 1  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "p.jsonl:2: "),
        ('{"input": {"tensors": {"bits": [1]}}}', "it has no label"),
        ('{"input": {"tensors": {"bits": [1]}}, "label": ["prime"]}', "'prime' is no answer of this model"),
        ('{"input": {"tensors": {"bits": [1, 0]}}, "label": ["odd"]}', "1 labels, but the readout gives 2"),
        ('{"input": {"tensors": {"bits": [1.5]}}, "label": ["odd"]}', "input.tensors.bits.0: tensor bits"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(exported: Bundle, line: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(f"\n{line}\n")
    with pytest.raises(BundleError, match=r"p\.jsonl:2") as caught:
        read_labelled(path, exported.manifest)
    assert words in caught.value.message


def test_answers_may_be_labels_or_numbers_of_classes_and_nested(exported: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    lines = [
        {"tensors": {"bits": [1, 0]}, "label": ["odd", "odd"]},
        {"tensors": {"bits": [1, 0]}, "label": [[1], [1]]},
    ]
    path.write_text("\n".join(map(json.dumps, lines * 4)))
    assert [problem.label.tolist() for problem in read_labelled(path, exported.manifest)] == [[1, 1]] * 8


def test_a_readout_that_is_a_tensor_has_nothing_to_calibrate_on(spread: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="leave --problems out"):
        read_labelled(tmp_path / "none.jsonl", spread.manifest)


def test_weights_come_from_a_checkpoint_that_holds_tensors_alone(tmp_path: Path) -> None:
    weights = {name: tensor + 1 for name, tensor in Verdict().state_dict().items()}
    safetensors.torch.save_file(weights, tmp_path / "w.safetensors")
    torch.save(weights, tmp_path / "w.pt")
    for name in ("w.safetensors", "w.pt"):
        module = read_module("tests.own_modules:Verdict", tmp_path / name)
        assert all(torch.equal(tensor, weights[key]) for key, tensor in module.state_dict().items())
    facts = facts_of("tests.own_modules:Verdict", tmp_path / "w.pt")
    assert facts["checkpoint"] == "w.pt", "no path of this machine"
    torch.save(Verdict(), tmp_path / "pickled.pt")
    with pytest.raises(BundleError, match="is no checkpoint of this module"):
        read_module("tests.own_modules:Verdict", tmp_path / "pickled.pt")


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("tests.own_modules", "write package.module:factory"),
        ("tests.nowhere:factory", "ModuleNotFoundError"),
        ("tests.own_modules:missing", "AttributeError"),
        ("tests.own_modules:nothing", "gives a str, not a torch.nn.Module"),
    ],
)
def test_what_is_no_module_is_told_so(where: str, words: str) -> None:
    with pytest.raises(BundleError, match=words):
        read_module(where)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "give a run's folder, or --module"),
        (["runs/graph", "--module", "a:b"], "give a run's folder, or --module"),
        (["--module", "a:b"], "give --out"),
        (["runs/graph", "--problems", "p.jsonl"], "is no number of problems"),
    ],
)
def test_the_command_says_what_it_needs(flags: list[str], words: str) -> None:
    done = CliRunner().invoke(fathom.app, ["export", *flags], prog_name="fathom", env={"COLUMNS": "200"})
    assert done.exit_code == 2
    assert words in " ".join(done.output.split())


def test_a_bundle_of_a_module_holds_no_path_of_the_machine_that_made_it(exported: Bundle) -> None:
    roots = {str(Path(__file__).resolve().parents[2]), str(Path(torch.__file__).parents[1])}
    for path in exported.folder.iterdir():
        content = path.read_bytes()
        assert not [root for root in roots if root.encode() in content], path.name


def test_a_bundle_is_replaced_only_when_asked(exported: Bundle) -> None:
    with pytest.raises(BundleError, match="choose another version, or replace it with --replace"):
        export_module(parity(), exported.folder, lambda _: None)


def test_a_longer_row_repeats_what_is_there(exported: Bundle) -> None:
    manifest = exported.manifest
    row = Layout(manifest).row(TensorsCodec(manifest).encode({"tensors": {"bits": [1, 0, 0]}}, "input"))
    assert resized(manifest, row, {"N": 5}).tensors["bits"].tolist() == [1, 0, 0, 1, 0]
    assert read_bundle(exported.folder).manifest == manifest
