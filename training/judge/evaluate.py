"""How well a model answers, by difficulty and steps, and how well it knows when to stop.

    evaluation.json   everything below in one file
    grid.csv          accuracy by split, difficulty and steps
    halting.csv       accuracy and mean steps by criterion, threshold and difficulty
    report.md         the tables of docs/results-tables.md and docs/halting.md (training/judge/report.py)
    *.png, *.svg      the pictures (training/judge/figures/)

Every figure comes from the model as it is served (training/judge/traces.py).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from model.bundle import CONFIG, WEIGHTS, read_bundle
from model.calibration import Calibration
from model.halting import HaltingRule
from model.network.config import RecurrentConfig
from model.network.recurrent import RecurrentTransformer
from training import checkpoint, run
from training.config import TASKS
from training.errors import RunError
from training.judge.backends import Backend, onnx_backend, torch_backend
from training.judge.bounds import lower_bound
from training.judge.calibrate import rules_for
from training.judge.oracle import SPARE, against_oracle
from training.judge.report import markdown
from training.judge.traces import Trace, trace
from training.recipes import task_read_by
from training.task import Problems, Task

SEED = 424_243  # of the evaluation split; nothing else draws from it
GONE = ("layers", "adaptive_time")  # of baselines, in bundles of before: none of which is one
DEFAULT_RULE = HaltingRule("latent_diff", 0.1)  # for a run; a bundle has its own
CONFIDENCE = 0.95  # of each bound in the report, one by one

Say = Callable[[str], None]


@dataclass(frozen=True)
class Subject:
    """What is evaluated: a run's or a bundle's network."""

    name: str
    network: RecurrentTransformer
    backend: Backend  # what runs it fastest here
    task: Task
    rule: HaltingRule
    trained_to: int | None  # the hardest difficulty in training
    calibration: Calibration | None = None  # a bundle's


@dataclass(frozen=True)
class EvaluationSize:
    """How much is measured: problems per bucket, and steps for the split that counts."""

    problems: int = 512
    steps: int = 256
    unusual: int = 100  # problems of each unusual kind


@dataclass(frozen=True)
class Evaluation:
    """The traces of an evaluation, by split and bucket, and the report made of them."""

    subject: Subject
    traces: dict[str, dict[int, Trace]]
    report: dict[str, Any]


def read_subject(path: Path) -> Subject:
    """A run's folder or a bundle's. Raises FathomError where it is neither."""
    if (path / run.CONFIG).exists() and (path / "checkpoints").exists():
        config = run.read_config(path)
        network, _ = run.read_network(path)
        backend = torch_backend(network, _device())
        return Subject(path.name, network, backend, config.task, DEFAULT_RULE, config.curriculum.end)
    if not (path / "manifest.json").exists():
        raise RunError(f"{path} is neither a run nor a bundle")
    bundle = read_bundle(path)
    config_text, weights = bundle.path(CONFIG).read_text("utf-8"), bundle.path(WEIGHTS)
    try:
        settings = {name: value for name, value in json.loads(config_text).items() if name not in GONE}
        network = RecurrentTransformer(RecurrentConfig(**settings))
        network.load_state_dict(safetensors.torch.load_file(weights))
    except (RuntimeError, TypeError, ValueError) as error:
        raise RunError(f"{path} holds another version of Fathom's network: export it again") from error
    manifest = bundle.manifest
    if manifest.task not in TASKS:
        raise RunError(f"{path} answers {manifest.task!r}; known are {', '.join(TASKS)}")
    end = manifest.training.get("config", {}).get("curriculum", {}).get("end")
    return Subject(
        f"{manifest.name}@{manifest.version}",
        network.eval(),
        onnx_backend(manifest, path) if _device() == "cpu" else torch_backend(network, _device()),
        task_read_by(network.config.perception, manifest.task),
        manifest.halting.rule(),
        end,
        manifest.calibration,
    )


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def evaluate(subject: Subject, size: EvaluationSize, say: Say) -> Evaluation:
    """Run every problem once and read every figure off the traces."""
    task = subject.task
    traces: dict[str, dict[int, Trace]] = {}
    seen: dict[str, dict[int, dict[str, Any]]] = {}
    for split in task.splits:
        traces[split], seen[split] = {}, {}
        for bucket in task.buckets:
            # The other splits show that the answer does not hang on how negatives are made: fewer steps do.
            steps = size.steps if split == task.splits[0] else min(size.steps, bucket + SPARE)
            rng = np.random.default_rng((SEED, bucket))
            problems = task.problems(rng, split, bucket, size.problems)
            traces[split][bucket] = trace(subject.backend, problems, steps)
            seen[split][bucket] = _seen(task, problems)
            reached = traces[split][bucket].accuracy(max(1, min(bucket, steps)))
            say(f"{split}, {bucket} {task.unit}: {reached:.2%} after as many steps")
    report = {
        "subject": subject.name,
        "unit": task.unit,
        "trained_to": subject.trained_to,
        "plan": asdict(size),
        "splits": {
            split: {
                str(bucket): {**_summary(traces[split][bucket], bucket), **seen[split][bucket]}
                for bucket in task.buckets
            }
            for split in task.splits
        },
        "halting": [_halting(rule, traces[task.splits[0]]) for rule in rules_for(subject.backend.scores)],
        "rule": asdict(subject.rule),
        "against_oracle": against_oracle(
            subject.rule, {bucket: traces[task.splits[0]][bucket] for bucket in task.calibrated}
        ),
        "unusual": _unusual(subject, size, say),
    }
    return Evaluation(subject, traces, report)


def write(evaluation: Evaluation, out: Path) -> None:
    """The report as JSON and CSV. Raises RunError where the folder cannot be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(evaluation.report, indent=2) + "\n"
        (out / "evaluation.json").write_text(text, encoding="utf-8")
        page = markdown(evaluation.report, evaluation.subject.calibration)
        (out / "report.md").write_text(page, encoding="utf-8")
        grid = [
            (split, bucket, steps, round(traced.accuracy(steps), 6), traced.problems)
            for split, buckets in evaluation.traces.items()
            for bucket, traced in buckets.items()
            for steps in range(1, traced.right.shape[1] + 1)
        ]
        unit = evaluation.subject.task.unit
        _write_csv(out / "grid.csv", ("split", unit, "steps", "accuracy", "problems"), grid)
        halting = [
            (entry["criterion"], entry["threshold"], entry["patience"], bucket, *figures.values())
            for entry in evaluation.report["halting"]
            for bucket, figures in entry["buckets"].items()
        ]
        header = ("criterion", "threshold", "patience", unit, "accuracy", "mean_steps")
        _write_csv(out / "halting.csv", header, halting)
    except OSError as error:
        raise checkpoint.unwritable(out, error) from error


def _seen(task: Task, problems: Problems) -> dict[str, Any]:
    """How long the problems are, and how far shortcuts get on them."""
    tokens = problems.inputs.mask.sum(dim=1)
    shortcuts = task.heuristics(problems)
    return {
        "tokens": [int(tokens.min()), int(tokens.max())],
        "heuristics": {name: round(value, 4) for name, value in shortcuts.items()},
    }


def _summary(traced: Trace, bucket: int) -> dict[str, Any]:
    limit = traced.right.shape[1]
    at = max(1, min(bucket, limit))  # a problem of no difficulty takes a step, too
    marks = {steps for steps in (8, 16, 32, 64, 128, 256, at, 2 * bucket, limit) if 0 < steps <= limit}
    final = traced.right[:, -1]
    return {
        "problems": traced.problems,
        "accuracy": {str(steps): round(traced.accuracy(steps), 6) for steps in sorted(marks)},
        "by_step": [round(float(share), 6) for share in traced.right.mean(axis=0)],  # after 1, 2, ... steps
        "accuracy_at_one_step_per_unit": round(traced.accuracy(at), 6),
        "at_least": _at_least(traced, at),
        "at_least_after_64": _at_least(traced, min(64, limit)),
        "oracle_steps": {
            "mean": round(float(traced.oracle().mean()), 3),
            "largest": int(traced.oracle()[final].max()) if final.any() else None,
        },
    }


def _at_least(traced: Trace, steps: int) -> float:
    return round(lower_bound(int(traced.right[:, steps - 1].sum()), traced.problems, 1 - CONFIDENCE), 4)


def _halting(rule: HaltingRule, traces: dict[int, Trace]) -> dict[str, Any]:
    buckets = {}
    for bucket, traced in traces.items():
        right, depths = traced.halted(rule)
        buckets[str(bucket)] = {
            "accuracy": round(float(right.mean()), 6),
            "mean_steps": round(float(depths.mean()), 3),
        }
    return {**asdict(rule), "buckets": buckets}


def _unusual(subject: Subject, size: EvaluationSize, say: Say) -> dict[str, Any]:
    report = {}
    rng = np.random.default_rng(SEED)
    for kind, problems in subject.task.unusual(rng, size.unusual).items():
        steps = problems.difficulty + SPARE
        traced = trace(subject.backend, problems, steps)
        right, depths = traced.halted(subject.rule)
        report[kind] = {
            "problems": traced.problems,
            "steps": steps,
            "longest": problems.inputs.mask.shape[1],
            "first_class": round(float((problems.labels == 0).float().mean()), 4),
            "accuracy": round(traced.accuracy(steps), 6),
            "accuracy_halting": round(float(right.mean()), 6),
            "mean_steps": round(float(depths.mean()), 3),
            "most_steps": int(depths.max()),
        }
        say(f"{kind}: {traced.accuracy(steps):.2%}, halting by itself {right.mean():.2%}")
    return report


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
