"""The commands serve, infer and models. What they need is imported when they run, so that help is quick."""

# ruff: noqa: ARG001  serve reads its flags from the context, which has them by name

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from model.errors import FathomError
from service.settings import Settings, flag_of, read_settings, variable_of

if TYPE_CHECKING:
    from client import Client

app = typer.Typer(no_args_is_help=True, add_completion=False)

FAILED = 1  # exit code where it is not the caller's to mend
USAGE = 2  # and for a setting, a bundle, an argument or a request that cannot be used
OWN = "In place of the server's setting of this name."
URL = "http://127.0.0.1:8000"
RULE = ("criterion", "threshold", "patience", "target_accuracy")  # flags that make up `halting`


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
    poll_seconds: Annotated[str | None, _setting("poll_seconds", "SECONDS")] = None,
    remote_bundles: Annotated[str | None, _setting("remote_bundles", "PLACE#sha256=HASH,...")] = None,
    bundle_cache: Annotated[str | None, _setting("bundle_cache", "DIR")] = None,
    max_bundle_bytes: Annotated[str | None, _setting("max_bundle_bytes", "BYTES")] = None,
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
    keep_seconds: Annotated[str | None, _setting("keep_seconds", "SECONDS")] = None,
    max_kept_bytes: Annotated[str | None, _setting("max_kept_bytes", "BYTES")] = None,
    ping_seconds: Annotated[str | None, _setting("ping_seconds", "SECONDS")] = None,
    api_keys: Annotated[str | None, _setting("api_keys", "KEY,...")] = None,
    admin_keys: Annotated[str | None, _setting("admin_keys", "KEY,...")] = None,
    keys_file: Annotated[str | None, _setting("keys_file", "FILE")] = None,
    steps_per_second: Annotated[str | None, _setting("steps_per_second", "N")] = None,
    requests_per_second: Annotated[str | None, _setting("requests_per_second", "N")] = None,
    max_streams: Annotated[str | None, _setting("max_streams", "N")] = None,
    cors_origins: Annotated[str | None, _setting("cors_origins", "ORIGIN,...")] = None,
    allowed_hosts: Annotated[str | None, _setting("allowed_hosts", "NAME,...")] = None,
    traces: Annotated[str | None, _setting("traces", "auto|on|off")] = None,
    capture_file: Annotated[str | None, _setting("capture_file", "FILE")] = None,
    capture_share: Annotated[str | None, _setting("capture_share", "SHARE")] = None,
    capture_bytes: Annotated[str | None, _setting("capture_bytes", "BYTES")] = None,
    log_level: Annotated[str | None, _setting("log_level", "debug|info|warning|error")] = None,
    log_format: Annotated[str | None, _setting("log_format", "text|json")] = None,
    access_log: Annotated[str | None, _setting("access_log", "true|false")] = None,
    depth_buckets: Annotated[str | None, _setting("depth_buckets", "B,...")] = None,
    queue_buckets: Annotated[str | None, _setting("queue_buckets", "B,...")] = None,
    step_buckets: Annotated[str | None, _setting("step_buckets", "B,...")] = None,
    request_buckets: Annotated[str | None, _setting("request_buckets", "B,...")] = None,
) -> None:
    """Serve the bundles of a repository over HTTP."""
    try:
        settings = read_settings({name: value for name, value in context.params.items() if value is not None})
        from service.process import serve as serve_until_told

        serve_until_told(settings, _variables())
    except FathomError as error:
        _fail(error.message)


Key = Annotated[
    str | None, typer.Option("--api-key", envvar="FATHOM_API_KEY", help="Key, where the server wants one.")
]


def _term(name: str, words: str, metavar: str | None = None) -> Any:
    """The flag of a field of the request, which the server validates."""
    return typer.Option(flag_of(name), envvar=variable_of(name), metavar=metavar, help=words)


@app.command()
def infer(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="model or model@version")],
    problem: Annotated[
        str | None,
        typer.Argument(
            metavar="JSON", help="The input, or - to read it from stdin; none to --continue-from."
        ),
    ] = None,
    max_steps: Annotated[int | None, _term("max_steps", "Step budget; absent: the bundle's default.")] = None,
    min_steps: Annotated[int | None, _term("min_steps", "No halting before this step.")] = None,
    criterion: Annotated[str | None, _term("criterion", "When to halt: none, latent_diff, kl, …")] = None,
    threshold: Annotated[
        float | None, _term("threshold", "What the criterion's score is compared with.")
    ] = None,
    patience: Annotated[int | None, _term("patience", "For how many steps running it must hold.")] = None,
    target_accuracy: Annotated[
        float | None, _term("target_accuracy", "Instead: the calibrated threshold that keeps this.")
    ] = None,
    deadline_ms: Annotated[
        float | None, _term("deadline_ms", "Then the best answer so far is returned.")
    ] = None,
    include: Annotated[
        list[str] | None, _term("include", "What to show beside the answer; may be given several times.")
    ] = None,
    latents: Annotated[str | None, _term("latents", "Which states: readout, pooled or full.")] = None,
    aggregate: Annotated[
        str | None, _term("aggregate", "The answer of which steps: last, mode, mean.")
    ] = None,
    samples: Annotated[str | None, _term("samples", "Noisy trajectories, as an object.", "JSON")] = None,
    interventions: Annotated[
        str | None, _term("interventions", "What to do to the state, as a list of objects.", "JSON")
    ] = None,
    paired: Annotated[
        bool, typer.Option("--paired", envvar="FATHOM_PAIRED", help="Think without interventions, too.")
    ] = False,
    keep: Annotated[float | None, _term("keep", "Seconds to keep the thought for --continue-from.")] = None,
    continue_from: Annotated[
        str | None, _term("continue_from", "Id of a request that was kept: think on.")
    ] = None,
    request_id: Annotated[str | None, _term("request_id", "An id of your own.")] = None,
    stream: Annotated[
        bool, typer.Option("--stream", envvar="FATHOM_STREAM", help="Show every step.")
    ] = False,
    url: Annotated[str, typer.Option(envvar="FATHOM_URL", help="Address of a running server.")] = URL,
    api_key: Key = None,
) -> None:
    """Ask a running server about one problem, or a list of them."""
    from client import Terms
    from service import console

    given = {name: value for name, value in context.params.items() if value not in (None, False, [], ())}
    terms: dict[str, Any] = {name: given[name] for name in Terms.__annotations__ if name in given}
    if rule := {name: given[name] for name in RULE if name in given}:
        terms["halting"] = rule
    for name in ("samples", "interventions"):
        if name in terms:
            terms[name] = _json(terms[name], flag_of(name))
    if problem is not None:
        problem = _json(sys.stdin.read() if problem == "-" else problem, "the problem")
    with _client(url, api_key) as client:
        if stream:
            console.stream(client.stream(model, problem, **terms))
        else:
            console.answer(client.infer(model, problem, **terms))


def _json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        _fail(f"{what} is not JSON: {error}")


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
    from service import console

    if url is not None:
        with _client(url, api_key) as client:
            console.models([model.as_dict() for model in client.models()])
        return
    from model.bundle import find_bundles

    try:
        bundles = list(find_bundles(repository))
    except FathomError as error:
        _fail(error.message)
    console.models([bundle.manifest.model_dump(mode="json") for bundle in bundles])


@contextmanager
def _client(url: str, api_key: str | None) -> Iterator[Client]:
    """A client of a server, whose errors end the command in one line."""
    import client

    try:
        with client.Client(url, api_key, timeout=None, retries=0) as connected:
            yield connected
    except client.FathomError as error:
        _fail(str(error), USAGE if _is_the_callers(error) else FAILED)


def _is_the_callers(error: Exception) -> bool:
    """Whether a request must be changed, as far as the server's status, or the client itself, says so."""
    from client import ApiError, Invalid

    return isinstance(error, Invalid) or (isinstance(error, ApiError) and 400 <= (error.status or 0) < 500)


@app.command()
def key(
    name: Annotated[str, typer.Argument(help="What logs call it; for one key each.")],
    admin: Annotated[bool, typer.Option("--admin", help="For loading and unloading models, too.")] = False,
    expires: Annotated[
        str | None, typer.Option(metavar="DATE", help="From when on it opens nothing: 2027-01-01 (UTC).")
    ] = None,
    steps_per_second: Annotated[float | None, typer.Option(help=OWN)] = None,
    requests_per_second: Annotated[float | None, typer.Option(help=OWN)] = None,
    max_streams: Annotated[int | None, typer.Option(help=OWN)] = None,
    max_problems: Annotated[int | None, typer.Option(help=OWN)] = None,
    max_body_bytes: Annotated[int | None, typer.Option(help=OWN)] = None,
    queue_seconds: Annotated[float | None, typer.Option(help=OWN)] = None,
) -> None:
    """Make an API key: the key itself, shown once, and its line for the server's keys_file."""
    from service.http.keys import new_key

    limits = {
        "steps_per_second": steps_per_second,
        "requests_per_second": requests_per_second,
        "max_streams": max_streams,
        "max_problems": max_problems,
        "max_body_bytes": max_body_bytes,
        "queue_seconds": queue_seconds,
    }
    try:
        secret, line = new_key(name, expires=expires, admin=admin or None, **limits)
    except FathomError as error:
        _fail(error.message)
    typer.echo("The key, which is shown this once:", err=True)
    typer.echo(secret)
    typer.echo("Its line for keys_file:", err=True)
    typer.echo(line)


def _variables() -> frozenset[str]:
    """The environment variables that the commands here read."""
    commands = typer.main.get_group(app).commands.values()
    named = (option.envvar for command in commands for option in command.params)
    return frozenset(name for name in named if isinstance(name, str))


def _fail(message: str, exit_code: int = USAGE) -> NoReturn:
    typer.echo(f"fathom: {message}", err=True)
    raise typer.Exit(exit_code)
