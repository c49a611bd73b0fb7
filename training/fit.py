"""From a command line to a running trainer."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.console import Console

from training import checkpoint, run
from training.config import TASKS, TrainConfig, configure
from training.errors import ConfigError
from training.parallel import joined
from training.recipes import preset as preset_of
from training.trainer import Outcome, Trainer

CHANGEABLE = ("learning_rate", "clip")  # when a run is resumed: what helps where it has diverged


def train(
    task: str,
    preset: str | None,
    out: Path | None,
    resume: Path | None,
    overrides: list[str],
    console: Console,
    silent: bool,
) -> Outcome:
    """Begin or continue a run and train it to the end. Raises FathomError where that cannot be."""
    if task not in TASKS:
        raise ConfigError(f"unknown task {task!r}; there are {', '.join(TASKS)}")
    if resume is not None:
        if out is not None and out.resolve() != resume.resolve():
            raise ConfigError("--resume continues a run in its own folder: leave --out away")
        known = run.read_config(resume)
        if known.task.name != task:
            raise ConfigError(f"{resume} trains {known.task.name}, not {task}")
        if preset is not None and overrides == []:
            run.check_same(resume, preset_of(task, preset))
        config = configure(known, overrides)
        run.check_same(resume, config, CHANGEABLE)
    else:
        config = configure(preset_of(task, preset or "default"), overrides)
    return fit(config, resume or out or Path("runs") / task, resume is not None, console, silent)


def fit(config: TrainConfig, folder: Path, resume: bool, console: Console, silent: bool) -> Outcome:
    """Train a configuration in this folder, from its last checkpoint on if that is asked."""
    device = device_of(config)
    torch.set_num_threads(config.threads)
    for name, difficulty in (("start", config.curriculum.start), ("end", config.curriculum.end)):
        if not resume and (reason := config.task.cannot_draw(difficulty)):
            raise ConfigError(
                f"curriculum.{name} is {difficulty}, but there are no such problems to train on: {reason}"
            )
    with joined(device) as world:
        if not resume and world.leads:
            run.create(folder, config, device, world.size)
        trainer = Trainer(config, folder, world, device)
        if resume:
            trainer.restore(checkpoint.load(folder))
            if world.leads:
                run.change(folder, config, trainer.updates)
        try:
            outcome = trainer.train(console, silent)
        finally:
            trainer.close()
    if world.leads and not silent:
        reached = f"{outcome.accuracy:.1%} at {config.task.probe} {config.task.unit}"
        console.print(
            f"trained {folder} in {outcome.seconds:.0f} s: {reached} (trained on up to "
            f"{config.curriculum.end}); next: fathom evaluate {folder}",
            highlight=False,
            soft_wrap=True,
        )
    return outcome


def device_of(config: TrainConfig) -> str:
    """cuda only where there is one: asking for it elsewhere is an error, never a silent CPU run."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda was asked for, but torch finds no CUDA device; use device=cpu")
    if config.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return config.device
