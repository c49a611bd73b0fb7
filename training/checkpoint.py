"""Checkpoints: a folder of tensors (safetensors) and facts (JSON) that is either whole or not there.

    <run>/checkpoints/000500/
        tensors.safetensors   model.*, ema.*, optimizer.<name>.<moment>, head.*, rng.*
        state.json            the update, the curriculum, NumPy's generators, seconds trained

Written under another name, flushed to the disk, then renamed: a kill at any moment leaves the last
whole checkpoint in place. Nothing is pickled.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor, nn
from torch.optim import Optimizer

from training.errors import RunError, RunFailed

CONFIG = "config.json"
TENSORS, STATE = "tensors.safetensors", "state.json"
KEPT = 2  # checkpoints of a run that stay; older ones go


@dataclass(frozen=True)
class Checkpoint:
    """Everything a run is after some update."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]

    @property
    def update(self) -> int:
        return int(self.state["update"])

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors called "<name>.*", by what follows."""
        prefix = f"{name}."
        return {
            key.removeprefix(prefix): value for key, value in self.tensors.items() if key.startswith(prefix)
        }


def save(run: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint and drop old ones. Raises RunFailed if the disk is full or forbids it."""
    folder = run / "checkpoints" / f"{checkpoint.update:07d}"
    draft = folder.with_name(f"{folder.name}.part")
    try:
        if folder.is_dir():
            return folder  # this very update is already there, and whole
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        write_durably(draft / TENSORS, safetensors.torch.save(checkpoint.tensors))
        write_durably(draft / STATE, (json.dumps(checkpoint.state, indent=2) + "\n").encode())
        os.replace(draft, folder)
        _flush_folder(folder.parent)
        for old in _whole(run)[:-KEPT]:
            shutil.rmtree(old)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)  # a full disk is no place for half a checkpoint
        kept = f"; make room and continue with --resume {run}" if exists(run) else ""
        raise RunFailed(f"{unwritable(run, error).message}{kept}") from error
    return folder


def load(run: Path) -> Checkpoint:
    """The newest whole checkpoint of a run. Raises RunError if there is none or it cannot be read."""
    folders = _whole(run)
    if not folders:
        raise RunError(f"{run} has no checkpoint: it is no run, or was stopped before its first one")
    try:
        tensors = safetensors.torch.load_file(folders[-1] / TENSORS)
        state = json.loads((folders[-1] / STATE).read_bytes())
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise RunError(f"{folders[-1]} cannot be read ({error})") from error
    return Checkpoint(tensors, state)


def exists(run: Path) -> bool:
    """Whether a run has a checkpoint to continue from."""
    return bool(_whole(run))


def moments(optimizer: Optimizer, module: nn.Module) -> dict[str, Tensor]:
    """What an optimizer remembers of a module's parameters: "<parameter>.<moment>"."""
    return {
        f"{name}.{key}": value
        for name, parameter in module.named_parameters()
        for key, value in optimizer.state[parameter].items()
    }


def restore_moments(
    optimizer: Optimizer, module: nn.Module, saved: Mapping[str, Tensor], device: str
) -> None:
    """Remember these moments again."""
    for name, parameter in module.named_parameters():
        prefix = f"{name}."
        known = {key.removeprefix(prefix): value for key, value in saved.items() if key.startswith(prefix)}
        if known:
            # The step count stays on the CPU, as AdamW keeps it; the moments lie with the weights.
            optimizer.state[parameter] = {
                key: value if key == "step" else value.to(device) for key, value in known.items()
            }


@contextlib.contextmanager
def must_fit(run: Path) -> Iterator[None]:
    """Raises RunError where what a checkpoint holds is not what its run's configuration makes."""
    try:
        yield
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"the checkpoint in {run} does not fit its {CONFIG}: one of them is another run's or was edited"
        ) from error


def write_durably(path: Path, content: bytes) -> None:
    """Write a file and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def unwritable(path: Path, error: OSError) -> RunFailed:
    """The one line for a disk that is full or a folder that forbids writing."""
    return RunFailed(f"cannot write to {path}: {error.strerror or error}")


def _whole(run: Path) -> list[Path]:
    folder = run / "checkpoints"
    return sorted(path for path in folder.glob("*") if path.suffix != ".part") if folder.is_dir() else []


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
