"""The experiments of the paper itself: what is trained, and on what it is measured.

"Thinking Deeper, Not Longer" (arXiv 2603.21676), section 5: the frontiers of three tasks, what each
mechanism is good for, and what other networks make of the same problems.
"""

from __future__ import annotations

from dataclasses import replace

from model.network.config import RecurrentConfig
from training.config import CurriculumConfig, TrainConfig
from training.paper.baselines import Baseline
from training.paper.experiment import Experiment, HeldOut, Variant
from training.paper.presets import PAPER, PAPER_SMALL

# This project's recipe for graphs (docs/training.md), small enough for seven variants and three seeds.
SMALL = TrainConfig(
    network=RecurrentConfig(width=48, feed_forward=96),
    curriculum=CurriculumConfig(burn_in=24, burn_in_every=12),
    updates=900,
    batch=32,
    noise_ramp=150,
    warmup=50,
    ema=0.99,
)
OURS = Variant("ours", "graph-ours", SMALL)
HOPS = HeldOut(
    splits={"matched": (1, 3, 5, 6, 8, 12, 16, 32)},
    budgets=(1, 2, 3, 5, 8, 12, 16, 24, 32, 48, 64),
    problems=200,
    longest=128,
)

LAYERS = 8  # as many as the paper's recurrent network takes steps in training, at most


def _with(network: RecurrentConfig) -> TrainConfig:
    return replace(SMALL, network=network)


def _plain(steps: int, network: RecurrentConfig, baseline: Baseline) -> TrainConfig:
    """The same problems, curriculum and updates for a baseline that always takes so many steps.

    Noise and burn-in are left out: layers of their own are no steps that could be repeated, and
    noise would fall on the sums that adaptive computation time keeps.
    """
    plain = replace(network, layer_scale=None, gate_bias=None, proposal_norm=False)
    return replace(
        SMALL,
        network=plain,
        baseline=baseline,
        curriculum=replace(SMALL.curriculum, burn_in=0),
        first_steps=steps,
        steps_per_unit=0,
        extra_steps=0,
        noise=0.0,
    )


ABLATIONS = Experiment(
    "ablations",
    "What each mechanism is good for",
    (
        OURS,
        Variant(
            "without LayerScale", "graph-without-layer-scale", _with(replace(SMALL.network, layer_scale=None))
        ),
        Variant("without the gate", "graph-without-gate", _with(replace(SMALL.network, gate_bias=None))),
        Variant("answers on the way, weight 0.25", "graph-alpha-0.25", replace(SMALL, intermediate=0.25)),
        Variant("answers on the way, weight 1", "graph-alpha-1", replace(SMALL, intermediate=1.0)),
        Variant(
            "depth embedding", "graph-depth-embedding", _with(replace(SMALL.network, depth_embedding=20))
        ),
        Variant("re-injection", "graph-reinjection", _with(replace(SMALL.network, reinjection=True))),
    ),
    HOPS,
)

BASELINES = Experiment(
    "baselines",
    "What other networks make of the same problems",
    (
        OURS,
        Variant(
            f"{LAYERS} layers, same parameters",
            "graph-layers-same-parameters",
            _plain(LAYERS, replace(SMALL.network, width=16, feed_forward=56), Baseline(layers=LAYERS)),
        ),
        Variant(
            f"{LAYERS} layers, same compute",
            "graph-layers-same-compute",
            _plain(LAYERS, SMALL.network, Baseline(layers=LAYERS)),
        ),
        Variant(
            "Universal Transformer with ACT",
            "graph-act",
            _plain(
                12, replace(SMALL.network, depth_embedding=20), Baseline(adaptive_time=True, ponder=0.001)
            ),
        ),
    ),
    HOPS,
)


def _frontier(task: str, full: bool, held_out: HeldOut, problems: int) -> Experiment:
    """The paper's protocol; `problems` is what the full experiment takes for each difficulty."""
    recipe = protocol(task, full)
    return Experiment(
        f"frontier-{task}",
        f"Accuracy over {recipe.config.task.unit} and steps, the paper's protocol",
        (recipe,),
        replace(held_out, problems=problems if full else held_out.problems),
        "grid",
    )


def protocol(task: str, full: bool, name: str = "") -> Variant:
    """The paper's own recipe, or the same made small."""
    size = "paper" if full else "paper-small"
    return Variant(name or size, f"{task}-{size}", (PAPER if full else PAPER_SMALL)[task])


def frontiers(full: bool) -> tuple[Experiment, ...]:
    """Accuracy over difficulty and steps, task by task."""
    hops = tuple(range(1, 13))
    graph = HeldOut({"paper": hops, "matched": hops}, (1, 2, 3, 5, 8, 12, 15, 20), 300, 128)
    logic = HeldOut({"paper": tuple(range(1, 15))}, (1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 28), 200, 28)
    text = HeldOut({"paper": tuple(range(2, 10))}, (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20), 500, 20)
    return (
        _frontier("graph", full, graph, 500),
        _frontier("logic", full, logic, 500),
        _frontier("text", full, text, 2000),
    )
