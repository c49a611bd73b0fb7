"""The halting head's lesson: after everything else, alone, on a network that no longer changes.

It learns to tell after every step whether the answer is right by now and stays right, as the early-exit
classifier of CALM does (arXiv 2207.07061, section 3.5; there: whether it is the last layer's answer).
Only trained difficulties are shown; whether it knows when to stop beyond them is what the evaluation
asks. PonderNet's loss (arXiv 2107.05407) was tried first: docs/halting.md.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.network.recurrent import RecurrentTransformer
from training import checkpoint
from training.config import TrainConfig
from training.parallel import World
from training.task import Problems


class HeadTrainer:
    """Teaches the halting head of a network whose other weights stay as they are."""

    def __init__(self, config: TrainConfig, network: RecurrentTransformer, world: World, device: str) -> None:
        assert network.halting is not None, "there is a head to teach"
        self._config, self._network, self._world, self._device = config, network, world, device
        self._head = network.halting
        self.optimizer = torch.optim.AdamW(self._head.parameters(), weight_decay=config.weight_decay)

    def update(self, numbers: np.random.Generator, done: int) -> float:
        """One step of the optimizer after `done` others, on problems of one trained difficulty; the loss.

        Raises FloatingPointError, before the step, where the loss is no number.
        """
        config, task = self._config, self._config.task
        difficulty = int(numbers.integers(config.curriculum.start, config.curriculum.end + 1))
        whole = config.batch + config.batch % 2
        problems = task.problems(numbers, task.splits[0], difficulty, whole)
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * 0.5 * (1 + math.cos(math.pi * done / config.head_updates))
        # Twice the steps of the hardest: most have settled by then, the others have to be told apart.
        stops, stays = self._think(problems, self._world.rows(whole), 2 * config.steps(config.curriculum.end))
        each = F.binary_cross_entropy_with_logits(stops, stays, reduction="none").mean(dim=0)
        share = each.sum() / whole
        self.optimizer.zero_grad()
        share.backward()  # type: ignore[no-untyped-call]
        for parameter in self._head.parameters():
            if parameter.grad is not None:
                self._world.total(parameter.grad)
        loss = float(self._world.total(share.detach()))
        if not math.isfinite(loss):
            raise FloatingPointError(f"the halting head's loss is {loss}")
        self.optimizer.step()
        return loss

    def state(self) -> dict[str, Tensor]:
        """The optimizer's moments, by parameter and name."""
        return checkpoint.moments(self.optimizer, self._head)

    def restore(self, state: dict[str, Tensor]) -> None:
        """Continue with these moments."""
        checkpoint.restore_moments(self.optimizer, self._head, state, self._device)

    def _think(self, problems: Problems, rows: slice, steps: int) -> tuple[Tensor, Tensor]:
        """What the head says after every step, and whether the answer is right from there on: (T, B) each."""
        network = self._network
        inputs = type(problems.inputs)(*(tensor[rows].to(self._device) for tensor in problems.inputs))
        labels = problems.labels[rows].to(self._device)
        with torch.no_grad():
            context, start = network.embed(inputs)
            states = list(network.walk(start, context, inputs.mask, steps))
            right = [network.readout(state, context).argmax(dim=-1) == labels for state in states[1:]]
        stops = [
            self._head(state, previous, context, inputs.mask)
            for previous, state in itertools.pairwise(states)
        ]
        return torch.stack(stops), stays_right(torch.stack(right)).to(stops[0].dtype)


def stays_right(right: Tensor) -> Tensor:
    """Whether an answer is right after a step and all later ones: (T, B) bool -> (T, B) bool."""
    return right.int().flip(0).cumprod(dim=0).flip(0).bool()
