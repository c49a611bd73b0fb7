"""What training starts from: this project's recipes, task by task, and every preset by its name.

docs/training.md says what each part of a recipe buys; the paper's are in training/paper/presets.py.
"""

from __future__ import annotations

from dataclasses import replace

from model.network.config import RecurrentConfig
from training.config import CurriculumConfig, TrainConfig
from training.errors import ConfigError
from training.paper.presets import PAPER, PAPER_SMALL
from training.task import Task
from training.tasks.logic.task import LogicTask
from training.tasks.text.task import TextTask

# Most batches are cheap, a few show states far down the road.
FAR_BURN_IN = CurriculumConfig(burn_in=120, burn_in_every=10, burn_in_growth=0.05, burn_in_draw="logarithmic")

LOGIC = TrainConfig(
    task=LogicTask(),
    network=RecurrentConfig(
        width=48,
        heads=8,  # half of them look to the left, half to the right
        feed_forward=96,
        classes=3,
        layer_scale=0.5,
        gate_bias=1.0,
        echo=True,
        attention="nearest",
        perception="characters",
        reading=48,
        routing="input",
        counters=4,
    ),
    curriculum=replace(FAR_BURN_IN, burn_in=60, start=2, end=6, late_share=0.4),
    updates=3000,
    batch=32,
    short_share=0.3,
    noise=0.2,
    clip=1.0,
    token_rate=3.0,
    unrest=0.05,
    ema=0.99,
)

TEXT = TrainConfig(
    task=TextTask(),
    network=RecurrentConfig(
        width=48,  # of each of the three hands
        heads=2,  # one for children, one for parents
        feed_forward=192,
        layer_scale=0.1,
        gate_bias=-1.0,
        keep_given=True,
        echo=True,
        halting_head=True,
        perception="family",
    ),
    curriculum=replace(FAR_BURN_IN, late_share=0.5),
    updates=1600,
    noise=0.3,
    clip=1.0,
)

WORDS = TrainConfig(
    task=TextTask(interface="sentences"),
    network=RecurrentConfig(
        width=48,  # of each of the three hands
        heads=8,
        feed_forward=112,
        classes=3,
        layer_scale=0.5,
        gate_bias=1.0,
        echo=True,
        perception="sentences",
        reading=64,
        routing="input",
        same_heads=2,
    ),
    curriculum=replace(FAR_BURN_IN, burn_in=60, late_share=0.4),
    updates=2500,
    batch=32,
    first_steps=2,  # the mark hears the generation, and compares
    short_share=0.35,
    noise=0.2,
    clip=1.0,
    token_rate=5.0,
    ema=0.99,
)

# Something to evaluate, export and serve after half a minute: right at the few hops it was trained on.
QUICK = TrainConfig(
    network=RecurrentConfig(width=32, feed_forward=64, layer_scale=0.1),
    curriculum=CurriculumConfig(end=3, burn_in=12, burn_in_every=4),
    updates=400,
    batch=32,
    noise=0.2,
    noise_ramp=100,
    learning_rate=4e-3,
    warmup=20,
    ema=0.98,
)

PRESETS: dict[str, dict[str, TrainConfig]] = {
    "default": {"graph": TrainConfig(), "logic": LOGIC, "text": TEXT},
    "quick": {"graph": QUICK},
    "words": {"text": WORDS},
    "characters": {"logic": LOGIC},
    "paper": PAPER,
    "paper-small": PAPER_SMALL,
}  # by name, then by task


def task_read_by(perception: str, task: str) -> Task:
    """The task whose problems a network of this perception takes. Raises ConfigError where there is none."""
    for presets in PRESETS.values():
        if task in presets and presets[task].network.perception == perception:
            return presets[task].task
    raise ConfigError(f"no preset of {task} reads with perception {perception!r}")


def preset(task: str, name: str) -> TrainConfig:
    """The configuration that training starts from. Raises ConfigError where there is none."""
    if name not in PRESETS or task not in PRESETS[name]:
        known = ", ".join(each for each in PRESETS if task in PRESETS[each])
        raise ConfigError(f"there is no preset {name!r} for {task}; there are {known}")
    return PRESETS[name][task]
