"""From weights to a bundle: what is exported computes what torch computes, or is not written at all."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console

from model.bundle import EMBED_ONNX, STEP_ONNX, TORCHSCRIPT, read_bundle
from model.errors import BundleError, FathomError
from model.manifest import Manifest
from model.network.scores import SCORES
from model.network.served import ServedModel
from training import fit
from training.judge.backends import onnx_backend
from training.judge.calibrate import CalibrationSize, calibrate, rules_for
from training.judge.evaluate import EvaluationSize, evaluate, read_subject, write
from training.judge.figures import draw
from training.ship import export as exporting
from training.ship.export import export
from training.tasks.graph.task import GraphTask
from training.tasks.logic.task import LogicTask
from training.tasks.text.task import TextTask

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = [
    "network.width=16",
    "network.heads=2",
    "network.feed_forward=16",
    "batch=4",
    "updates=2",
    "head_updates=2",
    "device=cpu",
]
SIZE = CalibrationSize(problems=4, max_steps=6)


QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "small"
    fit.train("graph", "default", folder, None, SMALL, Console(file=io.StringIO()), True)
    return folder


@pytest.fixture(scope="module")
def bundle(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(run, tmp_path_factory.mktemp("bundles") / "graph" / "7", SIZE, False, QUIET).folder


def test_a_bundle_vouches_for_both_backends_and_says_how_it_came_about(bundle: Path) -> None:
    read = read_bundle(bundle)
    manifest = read.manifest
    assert (manifest.name, manifest.version, manifest.codec.name) == ("graph", "7", "graph")
    assert {"embed.onnx", "step.onnx", "lean.onnx", "model.ts", "weights.safetensors", "config.json"} == set(
        manifest.files
    )
    assert manifest.parity["onnx"]["answers"] == manifest.parity["torchscript"]["answers"] == 0
    assert max(manifest.parity["onnx"]["state"], manifest.parity["onnx"]["logits"]) < 1e-4
    assert manifest.training["config"]["network"]["width"] == 16
    assert manifest.training["command"].startswith("fathom")
    assert manifest.calibration is not None
    assert manifest.scores == (*SCORES, "learned")
    assert [point.rule() for point in manifest.calibration.points] == list(rules_for(manifest.scores))
    assert not manifest.takes_depth


def test_only_a_network_that_keeps_up_says_what_the_shipped_one_is_right_about(bundle: Path) -> None:
    assert read_bundle(bundle).manifest.domain is None, "two updates teach nothing"
    words = TextTask(interface="sentences")
    for folder, task in (
        ("graph/1", GraphTask()),
        ("logic/2", LogicTask()),
        ("text/1", TextTask()),
        ("text-words/1", words),
    ):
        shipped = read_bundle(Path("bundles") / folder).manifest
        assert shipped.calibration is not None
        assert exporting.domain_of(task, shipped.calibration) == task.domain == shipped.domain


def test_a_bundle_holds_no_path_of_the_machine_that_made_it(bundle: Path) -> None:
    roots = {str(Path(__file__).resolve().parents[2]), str(Path(torch.__file__).parents[1])}
    for path in bundle.iterdir():
        if path.name != "manifest.json":  # its command is what the caller typed
            content = path.read_bytes()
            assert not [root for root in roots if root.encode() in content], path.name


@pytest.mark.slow
def test_a_network_that_knows_its_depth_says_so(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = [*SMALL, "network.depth_embedding=4", "network.reinjection=true"]
    fit.train("graph", "default", folder, None, options, Console(file=io.StringIO()), True)
    manifest = export(folder, tmp_path / "graph" / "1", SIZE, False, QUIET).manifest
    assert manifest.takes_depth
    assert manifest.step_inputs[-1] == "depth"
    assert "injection" in manifest.step_inputs, "the same numbers as the first state, but another tensor"


def test_an_export_that_differs_from_torch_is_not_written(
    run: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exporters write what an earlier network computed; the logits are off by one."""

    def stale(model: ServedModel, _: Manifest, __: object, folder: Path) -> None:
        with torch.no_grad():
            model.network.head.bias += 1
        for name in (EMBED_ONNX, STEP_ONNX, TORCHSCRIPT):
            shutil.copy(bundle / name, folder)

    monkeypatch.setattr(exporting, "write_onnx", stale)
    monkeypatch.setattr(exporting, "write_torchscript", lambda *_: None)
    with pytest.raises(BundleError, match=r"the onnx export differs from torch: .*; no bundle was written"):
        export(run, tmp_path / "graph" / "1", SIZE, False, QUIET)
    assert list((tmp_path / "graph").iterdir()) == []


@pytest.mark.slow
def test_a_network_without_a_halting_head_has_no_learned_score(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = [*SMALL, "network.halting_head=false"]
    fit.train("graph", "default", folder, None, options, Console(file=io.StringIO()), True)
    manifest = export(folder, tmp_path / "graph" / "1", SIZE, False, QUIET).manifest
    assert manifest.scores == SCORES
    assert manifest.calibration is not None
    assert "learned" not in {point.criterion for point in manifest.calibration.points}


def test_a_bundle_is_replaced_only_when_asked(run: Path, bundle: Path) -> None:
    with pytest.raises(BundleError, match="choose another version, or replace it with --replace"):
        export(run, bundle, SIZE, False, QUIET)


def test_calibration_shows_in_a_terminal_how_far_it_has_come(bundle: Path) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=100)
    calibrate(onnx_backend(read_bundle(bundle).manifest, bundle), GraphTask(), SIZE, screen)
    assert isinstance(screen.file, io.StringIO)
    total = SIZE.problems * len(GraphTask.calibrated)
    assert f"{total}/{total}" in screen.file.getvalue()
    plain = Console(file=io.StringIO())
    calibrate(onnx_backend(read_bundle(bundle).manifest, bundle), GraphTask(), SIZE, plain)
    assert isinstance(plain.file, io.StringIO)
    assert plain.file.getvalue() == ""


def test_what_is_no_run_cannot_be_exported(tmp_path: Path) -> None:
    with pytest.raises(FathomError, match="has no checkpoint"):
        export(tmp_path, tmp_path / "graph" / "1", SIZE, False, QUIET)


def test_evaluation_writes_the_grid_and_the_pictures(bundle: Path, tmp_path: Path) -> None:
    subject = read_subject(bundle)
    evaluation = evaluate(subject, EvaluationSize(problems=4, steps=6, unusual=1), QUIET.print)
    write(evaluation, tmp_path)
    pictures = draw(evaluation, tmp_path)
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert set(report["splits"]) == set(subject.task.splits)
    assert report["splits"]["paper"]["5"]["heuristics"].keys() >= {"target has an incoming edge"}
    grid = (tmp_path / "grid.csv").read_text().splitlines()
    assert grid[0] == "split,hops,steps,accuracy,problems"
    assert (tmp_path / "halting.csv").read_text().count("latent_diff") > 0
    assert all(path.stat().st_size > 10_000 for path in pictures)
    page = (tmp_path / "report.md").read_text()
    for title in (
        "Accuracy",
        "Shortcuts",
        "Halting",
        "The default rule",
        "Calibration",
        "What can be promised",
    ):
        assert f"\n## {title}\n" in page
    assert "| `learned` | 0.99 | 1 |" in page
