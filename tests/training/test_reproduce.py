"""The paper's experiments as a command: nothing is done twice, and the tables say what was measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from model.network.config import RecurrentConfig
from training import checkpoint
from training.checkpoint import RunError
from training.config import TrainConfig
from training.paper import reproduce
from training.paper.catalogue import experiments
from training.paper.experiment import Experiment, Measure, Progression, Variant
from training.paper.replications import BASELINES, OURS
from training.paper.reproduce import Job, carry_through, shortcuts
from training.trainer import Interrupted, Trainer

TINY = replace(
    OURS.config,
    network=RecurrentConfig(width=16, heads=2, feed_forward=16),
    updates=3,
    batch=4,
    device="cpu",
)
ACT = replace(
    BASELINES.variants[-1].config,
    network=RecurrentConfig(
        width=16, heads=2, feed_forward=16, layer_scale=None, gate_bias=None, adaptive_time=True
    ),
    updates=2,
    batch=4,
    device="cpu",
)
MEASURE = Measure({"matched": (1, 5, 6)}, (1, 2, 4, 8), 4, 8)


def two(config: TrainConfig = TINY) -> Experiment:
    variants = (Variant("ours", "tiny-ours", config), Variant("halting", "tiny-act", ACT))
    return Experiment("baselines", "Two of them", variants, MEASURE)


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

    monkeypatch.setattr(reproduce, "carry_out", refuse)
    reproduce.reproduce(two(), tmp_path, 1, 1, said)
    again = json.loads((where / "results.json").read_text())
    assert again["variants"] == first["variants"]
    (tmp_path / "runs" / "tiny-ours-0" / reproduce.MEASURED).unlink()
    reproduce.reproduce(two(), tmp_path, 1, 1, said)  # measured again, but not trained


def test_a_stopped_run_goes_on_where_it_stood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(Variant("ours", "x", replace(TINY, checkpoint_every=1)), 0, MEASURE, tmp_path / "run")
    whole = carry_through(replace(job, folder=tmp_path / "whole"))
    update = Trainer._update

    def stop_after_two(trainer: Trainer) -> dict[str, float]:
        if trainer.updates == 2:
            raise Interrupted("stopped after 2 updates")
        return update(trainer)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_update", stop_after_two)
        with pytest.raises(Interrupted, match="the same command goes on"):
            carry_through(job)
    assert checkpoint.load(job.folder).update == 2
    assert not (job.folder / reproduce.MEASURED).exists()
    assert carry_through(job)["accuracy"] == whole["accuracy"]


def test_a_run_without_a_checkpoint_begins_anew(tmp_path: Path) -> None:
    job = Job(Variant("ours", "x", TINY), 0, MEASURE, tmp_path / "run")
    job.folder.mkdir()
    (job.folder / "config.json").write_text("{}")
    assert carry_through(job)["updates"] == 3


def test_a_folder_of_another_experiment_is_left_alone(tmp_path: Path) -> None:
    job = Job(Variant("ours", "x", TINY), 0, MEASURE, tmp_path / "run")
    carry_through(job)
    longer = replace(job, variant=replace(job.variant, config=replace(TINY, updates=4)))
    with pytest.raises(RunError, match=r"is of another experiment: remove .* or choose another --out"):
        carry_through(longer)
    (job.folder / reproduce.MEASURED).unlink()
    with pytest.raises(RunError, match="another updates"):
        carry_through(longer)


def test_a_run_measured_for_two_experiments_is_trained_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(Variant("ours", "x", TINY), 0, MEASURE, tmp_path / "run")
    first = carry_through(job)
    monkeypatch.setattr(reproduce, "carry_out", refuse)
    farther = replace(job, measure=replace(MEASURE, splits={"paper": (2,)}))
    assert set(carry_through(farther)["accuracy"]) == {"paper"}
    monkeypatch.setattr(reproduce, "trace", refuse)
    assert carry_through(job) == first, "neither is measured again"
    assert set(carry_through(farther)["accuracy"]) == {"paper"}


def test_a_run_that_saved_more_often_is_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(Variant("ours", "x", TINY), 0, MEASURE, tmp_path / "run")
    often = replace(TINY, checkpoint_every=1)
    reproduce.carry_out(often, job.folder, False, Console(quiet=True), True)
    monkeypatch.setattr(reproduce, "carry_out", refuse)
    found = carry_through(job)
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
    monkeypatch.setattr(reproduce, "carry_out", refuse)
    where = reproduce.reproduce(experiment, tmp_path, 2, 1, said, train=False)
    report = json.loads((where / "results.json").read_text())
    assert {name: found["seeds"] for name, found in report["variants"].items()} == {"ours": 1}


def test_several_jobs_find_what_one_finds(tmp_path: Path) -> None:
    one = reproduce.reproduce(two(), tmp_path / "one", 1, 1, said)
    more = reproduce.reproduce(two(), tmp_path / "more", 1, 2, said)
    reports = [json.loads((where / "results.json").read_text())["variants"] for where in (one, more)]
    for variant in ("ours", "halting"):
        for found in ("grids", "ponder"):
            assert reports[0][variant][found] == reports[1][variant][found]


def test_a_frontier_is_a_grid_of_difficulty_and_steps(tmp_path: Path) -> None:
    measure = Measure({"paper": (5, 6), "matched": (6, 7)}, (1, 4), 4, 4)
    small = Variant("paper-small", "f", TINY)
    experiment = Experiment("frontier-graph", "Accuracy", (small,), measure, "grid")
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
            assert max(part.measure.budgets) <= part.measure.longest
            for variant in part.variants:
                assert folders.setdefault(variant.folder, variant.config) == variant.config
    graph = experiments()["frontier-graph"]
    assert isinstance(graph, Experiment)
    assert graph.measure.budgets == (1, 2, 3, 5, 8, 12, 15, 20)
    assert graph.measure.splits["paper"] == tuple(range(1, 13))
