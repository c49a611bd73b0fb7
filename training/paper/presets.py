"""The paper's protocol, and the same made small.

`paper` is the published recipe of arXiv 2603.21676 (section 4) as far as this network can express it:
in graphs nodes have no names, expressions of a batch have one depth and chains one length, and
problems are drawn as training goes rather than 12,000 to 64,000 of them in advance. `paper-small` keeps
the protocol, silent thinking for a random number of steps without curriculum, noise or burn-in, at a
size that one core trains in seven to twenty minutes.
"""

from __future__ import annotations

from dataclasses import replace

from model.network.config import RecurrentConfig
from training.config import CurriculumConfig, TrainConfig
from training.tasks.graph.task import GraphTask
from training.tasks.logic.expressions import LONGEST
from training.tasks.logic.task import LogicTask
from training.tasks.text.task import TextTask

PAPER_GRAPH = TrainConfig(
    task=GraphTask(ask="target", frontier_share=0.0),
    network=RecurrentConfig(
        width=128,
        heads=4,
        feed_forward=256,
        dropout=0.1,
        layer_scale=None,  # the paper has it in the other two tasks only
        proposal_norm=False,
        depth_embedding=20,
        target_role=True,
    ),
    curriculum=CurriculumConfig(start=5, end=5, burn_in=0),
    updates=7500,  # 12,000 problems, 40 epochs, batches of 64
    extra_steps=3,  # with 5 hops: U[5, 8] steps
    noise=0.0,
    learning_rate=3e-4,
    warmup=0,
    clip=1.0,
    ema=0.0,
    seed=42,
    data_seed=42,
)

PAPER_LOGIC = replace(
    PAPER_GRAPH,
    task=LogicTask(
        ask="whole",
        frontier_share=0.0,
        anyhow_share=0.0,
        min_depth=1,
        longest=LONGEST,
        unknown=False,
    ),
    network=RecurrentConfig(
        width=256,
        heads=8,
        feed_forward=1024,
        dropout=0.1,
        proposal_norm=False,
        depth_embedding=28,
        rotary=True,
        perception="characters",
    ),
    curriculum=CurriculumConfig(start=8, end=8, burn_in=0),
    updates=15_000,  # 64,000 problems, 30 epochs, batches of 128
    batch=128,
    first_steps=4,  # U[4, 16] steps
    steps_per_unit=0,
    extra_steps=12,
)

PAPER_TEXT = replace(
    PAPER_LOGIC,
    task=TextTask(interface="words", frontier_share=0.0, tree_share=0.0, min_links=2),
    network=replace(PAPER_LOGIC.network, depth_embedding=20, perception="words"),
    curriculum=CurriculumConfig(start=5, end=5, burn_in=0),
    updates=18_750,  # 60,000 problems, 40 epochs, batches of 128
    first_steps=1,  # U[1, 12] steps
    extra_steps=11,
)

PAPER = {"graph": PAPER_GRAPH, "logic": PAPER_LOGIC, "text": PAPER_TEXT}


def _small(full: TrainConfig, updates: int, batch: int) -> TrainConfig:
    network = replace(full.network, width=64, heads=4, feed_forward=128)
    return replace(full, network=network, updates=updates, batch=batch, learning_rate=1e-3, warmup=100)


PAPER_SMALL = {
    "graph": _small(PAPER_GRAPH, 5000, 64),
    "logic": _small(PAPER_LOGIC, 5000, 32),
    "text": _small(PAPER_TEXT, 3000, 32),
}
