"""The commands `train`, `evaluate`, `export`, `promise` and `reproduce`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from model.errors import FathomError

app = typer.Typer(help="Train, evaluate and export depth-recurrent models.", no_args_is_help=True)


class Preset(StrEnum):
    DEFAULT = "default"
    PAPER = "paper"
    PAPER_SMALL = "paper-small"
    WORDS = "words"
    CHARACTERS = "characters"


class ExperimentName(StrEnum):
    FRONTIER_GRAPH = "frontier-graph"
    FRONTIER_LOGIC = "frontier-logic"
    FRONTIER_TEXT = "frontier-text"
    ABLATIONS = "ablations"
    BASELINES = "baselines"
    PROGRESSION = "progression"
    RAW_LOGIC = "raw-logic"
    RAW_TEXT = "raw-text"
    SHORTCUTS = "shortcuts"


@app.command()
def train(
    task: Annotated[str, typer.Argument(metavar="TASK", help="What to learn: graph, logic or text.")],
    preset: Annotated[
        Preset,
        typer.Option(
            envvar="FATHOM_PRESET",
            help="default: ours; words: text word by word; characters: logic's default; "
            "paper: the paper's; paper-small: scaled down.",
        ),
    ] = Preset.DEFAULT,
    out: Annotated[
        Path | None, typer.Option(envvar="FATHOM_OUT", help="The run's folder; runs/TASK if not given.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(envvar="FATHOM_RESUME", help="Continue this run from its last checkpoint.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(envvar="FATHOM_SEED", help="Seed of the weights and of the problems.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", envvar="FATHOM_SET", help="Replace a field: --set network.width=128, repeatable."
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option(envvar="FATHOM_QUIET", help="Say nothing but errors.")] = False,
) -> None:
    """Train a model. Ctrl-C saves; --resume continues to the same result. Under torchrun: data-parallel."""
    from training.fit import start

    chosen = [*(set_ or []), *([f"seed={seed}", f"data_seed={seed}"] if seed is not None else [])]
    with _one_line():
        start(task, preset.value, out, resume, chosen, Console(), quiet)


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="A run's folder or a bundle's.")],
    out: Annotated[
        Path | None,
        typer.Option(envvar="FATHOM_OUT", help="Where to write; reports/NAME if not given."),
    ] = None,
    problems: Annotated[
        int, typer.Option(envvar="FATHOM_PROBLEMS", min=2, help="Problems per difficulty; even.")
    ] = 512,
    steps: Annotated[
        int, typer.Option(envvar="FATHOM_STEPS", min=2, help="The largest number of steps measured.")
    ] = 256,
    quiet: Annotated[bool, typer.Option(envvar="FATHOM_QUIET", help="Say nothing but errors.")] = False,
) -> None:
    """Measure accuracy over difficulty and steps, and every halting criterion; draw the frontier."""
    from training.drafts import drafted
    from training.judge.evaluate import EvaluationPlan, read_subject, write
    from training.judge.evaluate import evaluate as measure
    from training.judge.figures import draw

    console = Console(quiet=quiet, highlight=False)
    with _one_line(), _one_thread():
        subject = read_subject(model)
        where = out or Path("reports") / subject.name
        with drafted(where) as draft:
            evaluation = measure(subject, EvaluationPlan(problems - problems % 2, steps), console.print)
            write(evaluation, draft)
            draw(evaluation, draft)
        console.print(f"wrote {where}: report.md, evaluation.json, two tables as CSV, the pictures")


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    out: Annotated[
        Path | None,
        typer.Option(envvar="FATHOM_OUT", help="REPOSITORY/MODEL/VERSION; bundles/TASK/1 if not given."),
    ] = None,
    problems: Annotated[
        int,
        typer.Option(envvar="FATHOM_PROBLEMS", min=2, help="Calibration problems per difficulty; even."),
    ] = 1200,
    replace: Annotated[
        bool, typer.Option("--replace", envvar="FATHOM_REPLACE", help="Replace a bundle that is there.")
    ] = False,
    alias: Annotated[
        list[str] | None,
        typer.Option(envvar="FATHOM_ALIAS", help="Another name that requests may use; may be repeated."),
    ] = None,
    quiet: Annotated[bool, typer.Option(envvar="FATHOM_QUIET", help="Say nothing but errors.")] = False,
) -> None:
    """Export a run as a bundle: ONNX and TorchScript, checked against torch, halting calibrated."""
    from training.judge.calibrate import CalibrationPlan
    from training.run import read_config
    from training.ship.export import export as write

    console = Console(quiet=quiet)
    with _one_line(), _one_thread():
        where = out or Path("bundles") / read_config(run).task.name / "1"
        plan = CalibrationPlan(problems - problems % 2)
        bundle = write(run, where, plan, replace, console.print, tuple(alias or ()))
        console.print(f"wrote {bundle.folder}: serve it with fathom serve", soft_wrap=True)


@app.command()
def reproduce(
    experiment: Annotated[ExperimentName, typer.Argument(help="Which of the paper's experiments.")],
    out: Annotated[Path, typer.Option(envvar="FATHOM_OUT", help="Where the runs and the results go.")] = Path(
        "reports/reproduce"
    ),
    seeds: Annotated[
        int, typer.Option(envvar="FATHOM_SEEDS", min=1, help="How often everything is trained.")
    ] = 3,
    jobs: Annotated[
        int, typer.Option(envvar="FATHOM_JOBS", min=1, help="How many runs at once, a core each.")
    ] = 1,
    full: Annotated[
        bool, typer.Option("--full", envvar="FATHOM_FULL", help="Frontiers at the paper's size; wants a GPU.")
    ] = False,
    finished: Annotated[
        bool,
        typer.Option(
            "--finished", envvar="FATHOM_FINISHED", help="Train nothing: take the runs that are finished."
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option(envvar="FATHOM_QUIET", help="Say nothing but errors.")] = False,
) -> None:
    """Repeat an experiment of the paper. What is finished is not done again; Ctrl-C, and it continues."""
    from training.paper.catalogue import experiments
    from training.paper.reproduce import SHORTCUT_PROBLEMS, shortcuts
    from training.paper.reproduce import reproduce as carry_out

    console = Console(quiet=quiet, highlight=False, soft_wrap=True)
    with _one_line(), _one_thread():
        if experiment is ExperimentName.SHORTCUTS:
            shortcuts(out, SHORTCUT_PROBLEMS, console.print)
        else:
            chosen = experiments(full)[experiment.value]
            carry_out(chosen, out, seeds, jobs, console.print, train=not finished)


@app.command()
def promise(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder, or a run's.")],
    out: Annotated[
        Path | None,
        typer.Option(envvar="FATHOM_OUT", help="Where to write; reports/NAME if not given."),
    ] = None,
    problems: Annotated[
        int,
        typer.Option(envvar="FATHOM_PROBLEMS", min=2, help="Problems per difficulty that it calibrates on."),
    ] = 1200,
    pool: Annotated[
        int, typer.Option(envvar="FATHOM_POOL", min=4, help="Problems per difficulty in all; even.")
    ] = 4800,
    steps: Annotated[int, typer.Option(envvar="FATHOM_STEPS", min=2, help="The budget in steps.")] = 256,
    target: Annotated[
        list[float] | None,
        typer.Option(
            envvar="FATHOM_TARGET", help="An accuracy to promise, repeatable; from 0.8 to 0.995 if not given."
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option(envvar="FATHOM_QUIET", help="Say nothing but errors.")] = False,
) -> None:
    """Check over 100 calibrations that target_accuracy keeps what it promises, on other problems."""
    from training.judge.evaluate import read_subject
    from training.judge.promise import TARGETS, PromisePlan, table, write
    from training.judge.promise import promise as check

    console = Console(quiet=quiet, highlight=False)
    with _one_line(), _one_thread():
        subject = read_subject(bundle)
        where = out or Path("reports") / subject.name
        plan = PromisePlan(problems, pool - pool % 2, steps, tuple(target or TARGETS))
        report = check(subject, plan, console.print)
        path = write(report, where)
        console.print(table(report), soft_wrap=True)
        console.print(f"wrote {path}")


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Small batches are no faster with more threads, and far slower when cores are shared."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    """Whatever the caller did wrong is one line on stderr; exit 1, or 130 where a signal stopped us."""
    try:
        yield
    except FathomError as error:
        stopped = type(error).__name__ == "Interrupted"  # its module imports torch, which --help must not
        typer.echo(error.message if stopped else f"fathom: {error.message}", err=True)
        raise typer.Exit(130 if stopped else 1) from None
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)
        raise typer.Exit(130) from None


if __name__ == "__main__":
    app()
