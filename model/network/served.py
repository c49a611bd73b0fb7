"""The model as it is served: the network plus the scores every halting criterion needs.

A step of a served model maps context, state and memory to the next state and memory, the logits
and all scores. The memory is what the scores remember of the step before: the previous readout,
the previous movement, and for how long the answer has stood. Exported graphs, evaluation and
calibration all run this module, so what is measured in training is what is served.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.network.perception import Context
from model.network.recurrent import RecurrentTransformer
from model.network.scores import SCORES, latent_scores, readout_scores


class ServedModel(nn.Module):
    """The two methods of a bundle, on flat tuples of tensors, named by the tuples below.

    embed(*inputs) -> *context, *state, *memory
    step(*context, *state, *memory, depth) -> *state', *memory', logits (B, C), scores (B, S)
    """

    state = ("state",)
    memory = ("readout", "delta", "stability")

    def __init__(self, network: RecurrentTransformer) -> None:
        super().__init__()
        self.network = network
        self.inputs = network.perception.inputs._fields
        self.context = (*network.context, "real")
        learned = ("learned",) if network.halting is not None else ()
        known = ("known",) if network.perception.unknown is not None else ()
        self.scores = (*SCORES, *learned, *known)

    def embed(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Codec tensors -> context, state before the first step, memory before the first step."""
        problem = self.network.perception.inputs(*inputs)
        context, state = self.network.embed(problem)
        readout = self.network.readout(state, context)
        still = torch.zeros_like(readout[:, 0])
        kept = [getattr(context, name) for name in self.network.context]
        return (*kept, problem.mask, state, readout, torch.zeros_like(state), still)

    def step(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """One step with everything a halting decision needs; the columns of the scores are self.scores."""
        *kept, mask, state, readout, delta, stability, depth = tensors  # the mask is called `real` by now
        context = Context(**dict(zip(self.network.context, kept, strict=True)))
        following = self.network.step(state, context, mask, depth)
        logits = self.network.readout(following, context)
        confidence, entropy, entropy_diff, kl, stable_for = readout_scores(logits, readout, stability)
        moved, turned, changed = latent_scores(following, state, delta, mask)
        columns = [confidence, entropy, entropy_diff, kl, moved, turned, changed, stable_for]
        if self.network.halting is not None:
            columns.append(torch.sigmoid(self.network.halting(following, state, context, mask)))
        if self.network.perception.unknown is not None:
            columns.append(torch.softmax(logits, dim=-1)[:, self.network.perception.unknown])
        scores = torch.stack(columns, dim=-1)
        return following, logits, following - state, stable_for, logits, scores
