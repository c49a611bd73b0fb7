"""The paper's claim: one core for three domains, while less and less structure is given."""

from __future__ import annotations

from dataclasses import replace

from training.paper.experiment import Cited, Experiment, HeldOut, Progression, Variant
from training.paper.replications import OURS, protocol
from training.recipes import LOGIC, TEXT, WORDS

GIVEN, RAW, PROTOCOL, PUBLISHED = (
    "ours, structure given",
    "ours, read raw",
    "the paper's protocol",
    "the paper, published",
)
PAPER_ITSELF = "arXiv 2603.21676, section 5, seed 42, its best number of steps; as we read its tables"
STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)


def progression(full: bool) -> Progression:
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
            (*ours, protocol(task, full, PROTOCOL)),
            HeldOut({split: buckets}, STEPS, 200, 64),
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
                Variant(RAW, "logic-characters", LOGIC),
                **{GIVEN: given_logic},
            ),
            domain(
                "text",
                "paper",
                (2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 20),
                Variant(GIVEN, "text-family", TEXT),
                Variant(RAW, "text-words", WORDS),
            ),
        ),
    )
