"""Carrying an experiment out: train what is not trained yet, measure it, write what came of it.

    OUT/runs/<variant>-<seed>/     a run like any other, and measured.json beside its checkpoints
    OUT/<experiment>/              results.json, table.md, figure.png

Whatever is finished is not done again: stop it anywhere, call it again, and it goes on. A run that was
trained elsewhere with the same configuration is one that is finished. The results are written anew after
every seed, so that there is something to read long before the end.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import active_children, get_context
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import torch
from rich.console import Console

from model.network.recurrent import RecurrentTransformer, last
from training import checkpoint, run
from training.config import TASKS, TrainConfig, as_dict, differences
from training.errors import Interrupted, RunError
from training.fit import device_of, fit
from training.judge.backends import torch_backend
from training.judge.traces import trace
from training.paper.baselines import AdaptiveTransformer
from training.paper.experiment import Experiment, HeldOut, Progression, Variant
from training.task import Problems, Task

SEED = 515_151  # of the problems that are measured; every run sees the same
MEASURED, PROCESSOR = "measured.json", "processor.json"
SHORTCUT_PROBLEMS = 1000
ROWS = 64  # that are run together

Say = Callable[[str], None]
Facts = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One variant with one seed."""

    variant: Variant
    seed: int  # the first of an experiment is that of the variant's configuration
    held_out: HeldOut
    folder: Path

    @property
    def config(self) -> TrainConfig:
        return replace(self.variant.config, seed=self.seed, data_seed=self.seed)


def reproduce(
    experiment: Experiment | Progression, out: Path, seeds: int, jobs: int, say: Say, train: bool = True
) -> Path:
    """Every variant with so many seeds, seed by seed; returns the folder of the results.

    train=False takes the runs that are finished and leaves out what has none. Raises FathomError where a
    folder holds something else or cannot be written, or nothing is finished, and Interrupted where a
    signal stopped the training.
    """
    from training.paper.tables import write_results

    parts = experiment.domains if isinstance(experiment, Progression) else (experiment,)
    measured: dict[str, dict[str, list[Facts]]] = {part.name: {} for part in parts}
    where = out / experiment.name
    for turn in range(seeds):
        work = [
            (part.name, Job(variant, seed, part.held_out, out / "runs" / f"{variant.folder}-{seed}"))
            for part in parts
            for variant in part.variants
            for seed in (variant.config.seed + turn,)
        ]
        work = [(part, job) for part, job in work if train or _is_finished(job)]
        for (part, job), facts in zip(work, _done([job for _, job in work], jobs, say), strict=True):
            measured[part].setdefault(job.variant.name, []).append(facts)
        if not any(measured.values()):
            raise RunError(f"{out / 'runs'} holds no finished run of {experiment.name}: train them first")
        if work:
            write_results(experiment, measured, where)
            say(f"wrote {where}: results.json, table.md and figure.png after {turn + 1} seeds")
    return where


def _done(work: list[Job], jobs: int, say: Say) -> Iterator[Facts]:
    if jobs == 1:
        for job in work:
            say(f"{job.variant.name}, seed {job.seed}")
            yield measured_run(job)
        return
    with (
        ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool,
        ThreadPoolExecutor(jobs) as turns,  # jobs wait here: one that waits in a worker cannot be called off
    ):
        stopped = Event()

        def turn(job: Job) -> Facts:
            if stopped.is_set():
                raise Interrupted(f"{job.folder}: not begun")
            try:
                return pool.submit(measured_run, job).result()
            except BaseException:
                stopped.set()  # before this thread looks for the next job
                raise

        try:
            found = turns.map(turn, work)
            for job, facts in zip(work, found, strict=True):
                say(f"{job.variant.name}, seed {job.seed}: done")
                yield facts
        except BaseException:
            turns.shutdown(wait=False, cancel_futures=True)
            for worker in active_children():
                worker.terminate()  # one that trains finishes its update, and saves
            raise


def measured_run(job: Job) -> Facts:
    """Train and measure, or only what of it is missing."""
    held_out = json.loads(json.dumps(asdict(job.held_out)))
    place = job.folder / MEASURED
    known: list[Facts] = json.loads(place.read_text("utf-8")) if place.exists() else []
    if not isinstance(known, list) or any(
        differences(json.dumps(facts["config"]), job.config) for facts in known
    ):
        raise RunError(f"{place} is of another experiment: remove {job.folder} or choose another --out")
    for facts in known:
        if facts["measure"] == held_out:
            return {**facts, "config": as_dict(job.config)}
    _train(job)
    network, saved = run.read_network(job.folder)
    seconds = round(float(saved.state["seconds"]), 1)
    found = {
        "config": as_dict(job.config),
        "measure": held_out,
        "seed": job.seed,
        "updates": saved.update,
        "reached": saved.state["curriculum"]["difficulty"],
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "processor_seconds": round(_processor_seconds(job.folder), 1)
        or seconds,  # trained elsewhere: by the clock
        "seconds": seconds,
        "commit": run.read_provenance(job.folder)["commit"],
        **_measure(network.to(device_of(job.config)), job),
    }
    _write(place, [*known, found])
    return found


def _train(job: Job) -> None:
    """Begin, continue, or find that there is nothing left to do."""
    config, resume = job.config, checkpoint.exists(job.folder)
    if resume:  # how often it saved, and on how many threads, changes no result
        run.check_same(job.folder, config, ("checkpoint_every", "threads"))
        config = run.read_config(job.folder)
        if _is_finished(job):
            return
    elif (job.folder / run.CONFIG).exists():
        shutil.rmtree(job.folder)  # stopped before its first checkpoint
    before, spent = time.process_time(), _processor_seconds(job.folder)
    try:
        fit(config, job.folder, resume, Console(quiet=True), True)
    except Interrupted as error:
        raise Interrupted(f"{job.folder}: stopped; the same command goes on from there") from error
    finally:
        _write(job.folder / PROCESSOR, {"seconds": spent + time.process_time() - before})


def _is_finished(job: Job) -> bool:
    return checkpoint.exists(job.folder) and checkpoint.load(job.folder).update == job.config.all_updates


def _processor_seconds(folder: Path) -> float:
    place = folder / PROCESSOR
    return float(json.loads(place.read_text("utf-8"))["seconds"]) if place.exists() else 0.0


def _measure(network: RecurrentTransformer, job: Job) -> Facts:
    """Accuracy after 1, 2, ... steps by split and difficulty; how long tokens think, where they decide."""
    task, held_out, device = job.config.task, job.held_out, device_of(job.config)
    accuracy: Facts = {}
    ponder: Facts = {}
    for split, buckets in held_out.splits.items():
        accuracy[split] = {}
        for bucket in buckets:
            problems = _problems(task, split, bucket, held_out.problems)
            traced = trace(torch_backend(network, device), problems, held_out.longest)
            accuracy[split][str(bucket)] = [round(float(at), 4) for at in traced.right.mean(axis=0)]
            if isinstance(network, AdaptiveTransformer):
                ponder[str(bucket)] = round(steps_taken(network, problems, held_out.longest, device), 3)
    return {"accuracy": accuracy, "ponder": ponder}


@torch.inference_mode()
def steps_taken(network: AdaptiveTransformer, problems: Problems, limit: int, device: str) -> float:
    """Mean over tokens of the steps they take before they halt by themselves, at most `limit`."""
    taken = tokens = 0.0
    for start in range(0, len(problems.labels), ROWS):
        inputs = type(problems.inputs)(*(part[start : start + ROWS].to(device) for part in problems.inputs))
        context, state = network.embed(inputs)
        state = last(network.walk(state, context, inputs.mask, limit))
        taken += float((network.time.steps(state) * inputs.mask).sum())
        tokens += float(inputs.mask.sum())
    return taken / tokens


def shortcuts(out: Path, problems: int, say: Say, hardest: int = 64) -> Path:
    """What a glance gives away, on every task's evaluation splits up to a difficulty; nothing is trained."""
    from training.paper.figures import draw_shortcuts
    from training.paper.tables import shortcut_table, write_files

    found: Facts = {}
    for name, kind in TASKS.items():
        task: Task = kind()
        found[name] = {"unit": task.unit, "splits": {}}
        for split in task.splits:
            say(f"{name}, {split}")
            found[name]["splits"][split] = {
                str(bucket): {
                    shortcut: round(right, 4)
                    for shortcut, right in task.heuristics(_problems(task, split, bucket, problems)).items()
                }
                for bucket in task.buckets
                if 0 < bucket <= hardest
            }
    where = out / "shortcuts"
    report = {"experiment": "shortcuts", "problems": problems, "tasks": found}
    write_files(where, report, shortcut_table, draw_shortcuts)
    say(f"wrote {where}: results.json, table.md and figure.png")
    return where


def _problems(task: Task, split: str, bucket: int, count: int) -> Problems:
    return task.problems(np.random.default_rng((SEED, bucket)), split, bucket, count)


def _write(path: Path, facts: Facts | list[Facts]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.write_durably(path, (json.dumps(facts, indent=1) + "\n").encode())
    except OSError as error:
        raise checkpoint.unwritable(path, error) from error
