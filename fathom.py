"""The command `fathom`, and `fathom.Client` with what belongs to it: only what is used is imported."""

from __future__ import annotations

import importlib
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from client import *  # noqa: F403

DISTRIBUTION = "fathom-depth"
COMMANDS = {  # name: (module whose `app` has it, one line of help)
    "serve": ("service.cli", "Serve the bundles of a repository over HTTP."),
    "infer": ("client.cli", "Ask a running server about one problem, a list, or a file of them."),
    "models": ("client.cli", "List the models of a running server."),
    "check": ("service.cli", "Try a bundle: what is wrong with it, and what a server will do with it."),
    "key": ("service.cli", "Make an API key, and its line for a server's file of keys."),
    "train": ("training.cli", "Train a depth-recurrent network on a task."),
    "evaluate": ("training.cli", "Measure a trained network over difficulty and steps."),
    "export": ("training.cli", "Export a trained network as a bundle."),
    "reproduce": ("training.cli", "Repeat the paper's experiments: tables and figures."),
    "promise": ("training.cli", "Check that a bundle's target_accuracy keeps what it promises."),
    "loadtest": ("loadtest.cli", "Measure a server's latency against depth."),
}
EXTRAS = {  # module that may be missing: the extra that brings it
    "training": "train",  # images leave the package out
    "torch": "train",
    "onnx": "train",
    "onnxscript": "train",
    "safetensors": "train",
    "scipy": "train",
    "onnxruntime": "cpu",
    "matplotlib": "plot",
}


def __getattr__(name: str) -> Any:
    """What the package `client` offers, loaded when it is first asked for."""
    if not name.startswith("_"):
        client = importlib.import_module("client")
        if name in client.__all__:
            return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class Commands(TyperGroup):
    """Lists every command by name and help alone, and imports the one that is called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {name: TyperCommand(name, help=words) for name, (_, words) in COMMANDS.items()}

    def get_params(self, ctx: Any) -> list[Any]:
        """Without a <bool> behind what takes no value, which is what help would show."""
        return _shown(super().get_params(ctx))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The real command, once it is called, or completed."""
        name, _, rest = super().resolve_command(ctx, args)
        if name is None:  # completion looks for what is no command, too
            return None, None, rest
        module = importlib.import_module(COMMANDS[name][0])
        mounted = typer.main.get_command(module.app)
        own: dict[str, Any] = getattr(mounted, "commands", {})
        command = own.get(name, mounted)
        _shown(command.get_params(ctx))
        return name, command, rest


def _shown(options: list[Any]) -> list[Any]:
    for option in options:
        if getattr(option, "is_flag", False) and option.metavar is None:
            option.metavar = ""
    return options


app = typer.Typer(cls=Commands, no_args_is_help=True)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fathom {metadata.version(DISTRIBUTION)}")
        raise typer.Exit


@app.callback()
def fathom(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Adaptive-depth inference: models that think for as many steps as you ask."""


def main() -> None:
    """The entry point. A library that is not installed ends in one line that says what to install."""
    try:
        app(prog_name="fathom")
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        typer.echo(
            f"fathom: this needs {error.name}; install it with: pip install 'fathom-depth[{extra}]'", err=True
        )
        sys.exit(2)


if __name__ == "__main__":
    main()
