"""Silent thinking: the network runs for some steps, and only what it says at the end is graded.

arXiv 2603.21676, section 3.4. Before each step noise falls on the state, so that what the network
carries from step to step must be restored at every step: an answer that survives this survives
hundreds of steps. (Without it the same network is at chance beyond a few times the trained hops.)

A late batch burns in while nothing is known yet, and learns what is given only then. Otherwise all
who have waited long in training are those whom no answer ever reaches, and a network learns to give
up on whoever has waited longer than the longest way it was trained on.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.perception import Context
from model.recurrent import RecurrentTransformer
from training.task import Batch, Task


@dataclass(frozen=True)
class Plan:
    """How one batch is thought about."""

    burn_in: int  # steps without gradient, first
    steps: int  # steps with gradient
    noise: float  # standard deviation
    rows: slice  # this process's rows of the whole batch
    late: bool = False  # burn in before anything is known


class Unrolled(nn.Module):
    """Network and task as one module whose forward is the loss, for DistributedDataParallel."""

    def __init__(
        self,
        network: RecurrentTransformer,
        task: Task,
        noise: torch.Generator,
        intermediate: float = 0.0,
        ponder: float = 0.0,
    ) -> None:
        """intermediate: weight of the answers on the way. ponder: of the steps until tokens halt."""
        super().__init__()
        self.network = network
        self._task = task
        self._noise = noise
        self._intermediate = intermediate
        self._ponder = ponder

    def forward(self, batch: Batch, whole: int, plan: Plan) -> tuple[Tensor, Tensor]:
        """The share that these rows have in a batch of `whole` rows: of the loss, and of its part for
        the last answer alone, without gradient; two scalars."""
        context, state = self.network.embed(batch.inputs)
        given, full = state, context
        if plan.late:
            state = self.network.blank(batch.inputs)
            context = full._replace(given=None, known=None)
        earlier = []
        for taken in range(plan.burn_in + plan.steps):
            depth = torch.full((state.shape[0],), taken, dtype=torch.int64, device=state.device)
            if plan.late and taken == plan.burn_in:
                state = torch.where(self.network.marked(batch.inputs), given, state)
                context = full
            with torch.set_grad_enabled(taken >= plan.burn_in):
                state = self.network.step(self._noisy(state, whole, plan), context, batch.inputs.mask, depth)
            if self._intermediate and plan.burn_in <= taken < plan.burn_in + plan.steps - 1:
                earlier.append(self._graded(state, context, batch))
        final = loss = self._graded(state, context, batch)
        if earlier:
            loss = loss + self._intermediate * torch.stack(earlier).mean()
        if self.network.time is not None:
            mask = batch.inputs.mask.to(state.dtype)
            mean = (self.network.time.ponder(state) * mask).sum(dim=1) / mask.sum(dim=1)
            loss = loss + self._ponder * mean.sum() / whole
        return loss, final.detach()

    def _graded(self, state: Tensor, context: Context, batch: Batch) -> Tensor:
        logits = self._task.logits(self.network, state, context).float()
        each = F.cross_entropy(logits.flatten(0, -2), batch.labels.flatten(), reduction="none")
        return (each * batch.weights.flatten()).sum()

    def _noisy(self, state: Tensor, whole: int, plan: Plan) -> Tensor:
        """Noise is drawn for the whole batch: any number of processes sees the same."""
        if plan.noise == 0:
            return state
        shape = (whole, *state.shape[1:])
        noise = torch.randn(shape, generator=self._noise, device=state.device, dtype=state.dtype)
        return state + plan.noise * noise[plan.rows]
