"""The paper's experiments as a command: nothing is done twice, and the tables say what was measured."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from model.network.config import RecurrentConfig
from training import checkpoint
from training.config import TrainConfig
from training.errors import Interrupted, RunError
from training.paper import reproduce
from training.paper.catalogue import experiments
from training.paper.experiment import Experiment, HeldOut, Progression, Variant
from training.paper.replications import BASELINES, OURS
from training.paper.reproduce import Job, measured_run, shortcuts
from training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]
TINY = replace(
    OURS.config,
    network=RecurrentConfig(width=16, heads=2, feed_forward=16),
    updates=3,
    batch=4,
    device="cpu",
)
ACT = replace(
    BASELINES.variants[-1].config,
    network=RecurrentConfig(width=16, heads=2, feed_forward=16, layer_scale=None, gate_bias=None),
    updates=2,
    batch=4,
    device="cpu",
)
HELD_OUT = HeldOut({"matched": (1, 5, 6)}, (1, 2, 4, 8), 4, 8)


def two(config: TrainConfig = TINY) -> Experiment:
    variants = (Variant("ours", "tiny-ours", config), Variant("halting", "tiny-act", ACT))
    return Experiment("baselines", "Two of them", variants, HELD_OUT)


def said(_: str) -> None:
    pass


def refuse(*_: object) -> None:
    raise AssertionError("it is done again")


def test_a_comparison_is_trained_measured_and_written(tmp_path: Path) -> None:
    where = reproduce.reproduce(two(), tmp_path, 2, 1, said)
    report = json.loads((where / "results.json").read_text())
    ours, halting = report["variants"]["ours"], report["variants"]["halting"]
    assert ours["seeds"] == 2
    assert [run["seed"] for run in ours["runs"]] == [0, 1]
    assert [len(run["accuracy"]["matched"]["6"]) for run in ours["runs"]] == [8, 8], "after every step"
    assert ours["ponder"] == {}
    assert all(1 <= steps <= 8 for steps in halting["ponder"].values())
    for figure in ours["figures"].values():
        assert 0 <= figure["lowest"] <= figure["mean"] <= figure["highest"] <= 1
    table = (where / "table.md").read_text()
    assert "2 seeds; width 16, 3 updates of 4; 4 held-out problems for each number of hops" in table
    assert f"| ours | {ours['parameters']:,} |" in table
    assert (where / "figure.png").stat().st_size > 10_000


def test_what_is_finished_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = reproduce.reproduce(two(), tmp_path, 1, 1, said)
    first = json.loads((where / "results.json").read_text())

    monkeypatch.setattr(reproduce, "fit", refuse)
    reproduce.reproduce(two(), tmp_path, 1, 1, said)
    again = json.loads((where / "results.json").read_text())
    assert again["variants"] == first["variants"]
    (tmp_path / "runs" / "tiny-ours-0" / reproduce.MEASURED).unlink()
    reproduce.reproduce(two(), tmp_path, 1, 1, said)  # measured again, but not trained


def test_a_stopped_run_goes_on_where_it_stood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(Variant("ours", "x", replace(TINY, checkpoint_every=1)), 0, HELD_OUT, tmp_path / "run")
    whole = measured_run(replace(job, folder=tmp_path / "whole"))
    update = Trainer.update

    def stop_after_two(trainer: Trainer) -> dict[str, float]:
        if trainer.updates == 2:
            raise Interrupted("stopped after 2 updates")
        return update(trainer)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "update", stop_after_two)
        with pytest.raises(Interrupted, match="the same command goes on"):
            measured_run(job)
    assert checkpoint.load(job.folder).update == 2
    assert not (job.folder / reproduce.MEASURED).exists()
    assert measured_run(job)["accuracy"] == whole["accuracy"]


def test_a_run_without_a_checkpoint_begins_anew(tmp_path: Path) -> None:
    job = Job(Variant("ours", "x", TINY), 0, HELD_OUT, tmp_path / "run")
    job.folder.mkdir()
    (job.folder / "config.json").write_text("{}")
    assert measured_run(job)["updates"] == 3


def test_a_folder_of_another_experiment_is_left_alone(tmp_path: Path) -> None:
    job = Job(Variant("ours", "x", TINY), 0, HELD_OUT, tmp_path / "run")
    measured_run(job)
    longer = replace(job, variant=replace(job.variant, config=replace(TINY, updates=4)))
    with pytest.raises(RunError, match=r"is of another experiment: remove .* or choose another --out"):
        measured_run(longer)
    (job.folder / reproduce.MEASURED).unlink()
    with pytest.raises(RunError, match="another updates"):
        measured_run(longer)


def test_what_an_earlier_version_measured_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had no field for baselines, whose choices stood elsewhere."""
    job = Job(Variant("halting", "x", ACT), 0, HELD_OUT, tmp_path / "run")
    found = measured_run(job)
    place = job.folder / reproduce.MEASURED
    before = json.loads(place.read_text())
    for config in (before[0]["config"], json.loads((job.folder / "config.json").read_text())):
        baseline = config.pop("baseline")
        config["ponder"] = baseline.pop("ponder")
        config["network"].update(baseline)
    place.write_text(json.dumps(before))
    (job.folder / "config.json").write_text(json.dumps(before[0]["config"]))
    monkeypatch.setattr(reproduce, "fit", refuse)
    assert measured_run(replace(job, held_out=replace(HELD_OUT, splits={"paper": (2,)})))["ponder"]
    monkeypatch.setattr(reproduce, "trace", refuse)
    assert measured_run(job) == found


def test_a_run_measured_for_two_experiments_is_trained_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(Variant("ours", "x", TINY), 0, HELD_OUT, tmp_path / "run")
    first = measured_run(job)
    monkeypatch.setattr(reproduce, "fit", refuse)
    farther = replace(job, held_out=replace(HELD_OUT, splits={"paper": (2,)}))
    assert set(measured_run(farther)["accuracy"]) == {"paper"}
    monkeypatch.setattr(reproduce, "trace", refuse)
    assert measured_run(job) == first, "neither is measured again"
    assert set(measured_run(farther)["accuracy"]) == {"paper"}


def test_a_run_that_saved_more_often_is_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(Variant("ours", "x", TINY), 0, HELD_OUT, tmp_path / "run")
    often = replace(TINY, checkpoint_every=1)
    reproduce.fit(often, job.folder, False, Console(quiet=True), True)
    monkeypatch.setattr(reproduce, "fit", refuse)
    found = measured_run(job)
    assert found["updates"] == 3
    assert found["processor_seconds"] == found["seconds"], "nobody has counted the processor's"


def test_only_finished_runs_are_shown_where_nothing_shall_be_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = two()
    with pytest.raises(RunError, match="no finished run of baselines: train them first"):
        reproduce.reproduce(experiment, tmp_path, 1, 1, said, train=False)
    ours = replace(experiment, variants=experiment.variants[:1])
    reproduce.reproduce(ours, tmp_path, 1, 1, said)
    monkeypatch.setattr(reproduce, "fit", refuse)
    where = reproduce.reproduce(experiment, tmp_path, 2, 1, said, train=False)
    report = json.loads((where / "results.json").read_text())
    assert {name: found["seeds"] for name, found in report["variants"].items()} == {"ours": 1}


@pytest.mark.slow
def test_several_jobs_find_what_one_finds(tmp_path: Path) -> None:
    one = reproduce.reproduce(two(), tmp_path / "one", 1, 1, said)
    more = reproduce.reproduce(two(), tmp_path / "more", 1, 2, said)
    reports = [json.loads((where / "results.json").read_text())["variants"] for where in (one, more)]
    for variant in ("ours", "halting"):
        for found in ("grids", "ponder"):
            assert reports[0][variant][found] == reports[1][variant][found]


@pytest.mark.slow  # two more processes that import torch
def test_the_first_ctrl_c_stops_all_jobs_and_begins_no_other(tmp_path: Path) -> None:
    code = (
        "from dataclasses import replace\n"
        "from pathlib import Path\n"
        "from tests.training.test_reproduce import TINY, said, two\n"
        "from training.paper.experiment import Variant\n"
        "from training.paper.reproduce import reproduce\n"
        "long = replace(TINY, updates=10**6, checkpoint_every=1)\n"
        "variants = tuple(Variant(str(n), f'v{n}', long) for n in range(4))\n"
        f"reproduce(replace(two(), variants=variants), Path({str(tmp_path)!r}), 1, 2, said)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    runs = [tmp_path / "runs" / f"v{number}-0" for number in range(4)]
    deadline = time.monotonic() + 120
    while not all(checkpoint.exists(run) for run in runs[:2]):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert not any(run.exists() for run in runs[2:])


def test_a_frontier_is_a_grid_of_difficulty_and_steps(tmp_path: Path) -> None:
    held_out = HeldOut({"paper": (5, 6), "matched": (6, 7)}, (1, 4), 4, 4)
    small = Variant("paper-small", "f", TINY)
    experiment = Experiment("frontier-graph", "Accuracy", (small,), held_out, "grid")
    where = reproduce.reproduce(experiment, tmp_path, 1, 1, said)
    table = (where / "table.md").read_text()
    assert "| Hops | 1 steps | 4 steps | best |" in table
    assert table.count("| 6 | ") == 2, "one for each split"
    assert (where / "figure.png").exists()


def test_shortcuts_need_no_training(tmp_path: Path) -> None:
    where = shortcuts(tmp_path, 6, said, hardest=6)
    report = json.loads((where / "results.json").read_text())
    assert set(report["tasks"]) == {"graph", "logic", "text"}
    assert "target has an incoming edge" in report["tasks"]["graph"]["splits"]["paper"]["5"]
    assert "outermost operator" in (where / "table.md").read_text()
    assert not (tmp_path / "runs").exists()


def test_the_experiments_are_the_papers_and_their_runs_do_not_get_in_each_others_way() -> None:
    folders: dict[str, TrainConfig] = {}
    for experiment in (*experiments().values(), *experiments(full=True).values()):
        for part in experiment.domains if isinstance(experiment, Progression) else (experiment,):
            names = [variant.name for variant in part.variants]
            assert len({*names, *part.cited}) == len(names) + len(part.cited)
            assert max(part.held_out.budgets) <= part.held_out.longest
            for variant in part.variants:
                assert folders.setdefault(variant.folder, variant.config) == variant.config
