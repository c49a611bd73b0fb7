"""`fathom loadtest URL …` and its sisters `compare`, `render` and `sweep-serve`.

Only flags are read here, and they are the fields of the plan; everything that measures or draws is imported
when a command runs.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperGroup

from loadtest.errors import LoadTestError
from loadtest.flags import Flag, flag_name
from loadtest.plan import LoadPlan, make_plan

ENV = "FATHOM_LOADTEST_"
OUT_HELP = "The report's folder (default: reports/loadtest-DATE-TIME)."


class RunUnlessNamed(TyperGroup):
    """A command group whose first command runs when the first argument names none: a URL or a flag, for
    instance.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        # ctx is click's Context, which newer versions of typer carry inside themselves and older ones import.
        if not args or args[0] not in self.commands:
            args = [next(iter(self.commands)), *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=RunUnlessNamed,
    add_completion=False,
    help="Measure latency against depth: run a load test (the default), or look at reports of earlier ones.",
)


def _variable(flag: str) -> str:
    return ENV + flag.removeprefix("--").replace("-", "_").upper()


def _options() -> list[inspect.Parameter]:
    """The plan's fields as typer's parameters; what is not given is None, and left to the plan."""
    hints = get_type_hints(LoadPlan)
    options = []
    for each in fields(LoadPlan):
        if not each.metadata:
            continue  # the URL is an argument
        flag: Flag = each.metadata["flag"]
        name, switch = flag_name(each.name), hints[each.name] is bool
        plain = each.default not in (None, ()) and not flag.parse and not switch
        default = flag.shown or (str(each.default) if plain else "")
        option = typer.Option(
            name,
            envvar=_variable(name),
            help=flag.help + (f" (default: {default})" if default else ""),
            rich_help_panel=flag.panel,
            show_default=False,
            metavar=" " if switch else None,  # a switch takes no value
        )
        kind = str | None if flag.parse else hints[each.name] if switch else hints[each.name] | None
        options.append(_parameter(each.name, Annotated[kind, option], None if not switch else False))
    return options


def _parameter(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def with_plan(*leading: inspect.Parameter) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command, beside its `leading` parameters, every flag of the plan as keywords."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        command.__signature__ = inspect.Signature([*leading, *_options()])  # type: ignore[attr-defined]
        command.__annotations__ = {}
        return command

    return decorate


def _given(flags: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in flags.items() if value is not None and value is not False}


@contextmanager
def _one_line() -> Iterator[None]:
    """What a caller did wrong ends in one line and exit code 2, what broke on the way in 1."""
    try:
        yield
    except LoadTestError as error:
        typer.echo(f"loadtest: {error}", err=True)
        raise typer.Exit(error.exit_code) from None


_URL = typer.Argument(envvar=_variable("url"), help="The server, such as http://127.0.0.1:8000.")
_OUT = typer.Option(
    "--out", envvar=_variable("out"), help=OUT_HELP, rich_help_panel="Judgement", show_default=False
)


@app.command(epilog="See also: loadtest compare, loadtest render, loadtest sweep-serve")
@with_plan(_parameter("url", Annotated[str, _URL]), _parameter("out", Annotated[Path | None, _OUT], None))
def run(*, url: str, out: Path | None, **flags: Any) -> None:
    """Measure a server's latency against depth, and write a report.

    Exits with 0 when every bound was kept, 1 when not (or when a client process died), 2 when the test
    cannot run as asked, 130 when interrupted (the report is written all the same).
    """
    with _one_line():
        plan = make_plan(url, _given(flags))
        from loadtest.run import load_test

        code = load_test(plan, out, clip=flags["depths"] is None)
    raise typer.Exit(code)


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(envvar=ENV + "A", help="A report's folder, or its report.json.")],
    b: Annotated[Path, typer.Argument(envvar=ENV + "B", help="The report to hold against it.")],
) -> None:
    """Set two reports side by side: the ratio B/A of every figure, and whether it is beyond the noise."""
    with _one_line():
        from loadtest.show.comparison import print_comparison

        print_comparison(a, b)


@app.command()
def render(
    report: Annotated[Path, typer.Argument(help="A report's folder, or its report.json.")],
    formats: Annotated[
        str, typer.Option("--formats", help="What to write the pictures as: png, svg, pdf.")
    ] = "png,svg",
    out: Annotated[Path | None, typer.Option("--out", help="Where to (default: beside the report).")] = None,
) -> None:
    """Draw a report's page and pictures anew from its report.json, and its requests.jsonl where that is."""
    with _one_line():
        from loadtest.run import render_again

        render_again(report, formats, out)


@app.command(
    "sweep-serve",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    epilog="For example: loadtest sweep-serve --slots 16,64,256 --model graph --concurrency 4,32",
)
@with_plan(_parameter("context", typer.Context), _parameter("out", Annotated[Path | None, _OUT], None))
def sweep_serve(*, context: typer.Context, out: Path | None, **flags: Any) -> None:
    """Start `fathom serve` with every combination of settings, measure each, and find the best.

    Flags that are not the load test's own are the server's; their values, separated by commas, are tried
    in all combinations.
    """
    with _one_line():
        from loadtest.serve_sweep import sweep_settings

        code = sweep_settings(context.args, _given(flags), out)
    raise typer.Exit(code)
