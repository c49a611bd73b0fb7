"""The paper's experiments and those on its claim: what is trained, and on what it is measured.

"Thinking Deeper, Not Longer" (arXiv 2603.21676), section 5: the frontiers of three tasks, what each
mechanism is good for, and what other networks make of the same problems. Then its progression, in which
less and less structure is given, and what makes a network read the raw row. How they are carried out is
in training/reproduce.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from model.config import RecurrentConfig
from training.config import DEFAULTS, CurriculumConfig, TrainConfig, configure
from training.presets import PAPER, PAPER_SMALL, WORDS


@dataclass(frozen=True)
class Variant:
    """One configuration, trained once for each seed; runs with the same folder are shared."""

    name: str
    folder: str
    config: TrainConfig


@dataclass(frozen=True)
class Measure:
    """What every run is measured on."""

    splits: Mapping[str, tuple[int, ...]]  # their difficulties; the first split is the one that counts
    budgets: tuple[int, ...]  # of steps; the best of them is "the best budget"
    problems: int  # for each split and difficulty
    longest: int  # steps, for what too much thinking does


@dataclass(frozen=True)
class Cited:
    """What is not trained here: published figures, or those of code that is gone."""

    source: str
    columns: tuple[str, ...]  # budgets, in words
    accuracy: Mapping[int, tuple[float, ...]]  # by difficulty, one for each column


@dataclass(frozen=True)
class Experiment:
    """Variants, all measured alike, and how they are shown.

    grid: difficulty and steps, of a single variant. means: one mean over what was trained on, one over
    what was not. cells: every difficulty of every split.
    """

    name: str
    title: str
    variants: tuple[Variant, ...]
    measure: Measure
    shown: Literal["grid", "means", "cells"] = "means"
    cited: Mapping[str, Cited] = field(default_factory=dict)  # beside the variants, by name


@dataclass(frozen=True)
class Progression:
    """Experiments of one kind in several domains, side by side."""

    name: str
    title: str
    domains: tuple[Experiment, ...]


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
HOPS = Measure(
    splits={"matched": (1, 3, 5, 6, 8, 12, 16, 32)},
    budgets=(1, 2, 3, 5, 8, 12, 16, 24, 32, 48, 64),
    problems=200,
    longest=128,
)

LAYERS = 8  # as many as the paper's recurrent network takes steps in training, at most


def _with(network: RecurrentConfig) -> TrainConfig:
    return replace(SMALL, network=network)


def _plain(steps: int, network: RecurrentConfig) -> TrainConfig:
    """The same problems, curriculum and updates for a network that always takes so many steps.

    Noise and burn-in are left out: layers of their own are no steps that could be repeated, and
    noise would fall on the sums that adaptive computation time keeps.
    """
    plain = replace(network, layer_scale=None, gate_bias=None, proposal_norm=False)
    return replace(
        SMALL,
        network=plain,
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
            _plain(LAYERS, replace(SMALL.network, layers=LAYERS, width=16, feed_forward=56)),
        ),
        Variant(
            f"{LAYERS} layers, same compute",
            "graph-layers-same-compute",
            _plain(LAYERS, replace(SMALL.network, layers=LAYERS)),
        ),
        Variant(
            "Universal Transformer with ACT",
            "graph-act",
            replace(_plain(12, replace(SMALL.network, adaptive_time=True, depth_embedding=20)), ponder=0.001),
        ),
    ),
    HOPS,
)


def _frontier(task: str, full: bool, measure: Measure, problems: int) -> Experiment:
    """The paper's protocol; `problems` is what the full experiment takes for each difficulty."""
    protocol = _protocol(task, full)
    return Experiment(
        f"frontier-{task}",
        f"Accuracy over {protocol.config.task.unit} and steps, the paper's protocol",
        (protocol,),
        replace(measure, problems=problems if full else measure.problems),
        "grid",
    )


def _protocol(task: str, full: bool, name: str = "") -> Variant:
    size = "paper" if full else "paper-small"
    return Variant(name or size, f"{task}-{size}", (PAPER if full else PAPER_SMALL)[task])


GIVEN, RAW, PROTOCOL, PUBLISHED = (
    "ours, structure given",
    "ours, read raw",
    "the paper's protocol",
    "the paper, published",
)
PAPER_ITSELF = "arXiv 2603.21676, section 5, seed 42, its best number of steps; as we read its tables"
STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)


def _progression(full: bool) -> Progression:
    """Three domains, with the structure given and read raw; graphs have no row that could be read."""
    published = {
        "graph": {1: 1.0, 4: 1.0, 6: 1.0, 8: 1.0, 10: 0.5, 12: 0.5},
        "logic": {8: 0.99, 10: 0.97, 12: 0.96, 14: 0.94},
        "text": {2: 0.859, 5: 0.818, 6: 0.68, 7: 0.667, 8: 0.572, 9: 0.54},
    }
    given_logic = Cited(
        "a bundle of 55,763 parameters, trained to 6 levels, which was handed brackets as groups; as "
        "measured with commit ee97f40, 60 problems a row",
        ("a step a level", "64 steps"),
        {
            1: (0.5, 1.0),
            2: (0.6, 1.0),
            4: (0.783, 1.0),
            6: (0.917, 1.0),
            8: (0.933, 1.0),
            10: (1.0, 1.0),
            12: (1.0, 1.0),
            14: (0.983, 1.0),
            16: (0.983, 0.983),
            20: (1.0, 1.0),
        },
    )

    def domain(task: str, split: str, buckets: tuple[int, ...], *ours: Variant, **cited: Cited) -> Experiment:
        numbers = {bucket: (share,) for bucket, share in published[task].items()}
        return Experiment(
            task,
            f"{task.capitalize()}: what is given, and who taught it",
            (*ours, _protocol(task, full, PROTOCOL)),
            Measure({split: buckets}, STEPS, 200, 64),
            "grid",
            {**cited, PUBLISHED: Cited(PAPER_ITSELF, ("best",), numbers)},
        )

    return Progression(
        "progression",
        "Less and less structure given",
        (
            domain("graph", "matched", (1, 2, 4, 6, 8, 10, 12, 16, 32), replace(OURS, name=GIVEN)),
            domain(
                "logic",
                "paper",
                (1, 2, 4, 6, 8, 10, 12, 14, 16, 20),
                Variant(RAW, "logic-characters", DEFAULTS["logic"]),
                **{GIVEN: given_logic},
            ),
            domain(
                "text",
                "paper",
                (2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 20),
                Variant(GIVEN, "text-family", DEFAULTS["text"]),
                Variant(RAW, "text-words", WORDS),
            ),
        ),
    )


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
        DEFAULTS["logic"],
        1200,
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
    Measure({"paper": (8, 11, 14), "towers": (14, 28), "nots": (40,), "chains": (40,)}, BEST, 200, 256),
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
    Measure({"paper": (5, 9, 12)}, BEST, 200, 256),
    "cells",
)


def experiments(full: bool = False) -> dict[str, Experiment | Progression]:
    """By name. full: the paper's protocol at the paper's size, which needs a GPU."""
    hops = tuple(range(1, 13))
    graph = Measure({"paper": hops, "matched": hops}, (1, 2, 3, 5, 8, 12, 15, 20), 300, 128)
    logic = Measure({"paper": tuple(range(1, 15))}, (1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 28), 200, 28)
    text = Measure({"paper": tuple(range(2, 10))}, (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20), 500, 20)
    every = (
        _frontier("graph", full, graph, 500),
        _frontier("logic", full, logic, 500),
        _frontier("text", full, text, 2000),
        ABLATIONS,
        BASELINES,
        _progression(full),
        RAW_LOGIC,
        RAW_TEXT,
    )
    return {experiment.name: experiment for experiment in every}
