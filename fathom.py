"""The command `fathom`, and `fathom.Client` with what belongs to it: only what is used is imported."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from client import *  # noqa: F403

COMMANDS = {  # name: (module whose `app` has it, one line of help)
    "serve": ("service.cli", "Serve the bundles of a repository over HTTP."),
    "infer": ("service.cli", "Ask a running server about one problem, or a list of them."),
    "models": ("service.cli", "List the bundles in a repository, or the models of a running server."),
    "key": ("service.cli", "Make an API key, and its line for a server's file of keys."),
    "train": ("training.cli", "Train a depth-recurrent network on a task."),
    "evaluate": ("training.cli", "Measure a trained network over difficulty and steps."),
    "export": ("training.cli", "Export a trained network as a bundle."),
    "reproduce": ("training.cli", "Repeat the paper's experiments: tables and figures."),
    "promise": ("training.cli", "Check that a bundle's target_accuracy keeps what it promises."),
    "loadtest": ("loadtest.cli", "Measure a server's latency against depth."),
}
EXTRAS = {  # module that may be missing: the extra that brings it
    "torch": "train",
    "onnx": "train",
    "onnxscript": "train",
    "safetensors": "train",
    "onnxruntime": "cpu",
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

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """A stand-in, for the list of commands and for spelling suggestions."""
        return TyperCommand(cmd_name, help=COMMANDS[cmd_name][1]) if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The real command, once it is called."""
        name, _, rest = super().resolve_command(ctx, args)
        assert name is not None, "a command was found without its name"
        module = importlib.import_module(COMMANDS[name][0])
        mounted = typer.main.get_command(module.app)
        own: dict[str, Any] = getattr(mounted, "commands", {})
        return name, own.get(name, mounted), rest


app = typer.Typer(cls=Commands, add_completion=False, no_args_is_help=True)


@app.callback()
def fathom() -> None:
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
            f"fathom: this needs {error.name}; install it with: pip install 'fathom[{extra}]'", err=True
        )
        sys.exit(2)


if __name__ == "__main__":
    main()
