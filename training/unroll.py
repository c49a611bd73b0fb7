"""Silent thinking: the network runs for some steps, and only what it says at the end is graded.

arXiv 2603.21676, section 3.4. Before each step noise falls on the state, so that what the network
carries from step to step must be restored at every step: an answer that survives this survives
hundreds of steps. (Without it the same network is at chance beyond a few times the trained hops.)

A late batch burns in while nothing is known yet, and learns what is given only then. Otherwise all
who have waited long in training are those whom no answer ever reaches, and a network learns to give
up on whoever has waited longer than the longest way it was trained on.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.perception import Context, Inputs
from model.network.recurrent import RecurrentTransformer, last
from training.task import Batch, Task


@dataclass(frozen=True)
class Rollout:
    """How one batch is thought about."""

    burn_in: int  # steps without gradient, first
    steps: int  # steps with gradient
    noise: float  # standard deviation
    rows: slice  # this process's rows of the whole batch
    unrest: float = 0.0  # weight of how far the counters are from whole moves


class Unrolled(nn.Module):
    """Network and task as one module whose forward is the loss, for DistributedDataParallel."""

    def __init__(
        self, network: RecurrentTransformer, task: Task, noise: torch.Generator, intermediate: float = 0.0
    ) -> None:
        """intermediate: weight of the answers on the way."""
        super().__init__()
        self.network = network
        self._task = task
        self._noise = noise
        self._intermediate = intermediate

    def forward(self, batch: Batch, whole: int, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """The share that these rows have in a batch of `whole` rows: of the loss, and of its part for
        the last answer that the curriculum goes by, without gradient; two scalars."""
        network, mask = self.network, batch.inputs.mask
        context, given = network.embed(batch.inputs)
        noisy = functools.partial(self._noisy, whole=whole, rollout=rollout)
        known, start = (context, given) if batch.earlier is None else network.embed(batch.earlier)
        before = batch.inputs if batch.earlier is None else batch.earlier
        with torch.no_grad():
            waited = last(network.walk(start, known, before.mask, rollout.burn_in, disturb=noisy))
        if batch.earlier is not None:
            waited = torch.where(_new(batch.inputs, batch.earlier), given, waited)
        earlier = []
        walk = network.walk(waited, context, mask, rollout.steps, rollout.burn_in, noisy)
        for taken, state in enumerate(walk):
            if self._intermediate and 0 < taken < rollout.steps:
                earlier.append((self._each(state, context, batch) * batch.weights.flatten()).sum())
        each = self._each(state, context, batch)
        loss = (each * batch.weights.flatten()).sum()
        final = loss if batch.watched is None else (each * batch.watched.flatten()).sum()
        if earlier:
            loss = loss + self._intermediate * torch.stack(earlier).mean()
        loss = loss + network.thinking_cost(state, mask) / whole
        if network.reader is not None and rollout.unrest:
            loss = loss + rollout.unrest * network.reader.unrest() * len(mask) / whole
        return loss, final.detach()

    def _each(self, state: Tensor, context: Context, batch: Batch) -> Tensor:
        """The cross-entropy of every question: (B Q,)."""
        logits = self._task.logits(self.network, state, context).float()
        return F.cross_entropy(logits.flatten(0, -2), batch.labels.flatten(), reduction="none")

    def _noisy(self, state: Tensor, whole: int, rollout: Rollout) -> Tensor:
        """Noise is drawn for the whole batch: any number of processes sees the same."""
        if rollout.noise == 0:
            return state
        shape = (whole, *state.shape[1:])
        noise = torch.randn(shape, generator=self._noise, device=state.device, dtype=state.dtype)
        return state + rollout.noise * noise[rollout.rows]


def _new(inputs: Inputs, earlier: Inputs) -> Tensor:
    """Which tokens were not there before, or something else: (B, N, 1) bool."""
    pairs = zip(inputs, earlier, strict=True)
    changed = [now != before for now, before in pairs if now.dim() == 2]  # of tokens, not pairs
    return torch.stack(changed).any(dim=0).unsqueeze(-1)
