"""The commands serve, check and key. What they need is imported when they run, so that help is quick."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, NoReturn, get_args

import typer

from model.errors import FathomError
from service.http.keys_file import Allowance, new_key
from service.setting_types import Shown
from service.settings import Settings, flag_of, read_settings, variable_of

app = typer.Typer(no_args_is_help=True, add_completion=False)

USAGE = 2  # exit code where a setting, a bundle or an argument cannot be used
OWN = "In place of the server's setting of this name."


def _metavar(name: str) -> str:
    """What stands for the value behind the flag of a setting."""
    field = Settings.model_fields[name]
    shown = next((each.metavar for each in field.metadata if isinstance(each, Shown)), None)
    if shown is None:
        shown = "true|false" if field.annotation is bool else "|".join(get_args(field.annotation))
    assert shown, f"nothing is shown behind {flag_of(name)}: give its type a Shown"
    return shown


def _default(name: str) -> str:
    """The default of a setting as a flag would give it; empty where there is none."""
    default = Settings.model_fields[name].get_default()
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple):
        return ",".join(f"{part:g}" for part in default)
    return f"{default:g}" if isinstance(default, float) else str(default)


def _flag(name: str) -> inspect.Parameter:
    """The flag of a setting, whose value is the setting's to check."""
    option = typer.Option(
        flag_of(name),
        envvar=variable_of(name),
        metavar=_metavar(name),
        help=Settings.model_fields[name].description,
        show_default=_default(name) or False,
    )
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=None, annotation=Annotated[str | None, option])


def serve(**given: str | None) -> None:
    """Serve the bundles of a repository over HTTP."""
    try:
        settings = read_settings({name: value for name, value in given.items() if value is not None})
        from service.process import serve as serve_until_told

        serve_until_told(settings, _variables())
    except FathomError as error:
        _fail(error.message)


serve.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [_flag(name) for name in Settings.model_fields]
)
app.command()(serve)


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A bundle: REPOSITORY/MODEL/VERSION.")],
    codecs: Annotated[
        str, typer.Option(envvar="FATHOM_CODECS", metavar="NAME,...", help="Codecs of other distributions.")
    ] = "",
) -> None:
    """Try a bundle on its example: what is wrong, how long a step takes, what a server will do with it."""
    from service.check import check as look

    verdict = look(folder, tuple(name.strip() for name in codecs.split(",") if name.strip()))
    for fact in verdict.facts:
        typer.echo(fact)
    for fault in verdict.faults:
        typer.echo(f"fault: {fault}", err=True)
    if verdict.faults:
        raise typer.Exit(1)
    typer.echo(f"{folder}: sound")


def key(
    name: Annotated[str, typer.Argument(help="What logs call it; for one key each.")],
    admin: Annotated[bool, typer.Option("--admin", help="For loading and unloading models, too.")] = False,
    expires: Annotated[
        str | None, typer.Option(metavar="DATE", help="From when on it opens nothing: 2027-01-01 (UTC).")
    ] = None,
    **limits: str | None,
) -> None:
    """Make an API key: the key itself, shown once, and its line for the server's keys_file."""
    try:
        secret, line = new_key(name, expires=expires, admin=admin or None, **limits)
    except FathomError as error:
        _fail(error.message)
    typer.echo("The key, which is shown this once:", err=True)
    typer.echo(secret)
    typer.echo("Its line for keys_file:", err=True)
    typer.echo(line)


def _limit(name: str) -> inspect.Parameter:
    """The flag of a limit that a key has of its own."""
    option = typer.Option(flag_of(name), metavar=_metavar(name), help=OWN, show_default=False)
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=None, annotation=Annotated[str | None, option])


NAMED = [each for each in inspect.signature(key, eval_str=True).parameters.values() if each.name != "limits"]
key.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [*NAMED, *(_limit(name) for name in Allowance.model_fields)]
)
app.command()(key)


def _variables() -> frozenset[str]:
    """The environment variables that the commands here and the client's read."""
    from client.cli import app as of_client

    groups = map(typer.main.get_group, (app, of_client))
    commands = [command for group in groups for command in group.commands.values()]
    named = (option.envvar for command in commands for option in command.params)
    return frozenset(name for name in named if isinstance(name, str))


def _fail(message: str, exit_code: int = USAGE) -> NoReturn:
    typer.echo(f"fathom: {message}", err=True)
    raise typer.Exit(exit_code)
