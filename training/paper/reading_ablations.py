"""What makes a network read the raw row: the recipe without each of its mechanisms (docs/training.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from training.config import TrainConfig, configure
from training.paper.experiment import Experiment, HeldOut, Variant
from training.recipes import LOGIC, WORDS


def _without(
    task: str, whole: TrainConfig, updates: int, left_out: Mapping[str, tuple[str, ...]]
) -> tuple[Variant, ...]:
    """The whole recipe, and one variant for each mechanism that is left out: settings by name."""
    whole = replace(whole, updates=updates)
    variants = [Variant("whole recipe", f"raw-{task}-whole", whole)]
    for name, settings in left_out.items():
        folder = f"raw-{task}-" + name.replace('"', "").replace(",", "").replace(" ", "-")
        variants.append(Variant(name, folder, configure(whole, settings)))
    return tuple(variants)


BEST = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)
RAW_LOGIC = Experiment(
    "raw-logic",
    "What makes a network read characters",
    _without(
        "logic",
        LOGIC,
        2000,
        {
            "without counters": ("network.counters=0",),
            "routes from the state": ("network.routing=state",),
            "softmax, rotary, from the state": (  # the paper's block, and only what it allows of our recipe
                "network.attention=softmax",
                "network.rotary=true",
                "network.routing=state",
                "network.reading=0",
                "network.counters=0",
                "network.echo=false",
            ),
            "without echo": ("network.echo=false",),
            'without "not known"': (  # steps for all that is graded, as nothing can be left for later
                "task.unknown=false",
                "network.classes=2",
                "short_share=0",
                "curriculum.late_share=0",
                "first_steps=3",
                "steps_per_unit=2",
            ),
            "one label an expression": ("task.ask=whole",),
            "without noise": ("noise=0",),
            "without late batches": ("curriculum.late_share=0",),
        },
    ),
    HeldOut({"paper": (8, 11, 14), "towers": (14, 28), "nots": (40,), "chains": (40,)}, BEST, 200, 256),
    "cells",
)
RAW_TEXT = Experiment(
    "raw-text",
    "What makes a network read words",
    _without(
        "text",
        WORDS,
        1500,
        {
            "without same-kind heads": ("network.same_heads=0",),
            "routes from the state": ("network.routing=state", f"network.reading={WORDS.network.width}"),
            "without echo": ("network.echo=false",),
            "origin never moved": ("task.taste.anywhere=0",),
            "without lesson": ("task.taste.lesson=0",),
            "without quiet and cut batches": ("task.taste.quiet=0", "task.taste.cut=0"),
            "without short batches": ("short_share=0",),
            "without late batches": ("curriculum.late_share=0",),
        },
    ),
    HeldOut({"paper": (5, 9, 12)}, BEST, 200, 256),
    "cells",
)
