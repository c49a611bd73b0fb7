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

# Scores of a step that need nothing of the step before but the state.
LEAN_SCORES = ("confidence", "entropy", "latent_diff", "cosine", "learned", "known")


class ServedModel(nn.Module):
    """The methods of a bundle, on flat tuples of tensors, named by the tuples below.

    embed(*inputs) -> *context, *state, *memory
    step(*context, *state, *memory, depth) -> *state', *memory', logits (B, C), scores (B, S)
    lean(*context, *state, depth) -> *state', logits (B, C), scores (B, 1)
    """

    state = ("state",)
    memory = ("readout", "delta", "stability")

    def __init__(self, network: RecurrentTransformer, lean_score: str | None = None) -> None:
        """lean_score: one of LEAN_SCORES, which `lean` computes; without one there is no `lean`."""
        super().__init__()
        self.network = network
        self.lean_score = lean_score
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
        context = self._context(kept)
        following = self.network.step(state, context, mask, depth)
        logits = self.network.readout(following, context)
        columns = self._columns(context, mask, (state, following), delta, (readout, logits), stability)
        scores = torch.stack([columns[name] for name in self.scores], dim=-1)
        return following, logits, following - state, columns["argmax_stability"], logits, scores

    def lean(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """One step with the one score that rows halt on unless told otherwise; it needs no memory.

        Exporters leave out whatever the other scores would have needed.
        """
        assert self.lean_score in LEAN_SCORES, f"a lean step has no {self.lean_score}"
        *kept, mask, state, depth = tensors
        context = self._context(kept)
        following = self.network.step(state, context, mask, depth)
        logits = self.network.readout(following, context)
        still, moves = torch.zeros_like(logits[:, 0]), torch.zeros_like(state)
        columns = self._columns(context, mask, (state, following), moves, (logits, logits), still)
        return following, logits, columns[self.lean_score].unsqueeze(-1)

    def _context(self, kept: list[Tensor]) -> Context:
        return Context(**dict(zip(self.network.context, kept, strict=True)))

    def _columns(
        self,
        context: Context,
        mask: Tensor,
        states: tuple[Tensor, Tensor],
        delta: Tensor,
        readouts: tuple[Tensor, Tensor],
        stability: Tensor,
    ) -> dict[str, Tensor]:
        """Every score of a step by name, each (B,); states and readouts are those before it and after it."""
        (before, after), (readout, logits) = states, readouts
        confidence, entropy, entropy_diff, kl, stable_for = readout_scores(logits, readout, stability)
        moved, turned, changed = latent_scores(after, before, delta, mask)
        values = [confidence, entropy, entropy_diff, kl, moved, turned, changed, stable_for]
        columns = dict(zip(SCORES, values, strict=True))
        if self.network.halting is not None:
            columns["learned"] = torch.sigmoid(self.network.halting(after, before, context, mask))
        if self.network.perception.unknown is not None:
            columns["known"] = torch.softmax(logits, dim=-1)[:, self.network.perception.unknown]
        return columns
