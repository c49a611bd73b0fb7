"""A load test from its plan to its report."""

import dataclasses
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from rich.console import Console

from loadtest.analyse.findings import Findings, find
from loadtest.analyse.verdict import judge
from loadtest.campaign import Campaign
from loadtest.drive.cases import Case, generate, read_cases
from loadtest.drive.messages import Setup
from loadtest.drive.pool import Pool
from loadtest.drive.recording import Recording, captured_recording, is_requests_file, report_recording
from loadtest.drive.scrape import Scraper
from loadtest.drive.target import Target, dialect, discover, headers, try_once
from loadtest.errors import LoadTestError
from loadtest.plan import LoadPlan
from loadtest.show.live import LiveView
from loadtest.show.page import write_page
from loadtest.show.report import build_report, make_folder, write_files
from loadtest.show.stored import read_findings
from loadtest.show.tables import print_findings

PROBLEMS = 256  # generated; more would not be more varied to a server that keeps nothing between requests
PLAIN_WIDTH = 190  # columns of a table that goes to a file or a log
FORMATS = ("png", "svg", "pdf")


def load_test(plan: LoadPlan, out: Path | None, clip: bool) -> int:
    """Runs the plan, writes the report, prints its tables; returns the exit code.

    `clip` leaves out depths that the model does not allow instead of refusing them. Raises LoadTestError
    before any load is sent when the plan cannot work.
    """
    console = plain_console()
    target = discover(plan)
    plan = within_limit(plan, target, clip)
    plan, cases, recording = choose_cases(plan, target)
    try_once(plan, target, cases[0])
    out = out or Path("reports") / datetime.now(UTC).strftime("loadtest-%Y%m%d-%H%M%S")
    make_folder(out)
    findings = measure(plan, target, cases, recording, console)
    verdict = judge(findings)
    report = build_report(findings, target, verdict)
    write_files(report, findings, out)
    print_findings(console, findings, verdict, report["headline"])
    draw(console, report, findings, out, ("png", "svg"))
    return verdict.exit_code


def plain_console() -> Console:
    """The terminal; for a file or a log, wide enough for every table."""
    console = Console()
    return console if console.is_terminal else Console(width=PLAIN_WIDTH)


def measure(
    plan: LoadPlan, target: Target, cases: list[Case], recording: Recording | None, console: Console
) -> Findings:
    """Carries out the plan against a target that has answered."""
    setup = Setup(
        url=plan.url,
        headers=headers(plan),
        dialect=dialect(plan, target),
        cases=tuple(cases),
        timeout_s=plan.timeout_s,
    )
    title = f"{target.model} at {plan.url}: {plan.loop} loop"
    with (
        Pool(setup, plan, recording) as pool,
        _interruptible(pool),
        LiveView(console, title) as view,
        Scraper(plan.url, headers(plan), target.model, plan.scrape_s, pool.epoch) as scraper,
    ):
        campaign = Campaign(plan, pool, view.watch, view.ended)
        campaign.run()
    return find(plan, campaign.cells, campaign.searches, scraper.readings, pool.interrupted)


def within_limit(plan: LoadPlan, target: Target, clip: bool) -> LoadPlan:
    """The plan with depths that the model allows. Raises LoadTestError for one beyond unless `clip`."""
    limit = target.steps_limit
    if limit is None or plan.depths[-1] <= limit:
        return plan
    if not clip:
        raise LoadTestError(f"--depths {plan.depths[-1]} is beyond what {target.model} allows: {limit} steps")
    return dataclasses.replace(plan, depths=tuple(depth for depth in plan.depths if depth <= limit))


def choose_cases(plan: LoadPlan, target: Target) -> tuple[LoadPlan, list[Case], Recording | None]:
    """What to ask: the caller's problems, or generated ones for the model's task, or a recording.

    A replay makes of the plan an open loop at the recording's mean rate, as long as it lasts.
    """
    source = plan.problems
    captured = plan.replay is not None and not is_requests_file(plan.replay)
    if captured:
        source = plan.replay
    if source:
        cases = read_cases(source, target.model)
    elif target.task is None:
        raise LoadTestError(f"{target.model} does not say what it takes: give --problems FILE.jsonl")
    else:
        cases = generate(target.task, PROBLEMS, plan.difficulty, plan.seed)
    recording = None
    if plan.replay is not None:
        if captured:
            recording = captured_recording(cases, plan.replay)
        else:
            recording = report_recording(plan.replay, len(cases))
        length = recording.length_s(plan.speed)
        plan = dataclasses.replace(
            plan, warmup_s=0.0, duration_s=length, replay_rate=len(recording.due_s) / length
        )
    else:
        cases = [dataclasses.replace(case, terms={}) for case in cases]  # the flags say under which terms
    return plan, cases, recording


def draw(
    console: Console, report: dict[str, object], findings: Findings, out: Path, formats: tuple[str, ...]
) -> None:
    """The page and its pictures; without matplotlib the page alone, and a word on how to get them."""
    missing = write_page(report, findings, out, formats)
    if missing:
        console.print(
            f"[yellow]No pictures[/]: {missing} is not installed. Install it with: "
            f"pip install 'fathom-depth\\[plot]', and then: fathom loadtest render {out}"
        )
    console.print(f"Report: {out / 'report.html'}")


def render_again(path: Path, formats: str, out: Path | None) -> None:
    """`fathom loadtest render`: page and pictures of an earlier report."""
    wanted = tuple(formats.split(","))
    if not set(wanted) <= set(FORMATS):
        raise LoadTestError(f"--formats {formats!r}: choose of {', '.join(FORMATS)}")
    report, findings = read_findings(path)
    out = out or (path if path.is_dir() else path.parent)
    make_folder(out, report=False)
    draw(plain_console(), report, findings, out, wanted)


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
