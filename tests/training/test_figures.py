"""The pictures of an evaluation: every task, few steps or many, and no claim that traces do not bear out."""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from model.halting import CRITERIA, HaltingRule
from model.network.recurrent import RecurrentTransformer
from model.network.scores import SCORES
from training.judge.backends import torch_backend
from training.judge.evaluate import Evaluation, Subject, _summary
from training.judge.figures import draw
from training.judge.figures import followed as followed_module
from training.judge.figures.followed import Followed, follow
from training.judge.figures.frontier import boundary, draw_frontier
from training.judge.figures.style import LOOKS, look
from training.judge.figures.thresholds import draw_thresholds
from training.judge.traces import Trace
from training.recipes import preset

TASKS = ("graph", "logic", "text")
PICTURES = ("frontier", "thresholds", "halting", "latents")


@pytest.fixture(autouse=True)
def _few_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(followed_module, "PROBLEMS", 8)


def subject(name: str) -> Subject:
    """A network that has learnt nothing."""
    config = preset(name, "default")
    torch.manual_seed(0)
    network = RecurrentTransformer(replace(config.network, width=16, heads=2, feed_forward=8)).eval()
    return Subject(
        name,
        network,
        torch_backend(network),
        config.task,
        HaltingRule("latent_diff", 0.1),
        config.curriculum.end,
    )


def traced(right_from: int, limit: int, problems: int = 8, moving: bool = True) -> Trace:
    """Half right at once, half from a step on; only the latents move, and until then."""
    right = np.ones((problems, limit), np.bool_)
    right[::2, : right_from - 1] = False
    scores = np.full((problems, limit, len(SCORES)), 1e-7, np.float32)
    for name in ("latent_diff", "cosine", "acceleration"):
        scores[:, : right_from if moving else limit, SCORES.index(name)] = 1.0
    return Trace(right, scores)


def entry(rule: HaltingRule, traces: dict[int, Trace]) -> dict[str, Any]:
    buckets = {}
    for bucket, trace in traces.items():
        right, depths = trace.halted(rule)
        buckets[str(bucket)] = {"accuracy": float(right.mean()), "mean_steps": float(depths.mean())}
    return {**asdict(rule), "buckets": buckets}


def evaluation(name: str, limit: int, per_unit: int = 1) -> Evaluation:
    """As of a model that needs so many steps per unit of difficulty."""
    about = subject(name)
    task = about.task
    traces = {bucket: traced(min(limit, max(1, per_unit * bucket)), limit) for bucket in task.buckets}
    rules = [HaltingRule("none")]
    for criterion in SCORES:
        usual = CRITERIA[criterion].default
        steps = (1.0, 2.0) if CRITERIA[criterion].high != 1.0 else (1.0, 0.9)
        rules += [HaltingRule(criterion, usual * step, patience) for step in steps for patience in (1, 2)]
    report = {"halting": [entry(rule, traces) for rule in rules]}
    return Evaluation(about, {task.splits[0]: traces}, report)


def words(figure: Figure) -> list[str]:
    """Every text of a figure, legends included."""
    found = [text.get_text() for axes in figure.axes for text in axes.texts]
    for axes in figure.axes:
        found += [axes.get_title("left"), axes.get_title(), axes.get_xlabel(), axes.get_ylabel()]
        legend = axes.get_legend()
        found += [text.get_text() for text in legend.get_texts()] if legend else []
    return found


@pytest.mark.parametrize("limit", [2, 70])
@pytest.mark.parametrize("name", TASKS)
def test_every_task_has_its_pictures_for_few_steps_and_many(name: str, limit: int, tmp_path: Path) -> None:
    pictures = draw(evaluation(name, limit), tmp_path)
    names = [f"{name}.{ending}" for name in PICTURES for ending in ("png", "svg")]
    assert [path.name for path in pictures] == names
    assert all(path.stat().st_size > 10_000 for path in pictures)


def test_the_boundary_is_the_first_step_near_the_best() -> None:
    assert boundary(traced(7, 20), 0.5) == 7
    assert boundary(traced(1, 20), 0.5) == 1
    late = traced(7, 400, 400)
    late.right[0, :100] = False  # one problem in 400 is no reason to wait
    assert boundary(late, 0.5) == 7
    decayed = Trace(late.right[:, ::-1], late.scores)
    assert boundary(decayed, 0.5) == 1
    nothing = Trace(np.tile([True, False], (20, 3)).T, late.scores)
    assert boundary(nothing, 0.5) is None


def test_a_frontier_of_one_step_per_unit_is_called_so_and_another_is_not() -> None:
    assert "one step per hop" in words(draw_frontier(evaluation("graph", 70)))
    several = words(draw_frontier(evaluation("logic", 70, per_unit=3)))
    assert "within 1% of the row's best" in several
    assert "one step per level" not in several


@pytest.mark.parametrize("name", TASKS)
def test_a_model_that_has_learnt_nothing_is_promised_nothing(name: str) -> None:
    untaught = evaluation(name, 9)
    for traces in untaught.traces.values():
        for trace in traces.values():
            trace.right[:] = np.arange(trace.problems)[:, None] % 2 == 0
    said = words(draw_frontier(untaught))
    assert not [text for text in said if "step per" in text or "steps yet" in text or "still right" in text]


def test_axes_are_named_after_the_task() -> None:
    for name, unit in (("graph", "hops"), ("logic", "levels"), ("text", "links")):
        assert unit in words(draw_frontier(evaluation(name, 4)))


def test_every_row_shows_what_is_neither_chance_nor_certain() -> None:
    partly = evaluation("logic", 4)
    partly.traces["paper"][20].right[0] = False
    assert "88%" in words(draw_frontier(partly))


def test_thresholds_show_the_report_for_every_criterion_from_loose_to_strict() -> None:
    shown = evaluation("logic", 40)
    figure = draw_thresholds(shown)
    names = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert sorted(names) == sorted(SCORES)
    upper = next(axes for axes in figure.axes if axes.get_title() == "latent_diff")
    curve = upper.get_lines()[1]
    points = [point for point in shown.report["halting"] if point["criterion"] == "latent_diff"]
    assert sorted(np.asarray(curve.get_xdata()).tolist()) == sorted({point["threshold"] for point in points})
    assert upper.get_xlim()[0] > upper.get_xlim()[1], "large distances are loose, and on the left"
    patient = next(axes for axes in figure.axes if axes.get_title() == "argmax_stability")
    assert patient.get_xlim()[0] < patient.get_xlim()[1], "few steps are loose"


def test_a_criterion_that_came_later_is_drawn_like_the_others(tmp_path: Path) -> None:
    later = evaluation("graph", 8)
    known = later.report["halting"][1]
    later.report["halting"] += [
        {**known, "criterion": "learned", "threshold": threshold} for threshold in (0.5, 0.9)
    ]
    assert len(draw(later, tmp_path)) == 2 * len(PICTURES)
    assert "learned" in [axes.get_title() for axes in draw_thresholds(later).axes]
    assert look("one nobody knows") not in LOOKS.values()


def test_thresholds_begin_at_zero_where_a_model_may_say_that_it_does_not_know() -> None:
    for name, lowest in (("logic", 0.0), ("graph", 0.5)):
        upper = next(axes for axes in draw_thresholds(evaluation(name, 40)).axes if axes.get_title() == "kl")
        assert upper.get_yticks()[0] == lowest > upper.get_ylim()[0]


def test_labels_of_thresholds_stay_apart() -> None:
    figure = draw_thresholds(evaluation("logic", 40))
    figure.draw_without_rendering()
    lower = [axes for axes in figure.axes if axes.get_xlabel().startswith("threshold")]
    assert len(lower) == len(SCORES)
    for axes in lower:
        shown = sorted(
            (label.get_window_extent() for label in axes.get_xticklabels()), key=lambda box: box.x0
        )
        assert all(left.x1 < right.x0 for left, right in pairwise(shown)), axes.get_xlabel()
        panel = axes.get_window_extent()
        assert all(panel.x0 - 9 < box.x0 and box.x1 < panel.x1 + 9 for box in shown)


def followed(of: Evaluation, right_from: int, kl: float) -> Followed:
    task = of.subject.task
    problems = task.problems(np.random.default_rng(0), task.splits[0], task.pictured, 8)
    trace = traced(right_from, 40)
    trace.scores[:, :, SCORES.index("kl")] = kl
    return Followed(problems, trace, 30)


def test_what_is_shown_ends_where_the_states_have_settled() -> None:
    of = evaluation("logic", 60)
    case = follow(of, np.random.default_rng(0))
    assert 5 <= case.steps <= 60
    moves: NDArray[np.float32] = case.traced.scores[:, :, SCORES.index("latent_diff")]
    assert case.steps == 60 or (moves[:, case.steps :] <= 0.05).mean() > 0.8


def test_a_problem_of_no_difficulty_is_reported_after_a_step_and_not_after_the_last() -> None:
    summary = _summary(traced(5, 20), 0)
    assert summary["accuracy_at_one_step_per_unit"] == 0.5
    assert set(summary["accuracy"]) == {"1", "8", "16", "20"}


def test_the_problem_that_is_shown_ends_right_and_turns_late() -> None:
    of = evaluation("logic", 40)
    case = followed(of, 12, 1.0)
    case.traced.right[0] = False
    shown = case.shown()
    assert shown != 0
    assert case.traced.oracle()[shown] == 12
    case.traced.right[:] = False
    assert 0 <= case.shown() < 8, "where none ends right, any is shown"
