"""The halting head's lesson: after everything else, alone, on a network that no longer changes.

The loss is PonderNet's (arXiv 2107.05407, section 2.3): stopping after step t has probability
p_t = h_t prod_(s<t) (1 - h_s), h_t being what the head says; what is paid is the expected loss of the
answer at which it stops, plus a little of the divergence of p from a geometric distribution, without
which it would never pay to stop. Only trained difficulties are shown: whether the head knows when to
stop beyond them is what the evaluation asks.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.recurrent import RecurrentTransformer
from training.config import TrainConfig
from training.parallel import World
from training.task import Problems

PULL = 0.01  # weight of the divergence; PonderNet's beta


class HeadTrainer:
    """Teaches the halting head of a network whose other weights stay as they are."""

    def __init__(
        self, config: TrainConfig, network: RecurrentTransformer, world: World, device: str
    ) -> None:
        assert network.halting is not None, "there is a head to teach"
        self._config, self._network, self._world, self._device = config, network, world, device
        self._head = network.halting
        self.optimizer = torch.optim.AdamW(self._head.parameters(), weight_decay=config.weight_decay)

    def update(self, numbers: np.random.Generator, done: int) -> dict[str, float]:
        """One step of the optimizer after `done` others; what happened, for the metrics."""
        config, task = self._config, self._config.task
        hardest = config.curriculum.end
        difficulty = int(numbers.integers(config.curriculum.start, hardest + 1))
        whole = config.batch + config.batch % 2
        drawn = task.problems(numbers, task.splits[0], difficulty, whole)
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * 0.5 * (1 + math.cos(math.pi * done / config.head_updates))
        # Twice the steps of the hardest: it has to be possible to stop too late.
        stops, losses = self._think(drawn, self._world.rows(whole), 2 * config.steps(hardest))
        each, steps = ponder_loss(stops, losses, 1 / (1 + config.steps(hardest)))
        self.optimizer.zero_grad()
        (each.sum() / whole).backward()
        for parameter in self._head.parameters():
            if parameter.grad is not None:
                self._world.total(parameter.grad)
        self.optimizer.step()
        loss, mean_steps = self._world.total(torch.stack((each.sum(), steps.sum())).detach() / whole).tolist()
        return {"halting_loss": loss, "halting_steps": mean_steps}

    def state(self) -> dict[str, Tensor]:
        """The optimizer's moments, by parameter and name."""
        return {
            f"{name}.{key}": value
            for name, parameter in self._head.named_parameters()
            for key, value in self.optimizer.state[parameter].items()
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Continue with these moments; the step count stays on the CPU, as AdamW keeps it."""
        for name, parameter in self._head.named_parameters():
            prefix = f"{name}."
            moments = {key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)}
            if moments:
                self.optimizer.state[parameter] = {
                    key: value if key == "step" else value.to(self._device) for key, value in moments.items()
                }

    def _think(self, problems: Problems, rows: slice, steps: int) -> tuple[Tensor, Tensor]:
        """What the head says and what the answer would cost after every step: (T, B) each."""
        network = self._network
        inputs = type(problems.inputs)(*(tensor[rows].to(self._device) for tensor in problems.inputs))
        labels = problems.labels[rows].to(self._device)
        with torch.no_grad():
            context, state = network.embed(inputs)
        stops, losses = [], []
        for taken in range(steps):
            depth = torch.full((len(labels),), taken, dtype=torch.int64, device=self._device)
            with torch.no_grad():
                state = network.step(state, context, inputs.mask, depth)
                losses.append(F.cross_entropy(network.readout(state, context), labels, reduction="none"))
            stops.append(self._head(state, context, inputs.mask))
        return torch.stack(stops), torch.stack(losses)


def ponder_loss(stops: Tensor, losses: Tensor, prior: float) -> tuple[Tensor, Tensor]:
    """PonderNet's loss and the expected number of steps, both (B,).

    stops (T, B): logits of stopping after each step. losses (T, B): of the answer then. prior: the
    geometric distribution's chance of stopping. Whoever has not stopped before stops at the last step.
    """
    log_p = _halting(F.logsigmoid(stops), F.logsigmoid(-stops))
    rate = torch.full_like(stops, prior)
    log_prior = _halting(rate.log(), (1 - rate).log())
    p = log_p.exp()
    along = torch.arange(1, len(stops) + 1, device=stops.device, dtype=stops.dtype).unsqueeze(1)
    return (p * (losses + PULL * (log_p - log_prior))).sum(dim=0), (p * along).sum(dim=0)


def _halting(log_stop: Tensor, log_go: Tensor) -> Tensor:
    """log p_t of stopping exactly after step t, all the rest falling to the last one: (T, B)."""
    before = torch.cat((torch.zeros_like(log_go[:1]), log_go[:-1].cumsum(dim=0)))
    return torch.cat(((log_stop + before)[:-1], before[-1:]))
