"""A run: it learns, it survives whatever stops it, and it ends the same however often it was stopped."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from training import checkpoint, fit, run
from training.checkpoint import Checkpoint
from training.config import TrainConfig, as_dict, configure, from_json, to_json
from training.curriculum import Curriculum
from training.errors import ConfigError, RunError, RunFailed
from training.halting_head import stays_right
from training.judge.traces import accuracy_at
from training.paper.presets import PAPER, PAPER_SMALL
from training.parallel import World
from training.recipes import LOGIC, PRESETS
from training.trainer import Trainer, learning_rate

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    "network.width=16",
    "network.heads=2",
    "network.feed_forward=16",
    "batch=8",
    "curriculum.advance_below=10",  # a hop harder after every update
    "curriculum.burn_in_below=10",
    "curriculum.burn_in_every=1",
    "curriculum.end=3",
    "noise_ramp=2",
    "network.dropout=0.1",
    "head_updates=4",
    "device=cpu",
]


def quiet() -> Console:
    return Console(file=io.StringIO())


def train(out: Path, *overrides: str) -> dict[str, torch.Tensor]:
    fit.train("graph", "default", out, None, [*TINY, *overrides], quiet(), True)
    return checkpoint.load(out).tensors


def command(*words: str, under: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *under, "-m", "fathom", *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "400"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def settings(*overrides: str) -> list[str]:
    return [word for override in (*TINY, *overrides) for word in ("--set", override)]


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 180
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def test_a_few_seconds_teach_two_hops(tmp_path: Path) -> None:
    small = ["network.width=32", "network.layer_scale=0.1", "curriculum.end=2", "noise=0", "ema=0.9"]
    budget = ["updates=120", "batch=32", "warmup=20", "learning_rate=0.005", "device=cpu"]
    small.append("network.halting_head=false")
    fit.train("graph", "default", tmp_path / "run", None, [*small, *budget], quiet(), True)
    network, saved = run.read_network(tmp_path / "run")
    assert saved.state["curriculum"]["difficulty"] >= 2
    task = TrainConfig().task
    problems = task.problems(np.random.default_rng(5), "matched", 2, 100)
    assert accuracy_at(network, problems, 2) > 0.9
    lines = [json.loads(line) for line in (tmp_path / "run" / run.METRICS).read_text().splitlines()]
    assert [line["update"] for line in lines] == [50, 100]


@pytest.mark.parametrize("stop", [9, 20, 22])
def test_resumed_training_ends_with_the_weights_of_uninterrupted_training(tmp_path: Path, stop: int) -> None:
    """Stopped in the middle, where the halting head is next, and while the head learns."""
    whole = train(tmp_path / "whole", "updates=20", "checkpoint_every=7")

    config = configure(TrainConfig(), [*TINY, "updates=20", "checkpoint_every=7"])
    run.create(tmp_path / "parts", config, "cpu", 1)
    first = Trainer(config, tmp_path / "parts", World(), "cpu")
    for update in range(stop):
        first.update() if update < config.updates else first.teach()
    first.save()
    fit.train("graph", None, None, tmp_path / "parts", [], quiet(), True)
    assert_same(whole, checkpoint.load(tmp_path / "parts").tensors)


def test_the_halting_head_learns_last_and_alone(tmp_path: Path) -> None:
    before = train(tmp_path / "short", "updates=6", "head_updates=1", "learning_rate=1e-9")
    after = train(tmp_path / "long", "updates=6", "head_updates=30", "learning_rate=1e-9")
    changed = {name for name in before if name.startswith(("ema.", "model.")) and "halting" in name}
    for name in before:
        if name.startswith(("ema.", "model.")) and name not in changed:
            assert torch.equal(before[name], after[name]), name
    config = configure(TrainConfig(), [*TINY, "head_updates=40"])
    trainer = Trainer(config, tmp_path / "none", World(), "cpu")
    losses = [trainer.teach()["halting_loss"] for _ in range(40)]
    assert np.mean(losses[-10:]) < np.mean(losses[:10])


def test_a_halting_head_needs_updates_of_its_own() -> None:
    with pytest.raises(ConfigError, match="head_updates is 0, but must be at least 1"):
        configure(TrainConfig(), ["head_updates=0"])
    assert configure(TrainConfig(), ["head_updates=0", "network.halting_head=false"]).all_updates == 1600


def test_staying_right_is_being_right_from_here_on() -> None:
    right = torch.tensor([[True, False], [False, False], [True, False], [True, True]])
    assert stays_right(right).T.tolist() == [[False, False, True, True], [False, False, False, True]]


def test_ctrl_c_saves_says_one_line_and_resumes_to_the_same_weights(tmp_path: Path) -> None:
    process = command(
        "train", "graph", "--out", str(tmp_path / "run"), *settings("updates=60", "checkpoint_every=5")
    )
    wait_for(tmp_path / "run" / "checkpoints" / "0000005", process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=180)
    assert process.returncode == 130
    assert len(errors.splitlines()) == 1
    assert "--resume" in errors
    stopped = checkpoint.load(tmp_path / "run").update
    assert 5 <= stopped < 60
    fit.train("graph", None, None, tmp_path / "run", [], quiet(), True)
    assert_same(
        checkpoint.load(tmp_path / "run").tensors,
        train(tmp_path / "whole", "updates=60", "checkpoint_every=5"),
    )


def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    """Checkpoints after every update, so that the kill falls while one is being written."""
    process = command(
        "train", "graph", "--out", str(tmp_path), *settings("updates=5000", "checkpoint_every=1")
    )
    wait_for(tmp_path / "checkpoints" / "0000003", process)
    process.kill()
    process.communicate(timeout=180)
    saved = checkpoint.load(tmp_path)
    assert saved.update >= 3
    trainer = Trainer(run.read_config(tmp_path), tmp_path, World(), "cpu")
    trainer.restore(saved)
    assert trainer.updates == saved.update


def test_a_half_written_checkpoint_is_not_seen(tmp_path: Path) -> None:
    whole = Checkpoint({"model.a": torch.ones(2)}, {"update": 3})
    checkpoint.save(tmp_path, whole)
    draft = tmp_path / "checkpoints" / "0000004.part"
    draft.mkdir()
    (draft / checkpoint.TENSORS).write_bytes(b"half")
    assert checkpoint.load(tmp_path).update == 3
    checkpoint.save(tmp_path, Checkpoint({"model.a": torch.zeros(2)}, {"update": 4}))
    assert checkpoint.load(tmp_path).tensors["model.a"].tolist() == [0, 0]


def test_only_the_last_checkpoints_stay(tmp_path: Path) -> None:
    for update in range(5):
        checkpoint.save(tmp_path, Checkpoint({"model.a": torch.ones(1)}, {"update": update}))
    assert len(list((tmp_path / "checkpoints").iterdir())) == checkpoint.KEPT


def test_a_full_disk_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"cannot write to .*: No space left on device$"):
        checkpoint.save(tmp_path, Checkpoint({"model.a": torch.ones(1)}, {"update": 1}))
    assert list((tmp_path / "checkpoints").iterdir()) == [], "and no half checkpoint takes up room"


@pytest.mark.slow
def test_two_processes_train_the_model_that_one_would(tmp_path: Path) -> None:
    """Same problems, noise and plans: the weights agree up to the order of floating-point sums."""
    options = [option for option in TINY if "dropout" not in option]
    words = ["train", "graph", "--out", str(tmp_path / "two"), "--set", "updates=12"]
    words += [word for option in options for word in ("--set", option)]
    launcher = ("-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    process = command(*words, under=launcher)
    output, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors
    assert output.count("trained /") == 1, "the first process alone speaks"
    fit.train("graph", "default", tmp_path / "one", None, [*options, "updates=12"], quiet(), True)
    one, two = checkpoint.load(tmp_path / "one"), checkpoint.load(tmp_path / "two")
    assert one.state["numbers"] == two.state["numbers"]
    assert one.state["curriculum"]["difficulty"] == two.state["curriculum"]["difficulty"] == 3
    for name, tensor in one.part("model").items():
        torch.testing.assert_close(two.part("model")[name], tensor, atol=2e-5, rtol=1e-4)
    for name, tensor in one.part("ema").items():
        torch.testing.assert_close(two.part("ema")[name], tensor, atol=2e-5, rtol=1e-3)


def test_bfloat16_trains(tmp_path: Path) -> None:
    weights = train(tmp_path / "run", "updates=3", "precision=bfloat16")
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())


def test_resuming_with_another_configuration_names_the_fields(tmp_path: Path) -> None:
    train(tmp_path, "updates=1")
    with pytest.raises(RunError, match=r"another network\.width, noise; resume it unchanged"):
        fit.train("graph", None, None, tmp_path, ["network.width=32", "noise=0.1"], quiet(), True)


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["--set", "updates"], 2, "fathom: 'updates' is not of the form name=value"),
        (["--resume", "nowhere"], 2, "fathom: nowhere is not a run"),
        (["--out", "/proc/none"], 1, "fathom: cannot write to /proc/none"),
    ],
)
def test_what_a_caller_does_wrong_ends_otherwise_than_what_fails(
    words: list[str], code: int, line: str
) -> None:
    process = command("train", "graph", *words)
    _, errors = process.communicate(timeout=180)
    assert process.returncode == code
    assert len(errors.splitlines()) == 1
    assert line in errors


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("updates=0", "updates is 0, but must be at least 1"),
        ("noise=much", "noise: Input should be a valid number"),
        ("network.width=63", "width 63 is not a multiple of heads 4"),
        ("network.widht=63", "unknown setting 'network.widht'; did you mean network.width?"),
        ("burnin=3", "unknown setting 'burnin'; did you mean curriculum.burn_in?"),
        ("task.name=logic", "unknown setting 'task.name'; "),
        ("mood=1", "unknown setting 'mood'; docs/training.md and the config.json of any run have them all"),
    ],
)
def test_a_setting_that_is_none_is_one_line_that_says_what_to_do(override: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configure(TrainConfig(), [override])
    assert line in caught.value.message
    assert len(caught.value.message) < 160


def test_a_gradient_that_is_no_number_is_caught_before_the_step_and_the_advice_can_be_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "run"
    really = torch.nn.utils.clip_grad_norm_
    calls = []

    def spoiled(parameters: Any, limit: float) -> torch.Tensor:
        calls.append(1)
        return really(parameters, limit) if len(calls) != 6 else torch.tensor(float("nan"))

    with monkeypatch.context() as patched:
        patched.setattr(torch.nn.utils, "clip_grad_norm_", spoiled)
        with pytest.raises(RunFailed, match="its gradient's norm nan at update 6; continue from") as caught:
            train(whole, "updates=8", "checkpoint_every=3")
    assert checkpoint.load(whole).update == 3, "nothing of the update that failed is kept"
    words = caught.value.message.partition("--resume ")[2].split()
    assert words == [str(whole), "--set", "learning_rate=0.001"]
    fit.train("graph", None, None, Path(words[0]), [words[2]], quiet(), True)
    assert checkpoint.load(whole).update == 12
    assert run.read_config(whole).learning_rate == 0.001
    assert run.read_provenance(whole)["changes"] == [{"update": 3, "learning_rate": 0.001}]


def test_a_run_that_fails_before_its_first_checkpoint_is_to_begin_again(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=r"remove .* and begin again with --set learning_rate=") as caught:
        train(tmp_path / "run", "updates=8", "learning_rate=1e30", "clip=1e30", "noise=0")
    assert not checkpoint.exists(tmp_path / "run")
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    ("task", "words", "reason"),
    [
        ("logic", ["curriculum.end=16"], "curriculum.end is 16, .*as short as task.longest=64"),
        ("logic", ["task.min_depth=3"], "curriculum.start is 2, .*task.min_depth is 3"),
        ("text", ["task.min_links=2"], "curriculum.start is 1, .*task.min_links is 2"),
        ("graph", ["curriculum.start=0", "first_steps=1"], "a path has at least one hop"),
    ],
)
def test_a_curriculum_that_cannot_be_filled_is_refused_at_the_start(
    task: str, words: list[str], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=reason):
        fit.train(task, None, tmp_path / "run", None, words, quiet(), True)
    assert not (tmp_path / "run").exists()


def test_every_preset_can_be_filled() -> None:
    for tasks in PRESETS.values():
        for config in tasks.values():
            for difficulty in (config.curriculum.start, config.curriculum.end):
                assert config.task.cannot_draw(difficulty) is None


def test_a_run_from_before_a_field_is_still_one_of_its_preset(tmp_path: Path) -> None:
    """Its recipe has another burn-in by now than runs had before they could choose."""
    config = PRESETS["words"]["text"]
    run.create(tmp_path, config, "cpu", 1)
    written = tmp_path / run.CONFIG
    content = json.loads(written.read_text())
    del content["curriculum"]["burn_in_draw"]
    written.write_text(json.dumps(content))
    run.check_same(tmp_path, config)
    assert run.read_config(tmp_path).curriculum.burn_in_draw == "even" != config.curriculum.burn_in_draw
    with pytest.raises(RunError, match="another noise"):
        run.check_same(tmp_path, replace(config, noise=0.3))


@pytest.mark.slow
def test_the_quick_recipe_learns(tmp_path: Path) -> None:
    outcome = fit.train("graph", "quick", tmp_path / "run", None, ["device=cpu"], quiet(), True)
    network, saved = run.read_network(tmp_path / "run")
    assert saved.state["curriculum"]["difficulty"] == 3
    problems = TrainConfig().task.problems(np.random.default_rng(5), "matched", 3, 200)
    assert accuracy_at(network, problems, 3) > 0.95
    assert outcome.seconds > 0


def test_a_folder_with_a_run_is_not_overwritten(tmp_path: Path) -> None:
    train(tmp_path, "updates=1")
    with pytest.raises(RunError, match="holds a run already: continue it with --resume"):
        train(tmp_path, "updates=1")


def test_configurations_survive_json_and_presets_are_valid() -> None:
    presets = [config for tasks in PRESETS.values() for config in tasks.values()]
    for config in (*presets, configure(TrainConfig(), TINY)):
        assert from_json(to_json(config)) == config
    assert configure(TrainConfig(), ["network.gate_bias=null"]).network.gate_bias is None
    with pytest.raises(ConfigError, match="another version"):
        from_json('{"updates": 3}')


NEWER = {
    "network": ("reading", "routing", "window", "counters", "same_heads", "span"),
    "task": ("unknown", "blank_share", "quiet_share", "wide_share", "taste"),
    "curriculum": ("burn_in_draw",),
    "": ("short_share", "token_rate", "unrest", "unrest_from"),
}


def from_before(content: dict[str, Any]) -> str:
    """The same configuration as an earlier Fathom wrote it."""
    for part, names in NEWER.items():
        for name in names:
            (content[part] if part else content).pop(name, None)
    return json.dumps(content)


@pytest.mark.parametrize("task", ["graph", "text"])
def test_a_field_that_is_newer_than_a_run_has_its_own_default_and_not_the_recipes(task: str) -> None:
    for config in (PAPER[task], PRESETS["default"][task]):
        plain = replace(config, curriculum=replace(config.curriculum, burn_in_draw="even"))
        assert from_json(from_before(as_dict(plain))) == plain
    old = as_dict(PAPER_SMALL["logic"])
    for name in NEWER["network"]:
        del old["network"][name]
    assert from_json(json.dumps(old)).network.reading == 0 < LOGIC.network.reading


def test_a_run_from_before_a_field_resumes_to_the_same_weights_and_can_be_read(tmp_path: Path) -> None:
    options = ["updates=6", "curriculum.burn_in_draw=even"]
    whole = train(tmp_path / "whole", *options)
    config = configure(TrainConfig(), [*TINY, *options])
    run.create(tmp_path / "old", config, "cpu", 1)
    first = Trainer(config, tmp_path / "old", World(), "cpu")
    for _ in range(3):
        first.update()
    first.save()
    written = tmp_path / "old" / run.CONFIG
    written.write_text(from_before(json.loads(written.read_text())))
    assert "short_share" not in written.read_text()
    run.read_network(tmp_path / "old")
    fit.train("graph", None, None, tmp_path / "old", [], quiet(), True)
    assert_same(whole, checkpoint.load(tmp_path / "old").tensors)


def test_a_configuration_with_fields_that_nobody_knows_is_from_another_version() -> None:
    for part in ("", "network", "curriculum", "task"):
        content = as_dict(TrainConfig())
        (content[part] if part else content)["mood"] = 1
        name = f"{part}.mood".lstrip(".")
        with pytest.raises(ConfigError, match=rf"another version of Fathom \(fields {name}\)"):
            from_json(json.dumps(content))
    content = as_dict(TrainConfig())
    del content["network"]
    with pytest.raises(ConfigError, match=r"another version of Fathom \(fields network\)"):
        from_json(json.dumps(content))
    for task in ("maze", ["graph"], None):
        with pytest.raises(ConfigError, match=r"another version of Fathom \(task"):
            from_json(json.dumps({**as_dict(TrainConfig()), "task": {"name": task}}))


def test_asking_every_node_while_the_target_is_marked_is_refused() -> None:
    with pytest.raises(ConfigError, match="only one node is the target"):
        configure(TrainConfig(), ["network.target_role=true"])


@pytest.mark.parametrize("task", sorted(PAPER))
def test_the_papers_preset_trains(task: str, tmp_path: Path) -> None:
    words = ["updates=2", "batch=4", "device=cpu", "network.width=16", "network.feed_forward=16"]
    fit.train(task, "paper", tmp_path, None, words, quiet(), True)
    config = run.read_config(tmp_path)
    assert config.network.depth_embedding >= 20
    assert (config.noise, config.curriculum.burn_in, config.ema) == (0, 0, 0), "the paper has none of these"


def test_the_paper_thinks_for_a_random_number_of_steps() -> None:
    ranges = {
        task: (config.steps(end := config.curriculum.end), config.steps(end) + config.extra_steps)
        for task, config in PAPER.items()
    }
    assert ranges == {"graph": (5, 8), "logic": (4, 16), "text": (1, 12)}
    small = {
        task: (config.steps(5), config.extra_steps, config.curriculum) for task, config in PAPER_SMALL.items()
    }
    full = {task: (config.steps(5), config.extra_steps, config.curriculum) for task, config in PAPER.items()}
    assert small == full, "made small, it keeps the protocol"


def test_answers_on_the_way_are_graded_as_much_as_asked(tmp_path: Path) -> None:
    """The curriculum goes by the last answer alone: those before cannot be right yet."""
    lines = {}
    for weight in (0, 1):
        options = [option for option in TINY if "dropout" not in option]
        config = configure(TrainConfig(), [*options, f"intermediate={weight}", "extra_steps=3", "noise=0"])
        run.create(tmp_path / str(weight), config, "cpu", 1)
        trainer = Trainer(config, tmp_path / str(weight), World(), "cpu")
        lines[weight] = [trainer.update() for _ in range(2)]
    assert lines[0][0]["loss"] == lines[1][0]["loss"]
    assert lines[0][0]["gradient_norm"] != lines[1][0]["gradient_norm"]


def test_the_curriculum_gets_harder_only_once_the_loss_is_low() -> None:
    config = TrainConfig().curriculum
    curriculum = Curriculum.start(config)
    for update in range(1, 200):
        curriculum.observe(update, 0.7)
    assert (curriculum.difficulty, curriculum.burn_in) == (1, 0)
    for update in range(200, 4000):
        curriculum.observe(update, 0.0)
    assert (curriculum.difficulty, curriculum.burn_in) == (config.end, config.burn_in)


def test_the_learning_rate_warms_up_and_ends_near_zero() -> None:
    config = TrainConfig()
    rates = [learning_rate(config, update) for update in range(config.updates)]
    assert rates[0] == pytest.approx(config.learning_rate / config.warmup, rel=0.01)
    assert max(rates) == pytest.approx(config.learning_rate, rel=0.02)
    assert rates[-1] < config.learning_rate * 1e-4
