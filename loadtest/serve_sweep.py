"""`fathom loadtest sweep-serve`: the same load on servers with different settings."""

import dataclasses
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from loadtest.analyse.front import Setting, Trial, make_trial, read_settings
from loadtest.analyse.summaries import Summary, summarise
from loadtest.analyse.verdict import FAILED, INTERRUPTED, PASSED, judge
from loadtest.drive.server import SERVE, serving
from loadtest.drive.target import discover, try_once
from loadtest.errors import LoadTestError, LoadTestFailed
from loadtest.plan import LoadPlan, make_plan
from loadtest.run import choose_cases, measure, plain_console, within_limit
from loadtest.show.front import draw_front, print_trials, write_trials
from loadtest.show.report import build_report, make_folder, write_files

MIX = "geometric:8"  # unless depths are given
USERS = "4,16,64"  # unless a load is given
Rounds = dict[tuple[Setting, float, int | None], list[Summary]]


def sweep_settings(
    arguments: list[str], given: dict[str, Any], out: Path | None, command: tuple[str, ...] = SERVE
) -> int:
    """Tries every combination of the settings in `arguments` under the load in `given`; returns the exit
    code: 0 when some setting kept every bound, else 1; 130 when interrupted.

    Every round starts every server anew, in an order of its own, so that what differs between two servers
    with the same settings shows in the range. Raises LoadTestError for a setting that a server refuses.
    """
    console = plain_console()
    settings = read_settings(arguments)
    plan = _plan(given)
    out = out or Path("reports") / datetime.now(UTC).strftime("settings-%Y%m%d-%H%M%S")
    make_folder(out, report=False)
    rounds: Rounds = {}
    for repeat in range(plan.repeats):
        order = list(enumerate(settings))
        random.Random(f"{plan.seed}:{repeat}").shuffle(order)
        for number, setting in order:
            console.print(f"round {repeat + 1} of {plan.repeats}: {setting}")
            with serving(setting.flags, command) as url:
                here = dataclasses.replace(plan, url=url, repeats=1)
                folder = out / f"setting-{number + 1}" / f"round-{repeat + 1}"
                if not _measure(here, setting, folder, rounds, console, clip="depths" not in given):
                    console.print("Interrupted before every setting was measured.")
                    return INTERRUPTED
    trials = _trials(settings, rounds, plan)
    if not trials:
        raise LoadTestFailed("nothing was answered under any setting")
    print_trials(console, trials, plan)
    write_trials(trials, plan, out)
    try:
        draw_front(trials, plan, out)
        console.print(f"Picture: {out / 'front.png'}")
    except ModuleNotFoundError as error:
        console.print(f"[yellow]No picture[/]: {error.name} is not installed")
    console.print(f"Figures: {out / 'settings.json'}")
    return PASSED if any(trial.kept for trial in trials) else FAILED


def _plan(given: dict[str, Any]) -> LoadPlan:
    for name in ("sweep", "replay", "plan"):
        if given.get(name):
            raise LoadTestError(f"--{name} is not for sweep-serve: give levels with --concurrency or --rate")
    given = {"alone_s": 0.0, "probe_s": 0.0, **given}
    if not {"concurrency", "rate"} & given.keys():
        given["concurrency"] = USERS
    if not {"depths", "mix"} & given.keys():
        given["mix"] = MIX
    return make_plan("http://127.0.0.1", given)


def _measure(
    plan: LoadPlan, setting: Setting, out: Path, rounds: Rounds, console: Console, clip: bool
) -> bool:
    """One round of one setting, its server running; returns whether it came to its end."""
    target = discover(plan)
    plan, cases, recording = choose_cases(within_limit(plan, target, clip), target)
    try_once(plan, target, cases[0])
    make_folder(out)
    findings = measure(plan, target, cases, recording, console)
    write_files(build_report(findings, target, judge(findings)), findings, out)
    for result in findings.cells:
        whole = summarise([result], (1, max(plan.depths)), plan.slo_p99_ms, plan.seed)
        rounds.setdefault((setting, result.cell.level, result.cell.depth), []).append(whole)
    return not findings.interrupted


def _trials(settings: list[Setting], rounds: Rounds, plan: LoadPlan) -> list[Trial]:
    made = [
        make_trial(setting, rounds[setting, level, depth], plan.slo_p99_ms, plan.max_error_rate)
        for depth in plan.budgets
        for level in plan.levels
        for setting in settings
        if (setting, level, depth) in rounds
    ]
    return [trial for trial in made if trial is not None]
