"""What makes a network read the raw row, and the progression: every variant trains, every figure is drawn."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from training.config import configure
from training.errors import ConfigError
from training.paper import reproduce
from training.paper.catalogue import experiments
from training.paper.experiment import Cited, Experiment, HeldOut, Progression, Variant
from training.paper.progression import GIVEN, PROTOCOL, PUBLISHED, RAW, progression
from training.paper.reading_ablations import RAW_LOGIC, RAW_TEXT
from training.paper.replications import OURS
from training.paper.reproduce import Job, measured_run
from training.parallel import joined
from training.recipes import PRESETS
from training.tasks.logic.expressions import depth_of, value_of
from training.tasks.logic.task import CHARACTERS, LogicTask
from training.trainer import Trainer

VARIANTS = (*RAW_LOGIC.variants, *RAW_TEXT.variants)


def said(_: str) -> None:
    pass


def tiny(variant: Variant, updates: int = 2) -> Variant:
    settings = (f"updates={updates}", "batch=4", "device=cpu", "head_updates=1")
    return replace(variant, config=configure(variant.config, settings))


def texts(split: str, bucket: int, count: int = 40) -> Iterator[tuple[str, int]]:
    problems = LogicTask().problems(np.random.default_rng(3), split, bucket, count)
    for tokens, real, label in zip(problems.inputs[0], problems.inputs[1], problems.labels, strict=True):
        row = "".join(CHARACTERS[int(token)] for token in tokens[real])
        yield row[1:-1], int(label)


@pytest.mark.parametrize("variant", VARIANTS, ids=[variant.folder for variant in VARIANTS])
def test_every_mechanism_can_be_left_out(variant: Variant, tmp_path: Path) -> None:
    config = tiny(variant).config
    with joined("cpu") as world:
        trainer = Trainer(config, tmp_path, world, "cpu")
        assert trainer.curriculum.difficulty == config.curriculum.start
        facts = [trainer.update() for _ in range(2)]
    assert all(np.isfinite(each["loss"]) for each in facts)


def test_a_variant_differs_from_the_whole_recipe_and_from_every_other() -> None:
    for experiment in (RAW_LOGIC, RAW_TEXT):
        configs = [variant.config for variant in experiment.variants]
        assert all(config not in configs[:place] for place, config in enumerate(configs))
        assert len({variant.folder for variant in experiment.variants}) == len(configs)


def test_waiting_needs_an_answer_that_says_so_and_not_a_reader() -> None:
    logic = PRESETS["default"]["logic"]
    block = next(variant.config for variant in RAW_LOGIC.variants if "rotary" in variant.name)
    assert (block.network.reading, block.short_share, block.curriculum.late_share) == (0, 0.3, 0.4)
    settled = ("task.unknown=false", "network.classes=2")
    with pytest.raises(ConfigError, match='short_share needs a task that knows the answer "unknown"'):
        configure(logic, (*settled, "curriculum.late_share=0"))
    with pytest.raises(ConfigError, match="late_share needs tokens that are given, or a task"):
        configure(logic, (*settled, "short_share=0"))


def test_towers_have_the_levels_that_are_asked_for() -> None:
    for text, label in texts("towers", 28):
        assert depth_of(text) == 28
        assert label == value_of(text)


def test_runs_of_not_are_as_long_as_is_asked_for() -> None:
    for text, label in texts("nots", 40):
        assert text.count("!") == 40
        assert label == value_of(text)


def test_the_operator_of_a_chain_does_not_give_its_value_away() -> None:
    rows = list(texts("chains", 40, 400))
    assert all(text.count("&") + text.count("|") == 39 for text, _ in rows)
    assert all(label == value_of(text) for text, label in rows)
    assert sum(label for _, label in rows) == 200
    mostly_or = np.array([text.count("|") > text.count("&") for text, _ in rows])
    right = float((mostly_or == np.array([label for _, label in rows])).mean())
    assert 0.4 < right < 0.6


def test_cells_are_a_column_for_each_difficulty_of_each_split(tmp_path: Path) -> None:
    variants = tuple(tiny(variant) for variant in RAW_LOGIC.variants[:2])
    held_out = HeldOut({"paper": (2, 3), "towers": (4,)}, (1, 4), 4, 8)
    experiment = replace(RAW_LOGIC, variants=variants, held_out=held_out)
    where = reproduce.reproduce(experiment, tmp_path, 1, 1, said)
    table = (where / "table.md").read_text()
    assert "| Variant | parameters | levels reached | 2 levels | 3 levels | towers of 4 | processor" in table
    found = json.loads((where / "results.json").read_text())["variants"]["without counters"]
    curve = found["runs"][0]["accuracy"]["towers"]["4"]
    assert found["cells"]["towers"]["4"]["best"]["mean"] == max(curve[0], curve[3])
    assert found["cells"]["towers"]["4"]["longest"]["mean"] == curve[7]
    assert (where / "figure.png").stat().st_size > 10_000


@pytest.mark.slow
def test_a_progression_puts_domains_beside_each_other(tmp_path: Path) -> None:
    whole = progression(full=False)
    small = {
        "graph": HeldOut({"matched": (1, 6)}, (1, 2), 4, 2),
        "logic": HeldOut({"paper": (1, 8)}, (1, 2), 4, 2),
        "text": HeldOut({"paper": (2, 5)}, (1, 2), 4, 2),
    }
    domains = tuple(
        replace(domain, variants=tuple(map(tiny, domain.variants)), held_out=small[domain.name])
        for domain in whole.domains
    )
    where = reproduce.reproduce(replace(whole, domains=domains), tmp_path, 1, 1, said)
    table = (where / "table.md").read_text()
    assert f"| Problems | {GIVEN} | {RAW} | {PROTOCOL} | {PUBLISHED} |" in table
    rows = {
        line.split(" | ")[0].strip("| "): line.split(" | ") for line in table.splitlines() if " | " in line
    }
    assert rows["graph, 6 hops"][2] == "-", "a graph has no row to read"
    assert rows["graph, 6 hops"][4] == "100 % |"
    assert rows["logic, 8 levels"][1] == "100 %", "what the code of an earlier commit measured"
    assert rows["logic, 1 levels"][4] == "- |", "not published"
    assert rows["text, 5 links"][4] == "81.8 % |"
    assert "measured with commit ee97f40" in table
    assert (where / "figure.png").stat().st_size > 10_000


def test_a_progression_shows_what_there_is(tmp_path: Path) -> None:
    held_out = HeldOut({"matched": (1, 6)}, (1, 2), 4, 2)
    ours = tiny(replace(OURS, name=GIVEN))
    graph = Experiment(
        "graph", "Graph", (ours, tiny(replace(OURS, name=PROTOCOL, folder="x"), 3)), held_out, "grid"
    )
    text = replace(progression(full=False).domains[-1], held_out=HeldOut({"paper": (2,)}, (1, 2), 4, 2))
    measured_run(Job(ours, 0, held_out, tmp_path / "runs" / f"{ours.folder}-0"))
    both = Progression("progression", "Less and less", (graph, text))
    where = reproduce.reproduce(both, tmp_path, 3, 1, said, train=False)
    report = json.loads((where / "results.json").read_text())
    assert set(report["domains"]) == {"graph"}
    assert set(report["domains"]["graph"]["variants"]) == {GIVEN}


def test_what_is_cited_is_cited_for_difficulties_that_are_measured() -> None:
    whole = experiments()["progression"]
    assert isinstance(whole, Progression)
    for domain in whole.domains:
        ((_, buckets),) = domain.held_out.splits.items()
        for cited in domain.cited.values():
            assert isinstance(cited, Cited)
            assert set(cited.accuracy) <= set(buckets)
            assert all(len(row) == len(cited.columns) for row in cited.accuracy.values())


def test_the_whole_recipes_are_the_presets() -> None:
    for experiment, preset in (
        (RAW_LOGIC, PRESETS["characters"]["logic"]),
        (RAW_TEXT, PRESETS["words"]["text"]),
    ):
        whole = experiment.variants[0].config
        assert whole == replace(preset, updates=whole.updates)
