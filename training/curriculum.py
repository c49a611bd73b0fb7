"""How hard the problems are and how long the network thinks before it is graded.

Harder problems come when the running loss says that the present ones are learned. Once the hardest
are reached, burn-in grows: steps without gradient before the graded ones, so that a state far down
the road is as good a start as a fresh one and the answer stays when thinking goes on ("path
independence", arXiv 2211.09961).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from training.config import CurriculumConfig

MEMORY = 0.97  # share of the running loss that stays at each update
FIRST_BURN_IN = 4  # where it starts; one of a step or two teaches nothing
AFTER_ADVANCE = 0.5  # the running loss when harder problems begin, far over any threshold


@dataclass
class Curriculum:
    """The state of the curriculum; part of a checkpoint."""

    config: CurriculumConfig
    difficulty: int
    burn_in: int = 0
    loss: float = 1.0  # running

    @classmethod
    def start(cls, config: CurriculumConfig) -> Curriculum:
        return cls(config, config.start)

    def observe(self, update: int, loss: float) -> None:
        """Learn from the loss of one update, and get harder if it is time."""
        config = self.config
        self.loss = MEMORY * self.loss + (1 - MEMORY) * loss
        if self.difficulty < config.end:
            if self.loss < config.advance_below:
                self.difficulty += 1
                self.loss = AFTER_ADVANCE
        elif update % config.burn_in_every == 0 and self.loss < config.burn_in_below:
            grown = self.burn_in + max(1, int(config.burn_in_growth * self.burn_in))
            self.burn_in = min(config.burn_in, max(FIRST_BURN_IN, grown))

    def draw_burn_in(self, rng: np.random.Generator) -> int:
        """For how many steps a batch burns in: 0 to burn_in."""
        if self.config.burn_in_draw == "even":
            return int(rng.integers(0, self.burn_in + 1))
        return min(self.burn_in, int(math.exp(rng.random() * math.log(self.burn_in + 2))) - 1)
