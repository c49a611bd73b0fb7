"""The commands infer and models: their flags, and how they end."""

# ruff: noqa: ARG001  infer reads its flags from the context, which has them by name

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from client import Client, FathomError, Invalid, NotFound, Unauthorized

app = typer.Typer(no_args_is_help=True, add_completion=False)

FAILED = 1  # exit code where it is not the caller's to mend
USAGE = 2  # and where a request must be changed
URL = "http://127.0.0.1:8000"
LOOK_SECONDS = 1.0  # that completion waits for a server
OF_ONE = ("request_id", "keep", "continue_from")  # terms that many requests cannot share
TERMS = ("max_steps", "min_steps", "deadline_ms", "aggregate", "paired", *OF_ONE)  # a flag each
PARTS = {  # flags that make up a term
    "halting": ("criterion", "threshold", "patience", "target_accuracy"),
    "samples": ("noise", "seed", "choose"),
    "latents": ("select", "dtype"),
}


def _flag(name: str, words: str, metavar: str | None = None, **more: Any) -> Any:
    """--name and FATHOM_NAME."""
    flag, variable = f"--{name.replace('_', '-')}", f"FATHOM_{name.upper()}"
    return typer.Option(flag, envvar=variable, metavar=metavar, help=words, **more)


def _group(panel: str) -> Any:
    """Flags that help shows together. Which values they take is the server's to say."""
    return lambda name, words, metavar=None: _flag(name, words, metavar, rich_help_panel=panel)


_depth, _shown, _steer, _files = map(
    _group, ("How long to think", "What to show", "Acting on the thought", "Many problems")
)
Url = Annotated[str, _flag("url", "Address of a running server.", "URL")]
Key = Annotated[str | None, _flag("api_key", "Key, where the server wants one.", "KEY")]
Json = Annotated[bool, _flag("json", "Print JSON, for programs.")]


def _model_names(context: typer.Context, incomplete: str) -> list[str]:
    """For completion: what the server has, if it answers at once."""
    url, key = (context.params.get(name) for name in ("url", "api_key"))
    try:
        with Client(url or URL, key, timeout=LOOK_SECONDS, retries=0) as server:
            return [model.name for model in server.models() if model.name.startswith(incomplete)]
    except FathomError:
        return []


@app.command()
def infer(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="model or model@version", autocompletion=_model_names)],
    problem: Annotated[
        str | None,
        typer.Argument(help="In words or in JSON, or - to read it from stdin; none to --continue-from."),
    ] = None,
    max_steps: Annotated[int | None, _depth("max_steps", "Step budget; absent: the model's.", "N")] = None,
    min_steps: Annotated[int | None, _depth("min_steps", "No halting before this step.", "N")] = None,
    criterion: Annotated[
        str | None, _depth("criterion", "When to halt: none, cosine, kl, ...; absent: the model's.", "NAME")
    ] = None,
    threshold: Annotated[
        float | None, _depth("threshold", "What the criterion's score is compared with.", "X")
    ] = None,
    patience: Annotated[
        int | None, _depth("patience", "For how many steps running it must hold.", "N")
    ] = None,
    target_accuracy: Annotated[
        float | None, _depth("target_accuracy", "Instead: the calibrated threshold that keeps this.", "SHARE")
    ] = None,
    deadline_ms: Annotated[
        float | None, _depth("deadline_ms", "Then the best answer so far is returned.", "MS")
    ] = None,
    include: Annotated[
        list[str] | None,
        _shown("include", "Beside the answer: probabilities, scores, trace, answer_entropy.", "NAME,..."),
    ] = None,
    latents: Annotated[
        Path | None, _shown("latents", "Save the last state, or with a trace every state.", "FILE.npz")
    ] = None,
    select: Annotated[str | None, _shown("select", "Of the state: readout, pooled or full.", "PART")] = None,
    dtype: Annotated[str | None, _shown("dtype", "Of the state: float32 or float16.", "TYPE")] = None,
    aggregate: Annotated[
        str | None, _shown("aggregate", "The answer of which steps: last, mode or mean.", "HOW")
    ] = None,
    stream: Annotated[
        bool | None,
        typer.Option(
            "--stream/--no-stream",
            envvar="FATHOM_STREAM",
            help="Show every step as it is taken; on a terminal, that is the default.",
            rich_help_panel="What to show",
        ),
    ] = None,
    as_json: Json = False,
    samples: Annotated[int | None, _steer("samples", "So many noisy trajectories.", "N")] = None,
    noise: Annotated[float | None, _steer("noise", "Of samples, relative to the state.", "SHARE")] = None,
    seed: Annotated[int | None, _steer("seed", "Of the samples' noise.", "N")] = None,
    choose: Annotated[str | None, _steer("choose", "Among samples: majority or surest.", "HOW")] = None,
    interventions: Annotated[
        str | None, _steer("interventions", 'On the state: [{"step": 3, "op": "zero"}].', "JSON")
    ] = None,
    paired: Annotated[bool, _steer("paired", "Think without the interventions, too.")] = False,
    keep: Annotated[float | None, _steer("keep", "Hold the thought, to continue from.", "SECONDS")] = None,
    continue_from: Annotated[
        str | None, _steer("continue_from", "Think on from a request that was kept.", "ID")
    ] = None,
    request_id: Annotated[str | None, _steer("request_id", "An id of your own.", "ID")] = None,
    file: Annotated[Path | None, _files("file", "Problems, one a line.", "FILE.jsonl")] = None,
    out: Annotated[
        Path | None, _files("out", "Their answers; goes on where it stopped.", "FILE.jsonl")
    ] = None,
    url: Url = URL,
    api_key: Key = None,
) -> None:
    """Ask a running server about one problem, a list of them, or a file of them."""
    given = {name: value for name, value in context.params.items() if _is_given(value)}
    sources = {name: context.get_parameter_source(name) for name in given}
    typed = [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    with _told():
        if samples is None:
            _refuse(typed, PARTS["samples"], "is about samples: give --samples N, too")
        terms = _terms(given)
        if file is None:
            from client.terminal.one import ask

            _refuse(typed, ("out",), "is for a --file of problems")
            with Client(url, api_key, timeout=None, retries=0) as server:
                sound = ask(server, model, problem, terms, as_json, stream, latents)
            raise typer.Exit(0 if sound else FAILED)
        from client.terminal.files import answer_all

        if problem is not None:
            raise Invalid("give a problem or a --file of problems, not both")
        _refuse(typed, ("stream", "latents", *OF_ONE), "is for one request, not for a --file of problems")
        tally = answer_all(url, api_key, model, file, out, terms, as_json)
    raise typer.Exit(FAILED if tally.failed else USAGE if tally.refused else 0)


@app.command()
def models(url: Url = URL, api_key: Key = None, as_json: Json = False) -> None:
    """List the models of a running server."""
    from client.terminal import console

    with _told(), Client(url, api_key, retries=0) as server:
        served = server.models()
    if as_json:
        console.line({"models": [model.as_dict() for model in served]})
    else:
        console.models(served)


def _is_given(value: Any) -> bool:
    """Zero is; a flag that stands nowhere, and a list of none, are not."""
    return value is not None and value is not False and value not in ([], ())


def _terms(given: Mapping[str, Any]) -> dict[str, Any]:
    """What the flags say, in the request's own shape. Raises Invalid where one is not JSON."""
    from client.terminal.written import from_json

    terms: dict[str, Any] = {name: given[name] for name in TERMS if name in given}
    for part, names in PARTS.items():
        if found := {name: given[name] for name in names if name in given}:
            terms[part] = found
    about_samples = terms.pop("samples", {})
    if "samples" in given:
        terms["samples"] = {"count": given["samples"], **about_samples}
    if "latents" in given or "latents" in terms:
        terms["latents"] = {"select": "full", **terms.get("latents", {})}
    if "interventions" in given:
        terms["interventions"] = from_json(given["interventions"], "--interventions")
    if "include" in given:
        terms["include"] = [name for names in given["include"] for name in names.split(",")]
    return terms


def _refuse(typed: Iterable[str], names: Iterable[str], why: str) -> None:
    """Raise Invalid for a flag that goes for nothing here; a variable of the environment may."""
    for name in typed:
        if name in names:
            raise Invalid(f"--{name.replace('_', '-')} {why}")


@contextmanager
def _told() -> Iterator[None]:
    """What goes wrong ends the command in one line."""
    try:
        yield
    except FathomError as error:
        typer.echo(f"fathom: {error}", err=True)
        raise typer.Exit(USAGE if _is_the_callers(error) else FAILED) from None


def _is_the_callers(error: FathomError) -> bool:
    """Whether a request must be changed, as far as the server's status, or the client itself, says so."""
    return isinstance(error, Invalid | NotFound | Unauthorized)
