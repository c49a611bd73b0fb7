"""A run's folder: configuration, provenance, metrics and checkpoints.

<run>/config.json   provenance.json   metrics.jsonl   checkpoints/
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from model.bundle import MANIFEST
from model.network.recurrent import RecurrentTransformer
from training import checkpoint
from training.config import TrainConfig, differences, flat, from_json, to_json
from training.errors import RunError

CONFIG = checkpoint.CONFIG
PROVENANCE, METRICS = "provenance.json", "metrics.jsonl"


def create(run: Path, config: TrainConfig, device: str, processes: int) -> None:
    """Make the folder of a new run. Raises RunError if it is taken, RunFailed if it cannot be written."""
    if (run / CONFIG).exists():
        if checkpoint.exists(run):
            further = f"continue it with --resume {run}, or choose another --out"
        else:
            further = "it has no checkpoint; remove it unless it is training now, or choose another --out"
        raise RunError(f"{run} holds a run already: {further}")
    try:
        run.mkdir(parents=True, exist_ok=True)
        checkpoint.write_durably(run / CONFIG, to_json(config).encode())
        facts = json.dumps(_provenance(device, processes), indent=2) + "\n"
        checkpoint.write_durably(run / PROVENANCE, facts.encode())
    except OSError as error:
        for name in (CONFIG, PROVENANCE):  # half a run would be in the way of the next
            with contextlib.suppress(OSError):
                (run / name).unlink()
        raise checkpoint.unwritable(run, error) from error


def read_config(run: Path) -> TrainConfig:
    """The configuration of a run. Raises RunError or ConfigError."""
    return from_json(_config_of(run))


def _config_of(run: Path) -> str:
    try:
        text = (run / CONFIG).read_text("utf-8")
    except OSError as error:
        raise RunError(f"{run} is not a run: {CONFIG} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise RunError(f"{run} is not a run: {CONFIG} is not text") from error
    if (run / MANIFEST).exists():
        raise RunError(f"{run} is a bundle, not a run: give the folder that fathom train wrote")
    return text


def check_same(run: Path, config: TrainConfig, besides: Collection[str] = ()) -> None:
    """Raises RunError, naming the fields, unless this is the configuration the run began with, as far as
    there were such fields; `besides` may differ.
    """
    if odd := [name for name in differences(_config_of(run), config) if name not in besides]:
        raise RunError(
            f"{run} was started with another {', '.join(odd)}; resume it unchanged or start a new run"
        )


def change(run: Path, config: TrainConfig, update: int) -> None:
    """Go on with another configuration from this update on; the provenance keeps what changed and when."""
    changed = {name: flat(config)[name] for name in differences(_config_of(run), config)}
    if not changed:
        return
    facts = read_provenance(run)
    facts["changes"] = [*facts.get("changes", []), {"update": update, **changed}]
    try:
        checkpoint.write_durably(run / PROVENANCE, (json.dumps(facts, indent=2) + "\n").encode())
        checkpoint.write_durably(run / CONFIG, to_json(config).encode())
    except OSError as error:
        raise checkpoint.unwritable(run, error) from error


def read_provenance(run: Path) -> dict[str, Any]:
    """How the run came about, and how long it has trained."""
    try:
        facts: dict[str, Any] = json.loads((run / PROVENANCE).read_bytes())
    except (OSError, ValueError) as error:
        raise RunError(f"{run / PROVENANCE} cannot be read ({error})") from error
    return facts


def read_network(run: Path) -> tuple[RecurrentTransformer, checkpoint.Checkpoint]:
    """The averaged weights of the newest checkpoint, as a network that is ready to answer."""
    saved = checkpoint.load(run)
    config = read_config(run)
    network = config.baseline.network(config.network)
    with checkpoint.must_fit(run):
        network.load_state_dict(saved.part("ema"))
    return network.eval(), saved


class Metrics:
    """metrics.jsonl: one object a line, appended as training goes."""

    def __init__(self, run: Path, from_update: int) -> None:
        """Lines after from_update, which a resumed run will write again, are dropped."""
        self._path = run / METRICS
        try:
            lines = self._path.read_text("utf-8", "replace").splitlines() if self._path.exists() else []
            kept = [line for line in lines if _update_of(line) <= from_update]
            draft = self._path.with_suffix(".part")
            checkpoint.write_durably(draft, "".join(f"{line}\n" for line in kept).encode())
            os.replace(draft, self._path)
        except OSError as error:
            raise checkpoint.unwritable(run, error) from error

    def write(self, facts: dict[str, float]) -> None:
        """Append one line. Raises RunFailed where the disk is full."""
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(facts) + "\n")
        except OSError as error:
            raise checkpoint.unwritable(self._path, error) from error


def _update_of(line: str) -> float:
    try:
        return float(json.loads(line)["update"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # a line that a kill cut short


def _provenance(device: str, processes: int) -> dict[str, Any]:
    return {
        "command": shlex.join(["fathom", *sys.argv[1:]]),
        "commit": _commit(),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "processes": processes,
        "torch": torch.__version__,
    }


def _commit() -> str | None:
    """The commit of this code, "+changes" behind it where files differ; None outside git."""
    root = Path(__file__).resolve().parent.parent
    ask = ("rev-parse", "HEAD"), ("status", "--porcelain", "--", "training", "model")
    try:
        commit, changes = (
            subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout
            for words in ask
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.strip() + ("+changes" if changes.strip() else "")
