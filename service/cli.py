"""The commands serve, infer and models. What they need is imported when they run, so that help is quick."""

# ruff: noqa: ARG001  serve reads its flags from the context, which has them by name

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from model.errors import FathomError
from service.settings import Settings, flag_of, read_settings, variable_of

app = typer.Typer(no_args_is_help=True, add_completion=False)

USAGE = 2  # exit code for a setting, a bundle or an argument that cannot be used
URL = "http://127.0.0.1:8000"


def _setting(name: str, metavar: str) -> Any:
    """The flag of a setting; its help and default are the setting's own. Values are validated there too."""
    field = Settings.model_fields[name]
    default = field.get_default()
    shown = ",".join(f"{bound:g}" for bound in default) if isinstance(default, tuple) else str(default)
    return typer.Option(
        flag_of(name),
        envvar=variable_of(name),
        metavar=metavar,
        help=field.description,
        show_default=shown or False,
    )


@app.command()
def serve(
    context: typer.Context,
    host: Annotated[str | None, _setting("host", "ADDRESS")] = None,
    port: Annotated[str | None, _setting("port", "PORT")] = None,
    repository: Annotated[str | None, _setting("repository", "DIR")] = None,
    codecs: Annotated[str | None, _setting("codecs", "NAME,...")] = None,
    device: Annotated[str | None, _setting("device", "auto|cpu|cuda")] = None,
    backend: Annotated[str | None, _setting("backend", "auto|onnx|torchscript")] = None,
    cpu_threads: Annotated[str | None, _setting("cpu_threads", "N")] = None,
    slots: Annotated[str | None, _setting("slots", "N")] = None,
    queue_seconds: Annotated[str | None, _setting("queue_seconds", "SECONDS")] = None,
    quantum_ms: Annotated[str | None, _setting("quantum_ms", "MS")] = None,
    stall_seconds: Annotated[str | None, _setting("stall_seconds", "SECONDS")] = None,
    drain_seconds: Annotated[str | None, _setting("drain_seconds", "SECONDS")] = None,
    max_problems: Annotated[str | None, _setting("max_problems", "N")] = None,
    max_body_bytes: Annotated[str | None, _setting("max_body_bytes", "BYTES")] = None,
    max_pending_bytes: Annotated[str | None, _setting("max_pending_bytes", "BYTES")] = None,
    max_connections: Annotated[str | None, _setting("max_connections", "N")] = None,
    max_line_bytes: Annotated[str | None, _setting("max_line_bytes", "BYTES")] = None,
    max_header_bytes: Annotated[str | None, _setting("max_header_bytes", "BYTES")] = None,
    max_headers: Annotated[str | None, _setting("max_headers", "N")] = None,
    head_seconds: Annotated[str | None, _setting("head_seconds", "SECONDS")] = None,
    body_seconds: Annotated[str | None, _setting("body_seconds", "SECONDS")] = None,
    keep_alive_seconds: Annotated[str | None, _setting("keep_alive_seconds", "SECONDS")] = None,
    send_seconds: Annotated[str | None, _setting("send_seconds", "SECONDS")] = None,
    max_nodes: Annotated[str | None, _setting("max_nodes", "N")] = None,
    max_edges: Annotated[str | None, _setting("max_edges", "N")] = None,
    max_event_bytes: Annotated[str | None, _setting("max_event_bytes", "BYTES")] = None,
    max_held_bytes: Annotated[str | None, _setting("max_held_bytes", "BYTES")] = None,
    ping_seconds: Annotated[str | None, _setting("ping_seconds", "SECONDS")] = None,
    api_keys: Annotated[str | None, _setting("api_keys", "KEY,...")] = None,
    log_level: Annotated[str | None, _setting("log_level", "debug|info|warning|error")] = None,
    access_log: Annotated[str | None, _setting("access_log", "true|false")] = None,
    depth_buckets: Annotated[str | None, _setting("depth_buckets", "B,...")] = None,
    queue_buckets: Annotated[str | None, _setting("queue_buckets", "B,...")] = None,
    step_buckets: Annotated[str | None, _setting("step_buckets", "B,...")] = None,
    request_buckets: Annotated[str | None, _setting("request_buckets", "B,...")] = None,
) -> None:
    """Serve the bundles of a repository over HTTP."""
    try:
        settings = read_settings({name: value for name, value in context.params.items() if value is not None})
        from service.serving import serve as serve_until_told

        serve_until_told(settings)
    except FathomError as error:
        _fail(error.message)


Key = Annotated[
    str | None, typer.Option("--api-key", envvar="FATHOM_API_KEY", help="Key, where the server wants one.")
]


@app.command()
def infer(
    model: Annotated[str, typer.Argument(help="model or model@version")],
    problem: Annotated[str, typer.Argument(metavar="JSON", help="The input, or - to read it from stdin.")],
    max_steps: Annotated[
        int | None, typer.Option(envvar="FATHOM_MAX_STEPS", help="Step budget; absent: the bundle's default.")
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", envvar="FATHOM_STREAM", help="Show every step.")
    ] = False,
    url: Annotated[str, typer.Option(envvar="FATHOM_URL", help="Address of a running server.")] = URL,
    api_key: Key = None,
) -> None:
    """Ask a running server about one problem, or a list of them."""
    from service import remote, show

    try:
        body = remote.request_body(model, sys.stdin.read() if problem == "-" else problem, max_steps, stream)
        with remote.connect(url, api_key) as server:
            if stream:
                show.events(remote.stream(server, body))
            else:
                show.answer(remote.ask(server, body))
    except remote.RemoteError as error:
        _fail(str(error), error.exit_code)


@app.command()
def models(
    repository: Annotated[Path, typer.Option(envvar="FATHOM_REPOSITORY", help="Folder of bundles.")] = Path(
        "bundles"
    ),
    url: Annotated[
        str | None, typer.Option(envvar="FATHOM_URL", help="Address of a running server to ask instead.")
    ] = None,
    api_key: Key = None,
) -> None:
    """List the bundles in a repository, or the models of a running server."""
    from service import remote, show

    try:
        if url is not None:
            with remote.connect(url, api_key) as server:
                show.models(remote.models(server))
        else:
            from model.bundle import find_bundles

            show.models([bundle.manifest.model_dump(mode="json") for bundle in find_bundles(repository)])
    except FathomError as error:
        _fail(error.message)
    except remote.RemoteError as error:
        _fail(str(error), error.exit_code)


def _fail(message: str, exit_code: int = USAGE) -> NoReturn:
    typer.echo(f"fathom: {message}", err=True)
    raise typer.Exit(exit_code)
