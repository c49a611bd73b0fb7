"""The commands `train`, `evaluate`, `export`, `promise` and `reproduce`: their flags, and how they end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from model.errors import FathomError

app = typer.Typer(help="Train, evaluate and export depth-recurrent models.", no_args_is_help=True)

MISTAKE = 2  # exit code of what the caller got wrong; errors.py has those of a run
STOPPED = 130  # and where Ctrl-C ended it


def _even(value: int) -> int:
    if value % 2:
        raise typer.BadParameter(f"{value} is odd, but half of the problems have either answer")
    return value


def _flag(name: str, words: str, metavar: str | None = None, **more: Any) -> Any:
    """--name and FATHOM_NAME."""
    return typer.Option(f"--{name}", envvar=f"FATHOM_{name.upper()}", metavar=metavar, help=words, **more)


def _switch(name: str, words: str) -> Any:
    """A flag that takes no value, so that help shows none behind it."""
    return _flag(name, words, "")


Quiet = Annotated[bool, _switch("quiet", "Say nothing but errors.")]
Report = Annotated[Path | None, _flag("out", "Where to write; reports/NAME if not given.", "DIR")]
Steps = Annotated[int, _flag("steps", "The largest number of steps measured.", "N", min=2)]


@app.command()
def train(
    task: Annotated[str, typer.Argument(metavar="TASK", help="What to learn: graph, logic or text.")],
    preset: Annotated[
        str | None,
        _flag(
            "preset",
            "default: ours, taken if not given; quick: graphs in half a minute; words: text word by word; "
            "characters: logic's default; paper: the paper's; paper-small: scaled down.",
            "NAME",
        ),
    ] = None,
    out: Annotated[Path | None, _flag("out", "The run's folder; runs/TASK if not given.", "DIR")] = None,
    resume: Annotated[
        Path | None, _flag("resume", "Continue this run from its last checkpoint.", "DIR")
    ] = None,
    seed: Annotated[int | None, _flag("seed", "Seed of the weights and of the problems.", "N")] = None,
    set_: Annotated[
        list[str] | None,
        _flag("set", "Replace a field: --set network.width=128, repeatable.", "NAME=VALUE"),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Train a model. Ctrl-C saves; --resume continues to the same result. Under torchrun: data-parallel."""
    from training.fit import train

    chosen = [*(set_ or []), *([f"seed={seed}", f"data_seed={seed}"] if seed is not None else [])]
    with _one_line():
        train(task, preset, out, resume, chosen, Console(), quiet)


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="A run's folder or a bundle's.")],
    out: Report = None,
    problems: Annotated[
        int, _flag("problems", "Problems per difficulty; even.", "N", min=2, callback=_even)
    ] = 512,
    steps: Steps = 256,
    quiet: Quiet = False,
) -> None:
    """Measure accuracy over difficulty and steps, and every halting criterion; draw the frontier."""
    from training.drafts import drafted
    from training.judge import evaluate as judging
    from training.judge.figures import draw

    console = Console(quiet=quiet, highlight=False)
    with _one_line(), _one_thread():
        subject = judging.read_subject(model)
        where = out or Path("reports") / subject.name
        with drafted(where) as draft:
            evaluation = judging.evaluate(subject, judging.EvaluationSize(problems, steps), console.print)
            judging.write(evaluation, draft)
            draw(evaluation, draft)
        console.print(f"wrote {where}: report.md, evaluation.json, two tables as CSV, the pictures")


@app.command()
def export(
    run: Annotated[Path | None, typer.Argument(help="A run's folder; none with --module.")] = None,
    module: Annotated[
        str | None, _flag("module", "A module of your own instead of a run.", "PACKAGE.MODULE:FACTORY")
    ] = None,
    checkpoint: Annotated[Path | None, _flag("checkpoint", "Its weights, as safetensors.", "FILE")] = None,
    out: Annotated[
        Path | None,
        _flag("out", "Where the bundle goes; bundles/TASK/1 if not given.", "REPOSITORY/MODEL/VERSION"),
    ] = None,
    problems: Annotated[
        str | None,
        _flag(
            "problems",
            "To calibrate on: how many per difficulty (even; 1200), or a module's in a file.",
            "N|FILE.jsonl",
        ),
    ] = None,
    replace: Annotated[bool, _switch("replace", "Replace a bundle that is there.")] = False,
    alias: Annotated[
        list[str] | None, _flag("alias", "Another name that requests may use, repeatable.", "NAME")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Export a run, or a module of your own, as a bundle: ONNX and TorchScript, checked against torch."""
    if (run is None) == (module is None):
        raise typer.BadParameter("give a run's folder, or --module PACKAGE.MODULE:FACTORY")
    if module is not None and out is None:
        raise typer.BadParameter("a module has no usual place: give --out REPOSITORY/MODEL/VERSION")
    if run is not None and problems and not (problems.isdigit() and int(problems) >= 2):
        raise typer.BadParameter(f"{problems} is no number of problems; a file is for a module's")
    console, aliases = Console(quiet=quiet, highlight=False), tuple(alias or ())
    with _one_line(), _one_thread():
        if module is not None:
            from training.ship.module import export_module, facts_of, read_module

            assert out is not None, "just checked"
            bundle = export_module(
                read_module(module, checkpoint),
                out,
                lambda line: console.print(line, soft_wrap=True),
                problems=None if problems is None else Path(problems),
                replace=replace,
                aliases=aliases,
                facts=facts_of(module, checkpoint),
            )
        else:
            from training.judge.calibrate import CalibrationSize
            from training.run import read_config
            from training.ship.export import export

            assert run is not None, "just checked"
            where = out or Path("bundles") / read_config(run).task.name / "1"
            size = CalibrationSize(_even(int(problems or 1200)))
            bundle = export(run, where, size, replace, console, aliases)
        console.print(f"wrote {bundle.folder}: serve it with fathom serve", soft_wrap=True)


@app.command()
def reproduce(
    experiment: Annotated[
        str,
        typer.Argument(
            metavar="EXPERIMENT",
            help="frontier-graph, frontier-logic, frontier-text, ablations, baselines, progression, "
            "raw-logic, raw-text or shortcuts.",
        ),
    ],
    out: Annotated[Path, _flag("out", "Where the runs and the results go.", "DIR")] = Path(
        "reports/reproduce"
    ),
    seeds: Annotated[int, _flag("seeds", "How often everything is trained.", "N", min=1)] = 3,
    jobs: Annotated[int, _flag("jobs", "How many runs at once, a core each.", "N", min=1)] = 1,
    full: Annotated[bool, _switch("full", "Frontiers at the paper's size; wants a GPU.")] = False,
    finished: Annotated[bool, _switch("finished", "Train nothing: take the runs that are finished.")] = False,
    quiet: Quiet = False,
) -> None:
    """Repeat an experiment of the paper. What is finished is not done again; Ctrl-C, and it continues."""
    from training.paper.catalogue import experiment_of
    from training.paper.reproduce import SHORTCUT_PROBLEMS, reproduce, shortcuts

    console = Console(quiet=quiet, highlight=False, soft_wrap=True)
    with _one_line(), _one_thread():
        if experiment == "shortcuts":
            shortcuts(out, SHORTCUT_PROBLEMS, console.print)
        else:
            reproduce(experiment_of(experiment, full), out, seeds, jobs, console.print, train=not finished)


@app.command()
def promise(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder, or a run's.")],
    out: Report = None,
    problems: Annotated[
        int, _flag("problems", "Problems per difficulty to calibrate on.", "N", min=2)
    ] = 1200,
    pool: Annotated[
        int, _flag("pool", "Problems per difficulty in all; even.", "N", min=4, callback=_even)
    ] = 4800,
    steps: Steps = 256,
    target: Annotated[
        list[float] | None,
        _flag("target", "An accuracy to promise, repeatable; from 0.8 to 0.995 if not given.", "P"),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Check over 100 calibrations that target_accuracy keeps what it promises, on other problems."""
    from training.judge import promise as judging
    from training.judge.evaluate import read_subject

    console = Console(quiet=quiet, highlight=False)
    with _one_line(), _one_thread():
        subject = read_subject(bundle)
        where = out or Path("reports") / subject.name
        check = judging.PromiseCheck(problems, pool, steps, tuple(target or judging.TARGETS))
        report = judging.promise(subject, check, console)
        path = judging.write(report, where)
        console.print(judging.table(report), soft_wrap=True)
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
    """Whatever went wrong is one line on stderr, and the exit code that it has."""
    try:
        yield
    except FathomError as error:
        code = getattr(error, "exit_code", MISTAKE)
        typer.echo(error.message if code == STOPPED else f"fathom: {error.message}", err=True)
        raise typer.Exit(code) from None
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)
        raise typer.Exit(STOPPED) from None


if __name__ == "__main__":
    app()
