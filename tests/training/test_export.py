"""From weights to a bundle: what is exported computes what torch computes, or is not written at all."""

from __future__ import annotations

import io
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from model.bundle import EMBED_ONNX, STEP_ONNX, TORCHSCRIPT, read_bundle
from model.errors import BundleError, FathomError
from model.halting import HaltingRule
from model.manifest import Calibration, CalibrationPoint, Manifest
from model.scores import SCORES
from model.served import ServedModel
from training import export as exporting
from training import parity
from training.calibrate import RULES, CalibrationPlan, choose_default, lower_bound
from training.evaluate import EvaluationPlan, evaluate, read_subject, write
from training.export import export
from training.figures import draw
from training.measure import Trace
from training.start import start

SMALL = [
    "network.width=16",
    "network.heads=2",
    "network.feed_forward=16",
    "batch=4",
    "updates=2",
    "device=cpu",
]
PLAN = CalibrationPlan(problems=4, max_steps=6)


def ignore(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "small"
    start("graph", "default", folder, None, SMALL, Console(file=io.StringIO()), True)
    return folder


@pytest.fixture(scope="module")
def bundle(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(run, tmp_path_factory.mktemp("bundles") / "graph" / "7", PLAN, False, ignore).folder


def test_a_bundle_vouches_for_both_forms_and_says_how_it_came_about(bundle: Path) -> None:
    read = read_bundle(bundle)
    manifest = read.manifest
    assert (manifest.name, manifest.version, manifest.codec.name) == ("graph", "7", "graph")
    assert {"embed.onnx", "step.onnx", "model.ts", "weights.safetensors", "config.json"} == set(
        manifest.files
    )
    assert manifest.parity["onnx"]["answers"] == manifest.parity["torchscript"]["answers"] == 0
    assert max(manifest.parity["onnx"]["state"], manifest.parity["onnx"]["logits"]) < 1e-4
    assert manifest.training["config"]["network"]["width"] == 16
    assert manifest.training["command"].startswith("fathom")
    assert manifest.calibration is not None
    assert len(manifest.calibration.points) == len(RULES)
    assert not manifest.takes_depth


def test_a_bundle_holds_no_path_of_the_machine_that_made_it(bundle: Path) -> None:
    roots = {str(Path(__file__).resolve().parents[2]), str(Path(torch.__file__).parents[1])}
    for path in bundle.iterdir():
        if path.name != "manifest.json":  # its command is what the caller typed
            content = path.read_bytes()
            assert not [root for root in roots if root.encode() in content], path.name


def test_a_network_that_knows_its_depth_says_so(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = [*SMALL, "network.depth_embedding=4", "network.reinjection=true"]
    start("graph", "default", folder, None, options, Console(file=io.StringIO()), True)
    manifest = export(folder, tmp_path / "graph" / "1", PLAN, False, ignore).manifest
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
        export(run, tmp_path / "graph" / "1", PLAN, False, ignore)
    assert list((tmp_path / "graph").iterdir()) == []


def test_a_bundle_is_replaced_only_when_asked(run: Path, bundle: Path) -> None:
    with pytest.raises(BundleError, match="choose another version, or replace it with --replace"):
        export(run, bundle, PLAN, False, ignore)


def test_what_is_no_run_cannot_be_exported(tmp_path: Path) -> None:
    with pytest.raises(FathomError, match="has no checkpoint"):
        export(tmp_path, tmp_path / "graph" / "1", PLAN, False, ignore)


def test_evaluation_writes_the_grid_and_the_pictures(bundle: Path, tmp_path: Path) -> None:
    subject = read_subject(bundle)
    evaluation = evaluate(subject, EvaluationPlan(problems=4, steps=6, unusual=1), ignore)
    write(evaluation, tmp_path)
    pictures = draw(evaluation, tmp_path)
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert set(report["splits"]) == set(subject.task.splits)
    assert report["splits"]["paper"]["5"]["heuristics"].keys() >= {"target has an incoming edge"}
    grid = (tmp_path / "grid.csv").read_text().splitlines()
    assert grid[0] == "split,hops,steps,accuracy,problems"
    assert (tmp_path / "halting.csv").read_text().count("latent_diff") > 0
    assert all(path.stat().st_size > 10_000 for path in pictures)


def test_the_lower_bound_is_clopper_pearsons() -> None:
    assert lower_bound(500, 500, 0.05) == pytest.approx(0.05 ** (1 / 500), abs=1e-6)
    assert lower_bound(0, 10, 0.05) == 0.0
    assert lower_bound(9, 10, 0.05) == pytest.approx(0.6058, abs=1e-4)  # the textbook's value
    assert lower_bound(1190, 1200, 1e-4) < 1190 / 1200


def test_a_trace_halts_where_its_rule_has_held_long_enough() -> None:
    scores = np.zeros((2, 5, len(SCORES)), np.float32)
    scores[:, :, SCORES.index("kl")] = [[0.1, 1.0, 0.1, 0.1, 1.0], [1.0] * 5]
    right = np.array([[False, False, True, True, True], [False, True, False, True, True]])
    trace = Trace(right, scores)
    assert trace.depths(HaltingRule("kl", 0.5, 1)).tolist() == [1, 5]
    answers, depths = trace.halted(HaltingRule("kl", 0.5, 2))
    assert depths.tolist() == [4, 5]
    assert answers.tolist() == [True, True]
    assert trace.depths(HaltingRule("none")).tolist() == [5, 5]
    assert trace.oracle().tolist() == [3, 4]


def test_the_default_is_the_middle_of_the_cheapest_sound_criterion() -> None:
    def point(criterion: str, threshold: float, steps: float, kept: float) -> CalibrationPoint:
        return CalibrationPoint(
            criterion=criterion,
            threshold=threshold,
            accuracy=kept,
            mean_steps=steps,
            hardest_accuracy=kept,
            guaranteed=kept,
        )

    points = (
        point("none", 0.0, 128, 0.99),
        point("kl", 0.1, 2, 0.5),
        point("latent_diff", 1.0, 10, 0.99),
        point("latent_diff", 0.1, 12, 0.99),
        point("latent_diff", 0.01, 20, 0.99),
    )
    chosen = choose_default(Calibration(problems=8, max_steps=128, confidence=0.95, points=points))
    assert (chosen.criterion, chosen.threshold) == ("latent_diff", 0.1)


def test_every_calibrated_rule_is_one_a_request_could_name() -> None:
    assert all(math.isfinite(rule.threshold) for rule in RULES)
    by_criterion = {rule.criterion for rule in RULES}
    assert by_criterion == {"none", *SCORES}
    assert all(sum(rule.criterion == name for rule in RULES) <= 8 for name in by_criterion)


def test_parity_covers_padding_and_single_nodes() -> None:
    assert (1, 1) in parity.SHAPES
    assert len({length for _, length in parity.SHAPES}) >= 5


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
