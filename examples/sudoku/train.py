"""Train the sudoku network on one core, on 6 x 6 grids first and then on 9 x 9.

OMP_NUM_THREADS=1 python -m examples.sudoku.train --out sudoku.safetensors
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from examples.common import save
from examples.sudoku.model import Sudoku
from examples.sudoku.problems import BOX, Puzzle, puzzle, stacked

BATCH = 8
RATE = 2e-3
NOISE = 0.1  # on every value of the state, before each step: what is learnt must hold it in place
STEPS = (3, 8)  # with gradients; the answer after the last one is graded
BURN_IN = 32  # at most so many steps without gradients come first, so that it learns to stay right
HARD = 3.0  # how often a grid comes up that counting alone does not solve, others once


def main(
    out: Annotated[Path, typer.Option(help="the checkpoint to write")] = Path("sudoku.safetensors"),
    seed: Annotated[int, typer.Option(help="of puzzles, weights and noise")] = 0,
    updates: Annotated[int, typer.Option(min=10, help="on 9 x 9 grids; a quarter more on 6 x 6")] = 2500,
    pool: Annotated[int, typer.Option(min=BATCH, help="puzzles of each size")] = 2500,
) -> None:
    """Train, and write the weights as safetensors."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    small, full = Sudoku(BOX[6]), Sudoku(BOX[9])
    _train(small, [puzzle(rng, 6) for _ in range(pool)], updates // 4, BURN_IN // 2)
    full.load_state_dict(small.state_dict())
    _train(full, [puzzle(rng, 9) for _ in range(pool)], updates, BURN_IN, out)


def _train(
    model: Sudoku, puzzles: Sequence[Puzzle], updates: int, burn_in: int, out: Path | None = None
) -> None:
    """Train; in the end the weights are a moving average of theirs, which is steadier than the last ones.

    Where there is a file to write, it is written some twenty times on the way.
    """
    grids, solutions = stacked(puzzles)
    weights = torch.tensor([HARD if p.rounds is None else 1.0 for p in puzzles])
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.01)
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda u: min(1.0, (u + 1) / 30, max(0.05, 2 * (1 - u / updates)))
    )
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.995))  # type: ignore[no-untyped-call]
    begun, loss, right = time.perf_counter(), 0.0, 0.0
    for update in range(updates):
        rows = torch.multinomial(weights, BATCH)
        grid, solution = grids[rows], solutions[rows]
        context, state = model.embed(grid)
        if update > 0.3 * updates and torch.rand(()) < 0.5:
            with torch.no_grad():
                state = _noisy_steps(model, context, state, int(torch.randint(1, burn_in + 1, ())))
        state = _noisy_steps(model, context, state, int(torch.randint(STEPS[0], STEPS[1] + 1, ())))
        logits, empty = model.readout(context, state), grid == 0
        error = F.cross_entropy(logits[empty], solution[empty] - 1)
        optimiser.zero_grad()
        error.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        rate.step()
        averaged.update_parameters(model)
        with torch.no_grad():
            solved = (logits.argmax(dim=-1) + 1 == solution).flatten(1).all(dim=1).float().mean().item()
        loss, right = 0.98 * loss + 0.02 * error.item(), 0.98 * right + 0.02 * solved
        if (update + 1) % max(1, updates // 20) == 0:
            shown = f"{model.size} x {model.size}  update {update + 1}  loss {loss:.4f}  solved {right:.3f}"
            typer.echo(f"{shown}  {time.perf_counter() - begun:.0f} s")
            if out is not None:
                save(averaged.module, out)
    model.load_state_dict(averaged.module.state_dict())


def _noisy_steps(
    model: Sudoku, context: dict[str, Tensor], state: dict[str, Tensor], steps: int
) -> dict[str, Tensor]:
    with torch.autocast("cpu", torch.bfloat16):  # two thirds of the time; the state stays float32
        for _ in range(steps):
            cells = state["cells"]
            state = model.step(context, {"cells": cells + NOISE * torch.randn_like(cells)})
    return state


if __name__ == "__main__":
    typer.run(main)
