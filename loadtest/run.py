"""A load test from flags to report."""

import dataclasses
import json
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TypeVar, get_args

from rich.console import Console

from loadtest.analyse.verdict import judge
from loadtest.drive.budgets import parse_depths, parse_mix
from loadtest.drive.pool import Pool
from loadtest.drive.problems import Problem, generate, read_problems
from loadtest.drive.process import Setup
from loadtest.drive.target import Target, dialect, discover, headers, try_once
from loadtest.errors import LoadTestError
from loadtest.experiment import Experiment, Findings
from loadtest.plan import Arrivals, Halting, Plan, Wire
from loadtest.show.live import LiveView, print_findings
from loadtest.show.report import build_report, make_folder, write_files

Choice = TypeVar("Choice")

PROBLEMS = 256  # generated; more would not be more varied to a server that keeps nothing between requests
PLAIN_WIDTH = 190  # columns of a table that goes to a file or a log


def make_plan(
    *,
    url: str,
    model: str | None,
    protocol: str,
    depths: str,
    mix: str | None,
    concurrency: str | None,
    rate: str | None,
    sweep: bool,
    max_rate: float,
    arrivals: str,
    duration_s: float,
    warmup_s: float,
    repeats: int,
    alone_s: float,
    probe_s: float,
    stream: bool,
    halting: str,
    deadline_ms: float | None,
    problems: Path | None,
    difficulty: str,
    slo_p99_ms: float | None,
    max_error_rate: float,
    timeout_s: float,
    connections: int,
    processes: int | None,
    seed: int,
    api_key: str | None,
) -> Plan:
    """The Plan that the flags' texts mean. Raises LoadTestError naming the flag."""
    budgets = parse_depths(depths)
    if not (concurrency or rate or sweep):
        concurrency = "8"
    if protocol == "v2" and problems is None:
        raise LoadTestError("--protocol v2 needs --problems: tensors cannot be made up")
    return Plan(
        url=url.rstrip("/"),
        model=model,
        wire=_one_of("--protocol", protocol, get_args(Wire)),
        depths=budgets,
        mix=parse_mix(mix, budgets[-1]) if mix else None,
        concurrency=tuple(int(level) for level in _numbers("--concurrency", concurrency, whole=True)),
        rates=_numbers("--rate", rate, whole=False),
        sweep=sweep,
        max_rate=max_rate,
        arrivals=_one_of("--arrivals", arrivals, get_args(Arrivals)),
        duration_s=duration_s,
        warmup_s=warmup_s,
        repeats=repeats,
        alone_s=alone_s,
        probe_s=probe_s,
        stream=stream,
        halting=_halting(halting),
        deadline_ms=deadline_ms,
        problems=problems,
        difficulty=_range(difficulty),
        slo_p99_ms=slo_p99_ms,
        max_error_rate=max_error_rate,
        timeout_s=timeout_s,
        connections=connections,
        processes=processes,
        seed=seed,
        api_key=api_key,
    )


def load_test(plan: Plan, out: Path | None, clip: bool) -> int:
    """Runs the plan, writes the report, prints its tables; returns the exit code.

    `clip` leaves out depths that the model does not allow instead of refusing them. Raises LoadTestError
    before any load is sent when the plan cannot work.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=PLAIN_WIDTH)
    target = discover(plan)
    plan = within_limit(plan, target, clip)
    problems = choose_problems(plan, target)
    try_once(plan, target, problems[0])
    out = out or Path("reports") / datetime.now(UTC).strftime("loadtest-%Y%m%d-%H%M%S")
    make_folder(out)
    findings = measure(plan, target, problems, console)
    verdict = judge(findings)
    report = build_report(findings, target, verdict)
    write_files(report, findings, out)
    print_findings(console, findings, verdict)

    from loadtest.show.page import write_page  # matplotlib takes a second to load, and nothing above draws

    write_page(report, findings, out)
    console.print(f"Report: {out / 'report.html'}")
    return verdict.exit_code


def measure(plan: Plan, target: Target, problems: list[Problem], console: Console) -> Findings:
    """Carries out the plan against a target that has answered."""
    setup = Setup(
        url=plan.url,
        headers=headers(plan),
        dialect=dialect(plan, target),
        problems=tuple(problems),
        connections=plan.connections,
        timeout_s=plan.timeout_s,
    )
    title = f"{target.model} at {plan.url}: {plan.loop} loop"
    with (
        Pool(setup, plan.mix, plan.arrivals, plan.processes, plan.seed) as pool,
        _interruptible(pool),
        LiveView(console, title) as view,
    ):
        return Experiment(plan, pool, view.watch, view.ended).run()


def within_limit(plan: Plan, target: Target, clip: bool) -> Plan:
    """The plan with depths that the model allows. Raises LoadTestError for one beyond unless `clip`."""
    limit = target.steps_limit
    if limit is None or plan.depths[-1] <= limit:
        return plan
    if not clip:
        raise LoadTestError(f"--depths {plan.depths[-1]} is beyond what {target.model} allows: {limit} steps")
    depths = tuple(depth for depth in plan.depths if depth <= limit)
    return dataclasses.replace(
        plan, depths=depths, mix=parse_mix(plan.mix.name, depths[-1]) if plan.mix else None
    )


def choose_problems(plan: Plan, target: Target) -> list[Problem]:
    """The caller's problems, or generated ones for the model's task."""
    if plan.problems:
        return read_problems(plan.problems, target.model)
    if target.task is None:
        raise LoadTestError(f"{target.model} does not say what it takes: give --problems FILE.jsonl")
    return generate(target.task, PROBLEMS, plan.difficulty, plan.seed)


@contextmanager
def _interruptible(pool: Pool) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM ends the measuring, and the report is written; the second one ends the
    program.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's, and so is whoever called us from another
        return

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        pool.interrupt()
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        restore()


def _numbers(flag: str, text: str | None, whole: bool) -> tuple[float, ...]:
    pattern = r"\d+(,\d+)*" if whole else r"\d+(\.\d+)?(,\d+(\.\d+)?)*"
    if text is None:
        return ()
    if not re.fullmatch(pattern, text):
        raise LoadTestError(
            f"{flag} {text!r}: give {'whole numbers' if whole else 'numbers'} such as 8 or 1,8,32"
        )
    return tuple(dict.fromkeys(float(part) for part in text.split(",")))


def _range(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    if not found or int(found[2] or found[1]) < int(found[1]):
        raise LoadTestError(f"--difficulty {text!r}: give a number or a range such as 1-5")
    return int(found[1]), int(found[2] or found[1])


def _halting(text: str) -> Halting | None:
    if text == "default":
        return None
    try:
        rule = json.loads(text)
    except ValueError:
        rule = None
    if not isinstance(rule, dict):
        raise LoadTestError(
            f'--halting {text!r}: give a JSON object such as {{"criterion": "kl"}}, or default'
        )
    return rule


def _one_of(flag: str, text: str, choices: tuple[Choice, ...]) -> Choice:
    for choice in choices:
        if choice == text:
            return choice
    raise LoadTestError(f"{flag} {text!r}: choose {' or '.join(map(str, choices))}")
