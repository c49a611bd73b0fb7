"""The training loop: draw a batch, think silently, grade the end, average the weights, save.

The recipe and what each part of it buys is in docs/training.md. Everything random comes from
generators whose state is in the checkpoint, and nothing depends on the clock, so a run that was
stopped and resumed ends with the same weights, bit for bit on a CPU, as one that never stopped.
"""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from training import checkpoint
from training.ahead import Ahead, draw
from training.checkpoint import Checkpoint
from training.config import TrainConfig
from training.curriculum import Curriculum
from training.errors import ConfigError, Interrupted, RunFailed
from training.halting_head import HeadTrainer
from training.judge.traces import accuracy_at
from training.parallel import World
from training.progress import Display
from training.run import Metrics
from training.task import Batch
from training.unroll import Rollout, Unrolled

LOG_EVERY = 50  # updates
PROBE_PROBLEMS, PROBE_SEED = 64, 1_000_003


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    updates: int
    seconds: float
    accuracy: float  # on the probe


class Trainer:
    """One run on one process; under torchrun every process has one and they move in step."""

    def __init__(self, config: TrainConfig, run: Path, world: World, device: str) -> None:
        if config.batch < world.size:
            raise ConfigError(f"batch {config.batch} is smaller than the number of processes, {world.size}")
        self.config, self.run, self.world, self.device = config, run, world, device
        torch.manual_seed(config.seed)
        self.network = config.baseline.network(config.network).to(device)
        self.averaged = config.baseline.network(config.network).to(device).eval()
        self.averaged.load_state_dict(self.network.state_dict())
        self.noise = torch.Generator(device).manual_seed(config.seed)
        self.numbers = np.random.default_rng(config.data_seed)
        self.curriculum = Curriculum.start(config.curriculum)
        self.ahead = Ahead(config) if config.prefetch else None
        self.optimizer = torch.optim.AdamW(self._groups(), lr=config.learning_rate)
        halting = config.network.halting_head
        self.head = HeadTrainer(config, self.averaged, world, device) if halting else None
        self.updates = 0
        self.seconds = 0.0
        unrolled = Unrolled(self.network, config.task, self.noise, config.intermediate)
        # With burn-in the embedding gets no gradient; DistributedDataParallel wants to be told.
        self._loss: nn.Module = (
            DistributedDataParallel(unrolled, find_unused_parameters=True) if world.size > 1 else unrolled
        )

    def _groups(self) -> list[dict[str, Any]]:
        """The weights, and at what rate they learn: what a token is may be learned faster than all else."""
        reader = self.network.reader
        fast = [] if reader is None else [reader.embedding.weight]
        if reader is not None and reader.counters is not None:
            fast.append(reader.counters.moves.weight)
        chosen = {id(parameter) for parameter in fast}
        others = [parameter for parameter in self.network.parameters() if id(parameter) not in chosen]
        groups = [{"params": others, "rate": 1.0, "weight_decay": self.config.weight_decay}]
        if fast:
            groups.append({"params": fast, "rate": self.config.token_rate, "weight_decay": 0.0})
        return groups

    def train(self, console: Console, silent: bool = False) -> Outcome:
        """Train to the last update. Raises Interrupted on SIGINT or SIGTERM, after saving, and RunFailed
        where the loss or its gradient is no number any more: then nothing of that update is kept.
        """
        config, leads = self.config, self.world.leads
        metrics = Metrics(self.run, self.updates) if leads else None
        accuracy: float | None = None
        with Display(config, console, silent or not leads) as display, _stop_signals() as stop:
            since = time.monotonic()
            while self.updates < config.all_updates:
                try:
                    facts = self.update() if self.updates < config.updates else self.teach()
                except FloatingPointError as error:
                    raise self._diverged(error) from error
                now = time.monotonic()
                self.seconds, since = self.seconds + now - since, now
                display.updated(self.updates, self.curriculum)
                if metrics and self.updates % LOG_EVERY == 0:
                    metrics.write({**facts, "seconds": round(self.seconds, 1)})
                if self.updates % config.checkpoint_every == 0 or self.updates == config.all_updates:
                    self.save()
                    if leads:
                        accuracy = self._probe()
                        display.probed(self.updates, self.curriculum, accuracy, self.seconds)
                if self._any(bool(stop)):
                    self.save()
                    raise Interrupted(
                        f"stopped after {self.updates} updates; continue with --resume {self.run}"
                    )
            if accuracy is None:  # nothing was left to do, or another process has measured it
                accuracy = self._probe() if leads else 0.0
        return Outcome(self.updates, self.seconds, accuracy)

    def close(self) -> None:
        """End the process that draws ahead, if there is one. Harmless when repeated."""
        if self.ahead:
            self.ahead.close()

    def save(self) -> None:
        """Write a checkpoint, on the first process."""
        if self.world.leads:
            checkpoint.save(self.run, self._checkpoint())

    def restore(self, saved: Checkpoint) -> None:
        """Become what the checkpoint holds. Raises RunError where that is not of this configuration."""
        with checkpoint.must_fit(self.run):
            self._restore(saved)

    def _restore(self, saved: Checkpoint) -> None:
        state = saved.state
        self.network.load_state_dict(saved.part("model"))
        self.averaged.load_state_dict(saved.part("ema"))
        checkpoint.restore_moments(self.optimizer, self.network, saved.part("optimizer"), self.device)
        if self.head:
            self.head.restore(saved.part("head"))
        self.noise.set_state(saved.tensors["rng.noise"])
        torch.set_rng_state(saved.tensors["rng.cpu"])
        if "rng.cuda" in saved.tensors and self.device == "cuda":
            torch.cuda.set_rng_state(saved.tensors["rng.cuda"])
        self.numbers.bit_generator.state = state["numbers"]
        self.curriculum = Curriculum(self.config.curriculum, **state["curriculum"])
        self.updates, self.seconds = saved.update, float(state["seconds"])
        if self.ahead:
            self.ahead.resume(self.updates, state["asked"])

    def update(self) -> dict[str, float]:
        """One step of the optimizer; what happened, for the metrics."""
        config, curriculum = self.config, self.curriculum
        batch, rollout = self.draw()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, self.updates) * group["rate"]
        self.optimizer.zero_grad()
        with torch.autocast(self.device, torch.bfloat16, enabled=_bfloat16(config, self.device)):
            share, final = self._loss(batch.rows(rollout.rows).to(self.device), config.batch, rollout)
        (share * self.world.size).backward()  # gradients are averaged over processes; shares add up
        norm = float(nn.utils.clip_grad_norm_(self.network.parameters(), config.clip))
        loss = float(self.world.total(final))  # of the answer: what the curriculum goes by
        if not math.isfinite(norm) or not math.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss} and its gradient's norm {norm}")
        self.optimizer.step()
        self._average()
        self.updates += 1
        if batch.watched is None or bool(batch.watched.any()):
            curriculum.observe(self.updates, loss)
        return {
            "update": self.updates,
            "loss": loss,
            "running_loss": curriculum.loss,
            "difficulty": curriculum.difficulty,
            "burn_in": curriculum.burn_in,
            "gradient_norm": norm,
            "learning_rate": learning_rate(config, self.updates - 1),
        }

    def _diverged(self, error: FloatingPointError) -> RunFailed:
        """What to do about a loss that is no number, from the last checkpoint on if there is one."""
        less = f"--set learning_rate={self.config.learning_rate / 2:g}"
        again = f"remove {self.run} and begin again with {less}"
        if checkpoint.exists(self.run):
            again = f"continue from the last checkpoint with --resume {self.run} {less}"
        return RunFailed(f"{error} at update {self.updates + 1}; {again}")

    def draw(self) -> tuple[Batch, Rollout]:
        """Problems, for how long each phase of thinking about them lasts, and what is graded then."""
        config = self.config
        if self.ahead is None:
            drawn = draw(config, self.curriculum, self.numbers)
        else:
            drawn = self.ahead.next(self.updates, self.curriculum)
        ramp = min(1.0, self.updates / max(1, config.noise_ramp))
        rest = min(1.0, 0.1 + max(0, self.updates - config.unrest_from) / 300)
        rows, unrest = self.world.rows(config.batch), config.unrest * rest
        return drawn.batch, Rollout(drawn.burn_in, drawn.steps, config.noise * ramp, rows, unrest)

    def teach(self) -> dict[str, float]:
        """One update of the halting head on the averaged weights, which are what is exported."""
        assert self.head is not None, "only a network with a head has updates left"
        loss = self.head.update(self.numbers, self.updates - self.config.updates)
        self.updates += 1
        return {"update": self.updates, "halting_loss": loss}

    @torch.no_grad()
    def _average(self) -> None:
        """Exponential moving average of the weights; the plain weights early on, so that it starts near."""
        decay = min(self.config.ema, (1 + self.updates) / (10 + self.updates))
        for average, current in zip(self.averaged.parameters(), self.network.parameters(), strict=True):
            average.lerp_(current, 1 - decay)

    def _probe(self) -> float:
        """Accuracy far beyond the trained difficulty, after as many steps as training would give it, one
        per unit at least; draws from nothing shared.
        """
        task = self.config.task
        rng = np.random.default_rng(PROBE_SEED)
        problems = task.problems(rng, task.splits[0], task.probe, PROBE_PROBLEMS)
        steps = max(task.probe, self.config.steps(task.probe))
        return accuracy_at(self.averaged, problems, steps, self.device)

    def _any(self, flag: bool) -> bool:
        """Whether any process says so: all must stop at the same update."""
        return bool(self.world.total(torch.tensor(float(flag), device=self.device)))

    def _checkpoint(self) -> Checkpoint:
        tensors = {
            "rng.noise": self.noise.get_state(),
            "rng.cpu": torch.get_rng_state(),
            **({"rng.cuda": torch.cuda.get_rng_state()} if self.device == "cuda" else {}),
        }
        for prefix, network in (("model", self.network), ("ema", self.averaged)):
            tensors.update({f"{prefix}.{name}": value for name, value in network.state_dict().items()})
        remembered = {"optimizer": checkpoint.moments(self.optimizer, self.network)}
        if self.head:
            remembered["head"] = self.head.state()
        for prefix, moments in remembered.items():
            tensors.update({f"{prefix}.{name}": value for name, value in moments.items()})
        state: dict[str, Any] = {
            "update": self.updates,
            "seconds": self.seconds,
            "curriculum": {
                "difficulty": self.curriculum.difficulty,
                "burn_in": self.curriculum.burn_in,
                "loss": self.curriculum.loss,
            },
            "numbers": self.numbers.bit_generator.state,
            **({"asked": self.ahead.asked} if self.ahead else {}),
        }
        return Checkpoint({name: value.detach().cpu() for name, value in tensors.items()}, state)


def learning_rate(config: TrainConfig, update: int) -> float:
    """Linear warm-up, then a cosine to zero over all updates."""
    warm = min(1.0, (update + 1) / config.warmup) if config.warmup else 1.0
    return config.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * update / config.updates))


def _bfloat16(config: TrainConfig, device: str) -> bool:
    if config.precision == "auto":
        return device == "cuda" and torch.cuda.is_bf16_supported()
    return config.precision == "bfloat16"


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying of them; a second one is as deadly as ever."""
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  the signature is Python's
        received.append(number)
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, stop)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
