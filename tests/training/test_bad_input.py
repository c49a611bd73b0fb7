"""What a caller or a machine does wrong is one line, and nothing that was whole is lost by it."""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from training import checkpoint, drafts, fit, run
from training.checkpoint import Checkpoint
from training.cli import app
from training.config import TrainConfig, configure
from training.drafts import drafted, swap
from training.errors import RunError
from training.judge import evaluate

TINY = [
    "network.width=16",
    "network.heads=2",
    "network.feed_forward=16",
    "network.halting_head=false",
    "batch=4",
    "updates=2",
    "checkpoint_every=1",
    "device=cpu",
]
SHIPPED = Path(__file__).resolve().parents[2] / "bundles" / "graph" / "1"


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def train(out: Path | None, resume: Path | None = None, task: str = "graph") -> str:
    """What the command prints."""
    console = Console(file=io.StringIO(), width=400)
    fit.train(task, None, out, resume, TINY if resume is None else [], console, False)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def refusal(*words: str, code: int = 2) -> str:
    """The one line on stderr of a command that the caller, or with code=1 the machine, keeps from working."""
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == code, done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)
    line: str = done.stderr.removesuffix("\n")
    assert "\n" not in line
    return line


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "graph"
    train(folder)
    return folder


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "copied"))


def test_an_unknown_task_is_told_with_those_there_are() -> None:
    assert refusal("train", "maze") == "fathom: unknown task 'maze'; there are graph, logic, text"
    assert refusal("train", "maze", "--resume", "nowhere").startswith("fathom: unknown task 'maze'")


def test_a_folder_that_is_no_run_is_told(tmp_path: Path) -> None:
    for words in (("train", "graph", "--resume"), ("export",)):
        assert f"{tmp_path} is not a run: config.json cannot be read" in refusal(*words, str(tmp_path))
        assert "nowhere is not a run" in refusal(*words, "nowhere")
        assert "is a bundle, not a run: give the folder that fathom train wrote" in refusal(
            *words, str(SHIPPED)
        )
    assert f"{tmp_path} is neither a run nor a bundle" in refusal("evaluate", str(tmp_path))
    assert "neither a run nor a bundle" in refusal("evaluate", str(SHIPPED / "manifest.json"))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b'{"task": {"name": "maze"}}'])
def test_a_configuration_that_is_none_is_told(copied: Path, content: bytes) -> None:
    (copied / run.CONFIG).write_bytes(content)
    assert "configuration" in refusal("train", "graph", "--resume", str(copied)) or content == b"\xff\xfe"
    assert checkpoint.load(copied).update == 2


def test_a_run_of_another_task_is_told(trained: Path) -> None:
    assert "trains graph, not logic" in refusal("train", "logic", "--resume", str(trained))


def test_weights_that_do_not_fit_an_edited_configuration_are_told(copied: Path) -> None:
    settings = json.loads((copied / run.CONFIG).read_text())
    settings["network"]["width"] = 32
    (copied / run.CONFIG).write_text(json.dumps(settings))
    for words in (("train", "graph", "--resume"), ("evaluate",), ("export", "--out", "never/graph/1")):
        assert f"the checkpoint in {copied} does not fit its config.json" in refusal(*words, str(copied))
    assert checkpoint.load(copied).update == 2


def test_a_checkpoint_that_lacks_something_is_told(copied: Path) -> None:
    state = copied / "checkpoints" / "0000002" / checkpoint.STATE
    state.write_text(json.dumps({"update": 2, "seconds": 1.0}))
    assert "does not fit its config.json" in refusal("train", "graph", "--resume", str(copied))


def test_a_full_disk_keeps_the_checkpoint_before_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(tmp_path, Checkpoint({"model.a": torch.ones(1)}, {"update": 1}))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError) as caught:
        checkpoint.save(tmp_path, Checkpoint({"model.a": torch.zeros(1)}, {"update": 2}))
    further = f"make room and continue with --resume {tmp_path}"
    assert caught.value.message == f"cannot write to {tmp_path}: No space left on device; {further}"
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["0000001"]
    assert checkpoint.load(tmp_path).tensors["model.a"].tolist() == [1]


def test_a_full_disk_leaves_no_half_run_in_the_way_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(TrainConfig(), TINY)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(RunError, match="No space left on device"):
            run.create(tmp_path, config, "cpu", 1)
    run.create(tmp_path, config, "cpu", 1)


def test_a_run_that_never_reached_a_checkpoint_is_not_said_to_continue(tmp_path: Path) -> None:
    run.create(tmp_path, configure(TrainConfig(), TINY), "cpu", 1)
    with pytest.raises(RunError, match="it has no checkpoint; remove it unless it is training now"):
        train(tmp_path)


def test_resuming_a_finished_run_says_what_it_had_reached(copied: Path) -> None:
    said = train(None, copied)
    assert "trained" in said
    assert ": 0.0% at" not in said


def test_a_result_is_there_once_it_is_whole(tmp_path: Path) -> None:
    folder = tmp_path / "report"
    with drafted(folder) as draft:
        (draft / "new").write_text("whole")
        assert not (folder / "new").exists()
    assert [path.name for path in folder.iterdir()] == ["new"]


@pytest.mark.parametrize(
    "stop", [KeyboardInterrupt(), RunError("no"), OSError(28, "No space left on device")]
)
def test_what_is_stopped_half_way_leaves_what_was_there(tmp_path: Path, stop: BaseException) -> None:
    (tmp_path / "kept").write_text("before")

    def write(folder: Path) -> None:
        with drafted(folder) as draft:
            (draft / "kept").write_text("after")
            raise stop

    for folder in (tmp_path, tmp_path / "fresh"):
        with pytest.raises((KeyboardInterrupt, RunError)):
            write(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept").read_text() == "before"


def test_a_place_that_cannot_be_written_is_told_before_anything_is_measured(trained: Path) -> None:
    line = refusal("evaluate", str(trained), "--out", "/proc/none", code=1)
    assert line.startswith("fathom: cannot write to /proc/none: ")


def test_a_bundle_that_serve_would_not_find_is_refused_before_anything_is_read() -> None:
    for place in ("foo", "./foo", "bundles/graph", "bundles/graph/..", "bundles/graph/2.part"):
        line = refusal("export", "nowhere", "--out", place)
        assert "serve would not find a bundle in" in line
        assert "give REPOSITORY/MODEL/VERSION, such as bundles/graph/2" in line
    assert refusal("export", "nowhere", "--out", "bundles/graph/2") == (
        "fathom: nowhere has no checkpoint: it is no run, or was stopped before its first one"
    )


@pytest.mark.parametrize(
    "words", [("evaluate", "--problems"), ("export", "--problems"), ("promise", "--pool")]
)
def test_an_odd_number_of_problems_is_refused_as_help_says(words: tuple[str, str], trained: Path) -> None:
    command, flag = words
    done = CliRunner().invoke(app, [command, str(trained), flag, "5"])
    assert done.exit_code == 2
    assert "5 is odd" in done.output


def test_a_flag_that_takes_no_value_is_shown_with_none() -> None:
    for command in ("train", "evaluate", "export", "reproduce", "promise"):
        shown = CliRunner().invoke(app, [command, "--help"]).output.partition("--help")[0]
        assert "--quiet" in shown
        assert "bool" not in shown
        assert "--no-" not in shown


def test_ctrl_c_while_evaluating_is_one_line_and_leaves_nothing(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "evaluate", stopped)
    done = CliRunner().invoke(app, ["evaluate", str(trained), "--out", str(tmp_path / "report")])
    assert (done.exit_code, done.stderr) == (130, "stopped\n")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_replaces_another_is_stopped_before_or_after_but_not_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = os.replace

    def stopped(source: Path, target: Path) -> None:
        if Path(source).name == "draft":
            raise KeyboardInterrupt
        really(source, target)

    for name in ("draft", "place"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "which").write_text(name)
    with monkeypatch.context() as patched:
        patched.setattr(drafts.os, "replace", stopped)
        with pytest.raises(KeyboardInterrupt):
            swap(tmp_path / "draft", tmp_path / "place")
    assert (tmp_path / "place" / "which").read_text() == "place"
    swap(tmp_path / "draft", tmp_path / "place")
    assert [path.name for path in tmp_path.iterdir()] == ["place"]
    assert (tmp_path / "place" / "which").read_text() == "draft"
