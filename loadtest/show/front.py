"""A sweep over server settings: its table, its file and its picture."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from loadtest.analyse.front import Trial, best, front
from loadtest.plan import LoadPlan
from loadtest.show.report import plan_json
from loadtest.show.tables import table
from loadtest.show.words import depth_words, number


def best_words(trial: Trial, slo_p99_ms: float | None) -> str:
    """The best setting in one sentence."""
    bound = "" if slo_p99_ms is None else f" within a p99 of {slo_p99_ms:g} ms"
    return (
        f"Best for {depth_words(trial.depth)}{bound}: {trial.setting} gives "
        f"{number(trial.answers_per_s)} answers/s ({trial.load}, p99 {number(trial.p99_ms)} ms)"
    )


def print_trials(console: Console, trials: Sequence[Trial], plan: LoadPlan) -> None:
    """The table, by depth and load, and the best of each depth."""
    ahead = front(trials)
    lines = [
        {
            "setting": str(trial.setting),
            "load": trial.load,
            "depth": "mix" if trial.depth is None else str(trial.depth),
            "answers/s": number(trial.answers_per_s),
            "p99 ms": number(trial.p99_ms),
            "range": " to ".join(map(number, trial.p99_range_ms)) if plan.repeats > 1 else "",
            "": " ".join(
                word for word, is_so in (("front", trial in ahead), ("missed", not trial.kept)) if is_so
            ),
        }
        for trial in trials
    ]
    console.print(table("Server settings", lines, console.width))
    found = best(trials)
    for trial in found:
        console.print(f"[bold]{best_words(trial, plan.slo_p99_ms)}[/]")
    if not found:
        console.print("No setting kept every bound at any load.")
    if plan.repeats < 3:
        console.print("With fewer than 3 --repeats, small differences may be chance.")


def write_trials(trials: Sequence[Trial], plan: LoadPlan, out: Path) -> None:
    """settings.json: the plan, every trial, the front and the best."""
    ahead, found = front(trials), best(trials)
    report = {
        "plan": plan_json(plan),
        "trials": [
            {**asdict(trial), "setting": dict(trial.setting.pairs), "front": trial in ahead}
            for trial in trials
        ],
        "best": [{"depth": trial.depth, "setting": dict(trial.setting.pairs)} for trial in found],
    }
    (out / "settings.json").write_text(
        json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def draw_front(trials: Sequence[Trial], plan: LoadPlan, out: Path) -> None:
    """front.png and front.svg: a line for each setting over its loads, and the front, for each depth."""
    from loadtest.show.style import LIGHT, add_legend, log_ticks, new_panels

    depths = list(dict.fromkeys(trial.depth for trial in trials))
    settings = list(dict.fromkeys(trial.setting for trial in trials))
    title = f"Throughput against p99 by server setting ({plan.loop} loop)"
    figure, panels = new_panels(LIGHT, title, len(depths), even=True)
    for axes, depth in zip(panels, depths, strict=True):
        here = [trial for trial in trials if trial.depth == depth]
        for setting, colour in zip(settings, LIGHT.colours(len(settings)), strict=True):
            line = sorted((t for t in here if t.setting == setting), key=lambda trial: trial.level)
            axes.errorbar(
                [t.answers_per_s for t in line], [t.p99_ms for t in line],
                yerr=[
                    [t.p99_ms - t.p99_range_ms[0] for t in line],
                    [t.p99_range_ms[1] - t.p99_ms for t in line],
                ],
                fmt="o-", color=colour, capsize=3, linewidth=1.4, label=str(setting),
            )  # fmt: skip
        ahead = sorted(front(here), key=lambda trial: trial.answers_per_s)
        axes.plot(
            [t.answers_per_s for t in ahead], [t.p99_ms for t in ahead],
            "o--", color=LIGHT.ink, linewidth=1, markersize=13, markerfacecolor="none",
            label="Pareto front", zorder=1,
        )  # fmt: skip
        for trial in best(here):
            axes.plot(
                [trial.answers_per_s], [trial.p99_ms], "*", color=LIGHT.warn, markersize=14,
                label="best", zorder=5,
            )  # fmt: skip
        if plan.slo_p99_ms:
            axes.axhline(plan.slo_p99_ms, color=LIGHT.warn, linewidth=1.2, linestyle=":", label="bound")
        log_ticks(axes)
        axes.set_ylabel(f"p99 (ms), {depth_words(depth)}")
    panels[-1].set_xlabel("answers per second")
    panels[-1].set_xlim(left=0)
    add_legend(panels[-1], LIGHT)
    for kind in ("png", "svg"):
        figure.savefig(out / f"front.{kind}", dpi=160, facecolor="white")
