"""Train the prefix sums on one core, on at most 32 bits.

OMP_NUM_THREADS=1 python -m examples.prefix_sums.train --out prefix_sums.safetensors
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from torch import Tensor

from examples.common import save
from examples.prefix_sums.model import PrefixSums
from examples.prefix_sums.problems import rows

BATCH = 64
LONGEST = 32  # bits
RATE = 3e-3
NOISE = 0.1  # on the state before each step: what is learnt must hold it in place
LEARNT = 0.1  # loss below which rows get longer


def main(
    out: Annotated[Path, typer.Option(help="the checkpoint to write")] = Path("prefix_sums.safetensors"),
    seed: Annotated[int, typer.Option(help="of bits, weights and noise")] = 0,
    updates: Annotated[int, typer.Option(min=10)] = 500,
) -> None:
    """Train, and write the weights as safetensors."""
    torch.manual_seed(seed)
    model = PrefixSums()
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=1e-4)
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda u: min(1.0, (u + 1) / 50, 0.02 + 2 * (1 - u / updates))
    )
    longest, loss, begun = 4, 1.0, time.perf_counter()
    for update in range(updates):
        bits, sums = rows(BATCH, _between(longest // 2, longest))
        context, state = model.embed(bits)
        if update > 0.3 * updates and torch.rand(()) < 0.3:
            with torch.no_grad():  # it must stay right, too, once it is
                state = _noisy_steps(model, context, state, _between(1, 2 * longest))
        # As many steps as bits: in one step, news travels by one place.
        state = _noisy_steps(model, context, state, bits.shape[1] + _between(0, 2))
        error = F.cross_entropy(model.readout(context, state).flatten(0, 1), sums.flatten())
        optimiser.zero_grad()
        error.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        rate.step()
        loss = 0.95 * loss + 0.05 * error.item()
        if loss < LEARNT and longest < LONGEST:
            longest, loss = min(LONGEST, longest + longest // 4), 3 * LEARNT
        if (update + 1) % max(1, updates // 10) == 0:
            facts = f"update {update + 1}  up to {longest} bits  loss {loss:.4f}"
            typer.echo(f"{facts}  {time.perf_counter() - begun:.0f} s")
    save(model, out)


def _noisy_steps(
    model: PrefixSums, context: dict[str, Tensor], state: dict[str, Tensor], steps: int
) -> dict[str, Tensor]:
    for _ in range(steps):
        places = state["places"]
        state = model.step(context, {"places": places + NOISE * torch.randn_like(places)})
    return state


def _between(least: int, most: int) -> int:
    """A random whole number, both ends included."""
    return int(torch.randint(least, most + 1, ()))


if __name__ == "__main__":
    typer.run(main)
