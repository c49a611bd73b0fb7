"""Train the maze network on one core, on mazes of 9 x 9 pixels and their finished answers alone.

OMP_NUM_THREADS=1 python -m examples.mazes.train --out mazes.safetensors
"""

from __future__ import annotations

import math
import random
import time
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from examples.common import save
from examples.mazes.model import Mazes
from examples.mazes.problems import WALL, maze, stacked

SIZE = 9
BATCH = 32
ALIKE = 200  # mazes of about one depth, from which a batch is drawn: they need the same number of steps
BURN_IN = 40  # at most so many steps without gradients come first, now and then: it must stay right, too
WALLS = 0.1  # what a wall counts, against an open pixel: most pixels are walls, and they are easy


def main(
    out: Annotated[Path, typer.Option(help="the checkpoint to write")] = Path("mazes.safetensors"),
    seed: Annotated[int, typer.Option(help="of mazes and weights")] = 0,
    updates: Annotated[int, typer.Option(min=10)] = 2000,
    peak: Annotated[float, typer.Option("--rate", help="of learning, at its highest")] = 2e-3,
    pool: Annotated[int, typer.Option(min=ALIKE, help="mazes to train on")] = 8000,
) -> None:
    """Train, and write the weights as safetensors."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    drawn = sorted((maze(rng, SIZE, winding=i % 2 == 0) for i in range(pool)), key=lambda m: m.depth)
    depths = [m.depth for m in drawn]
    mazes, ways = map(torch.from_numpy, stacked(drawn))
    weights = torch.where(mazes == WALL, WALLS, 1.0)
    model = Mazes()
    optimiser = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.98), weight_decay=1e-4)
    rate = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda u: _rate(u, u / updates))
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.99))  # type: ignore[no-untyped-call]
    begun, loss, right = time.perf_counter(), 0.0, 0.0
    for update in range(updates):
        # Shallow mazes first, all of them after three tenths of the updates.
        reach = int(pool * min(1.0, 0.1 + 3 * update / updates))
        first = rng.randrange(max(1, reach - ALIKE))
        rows = torch.tensor(rng.choices(range(first, first + ALIKE), k=BATCH))
        steps = max(depths[row] for row in rows) + rng.randrange(3)
        turns = rng.randrange(4)  # a maze that is turned is another maze
        shown, way, weight = (torch.rot90(t[rows], turns, (1, 2)) for t in (mazes, ways, weights))
        context, state = model.embed(shown)
        if update > 0.3 * updates and rng.random() < 0.3:
            with torch.no_grad():
                for _ in range(rng.randint(1, BURN_IN)):
                    state = model.step(context, state)
        for _ in range(steps):
            state = model.step(context, state)
        logits = model.readout(context, state)
        errors = F.cross_entropy(logits.movedim(-1, 1), way.long(), reduction="none")
        error = (errors * weight).sum() / weight.sum()
        optimiser.zero_grad()
        error.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        rate.step()
        averaged.update_parameters(model)
        solved = (logits.argmax(dim=-1) == way).flatten(1).all(dim=1).float().mean().item()
        loss, right = 0.98 * loss + 0.02 * error.item(), 0.98 * right + 0.02 * solved
        if (update + 1) % max(1, updates // 20) == 0:
            facts = f"update {update + 1}  loss {loss:.4f}  solved {right:.3f}"
            typer.echo(f"{facts}  {time.perf_counter() - begun:.0f} s")
    save(averaged.module, out)


def _rate(update: int, share: float) -> float:
    """Warm up, hold for half of the updates, then fall along a cosine."""
    falling = 0.51 + 0.5 * math.cos(2 * math.pi * (share - 0.5))
    return min((update + 1) / 50, falling if share > 0.5 else 1.0)


if __name__ == "__main__":
    typer.run(main)
