"""`fathom loadtest URL …` and `fathom loadtest compare A B`.

Only flags are parsed here; everything that measures or draws is imported when a command runs.
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

ENV = "FATHOM_LOADTEST_"
DEPTHS = "1,2,4,8,16,32"


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
    help="Measure latency against depth: run a load test (the default), or compare two reports.",
)


def _flag(name: str, text: str, panel: str) -> Any:
    return typer.Option(
        f"--{name}", envvar=ENV + name.replace("-", "_").upper(), help=text, rich_help_panel=panel
    )


LOAD, ASK, TIME, JUDGE, CLIENT = "Load", "What is asked", "Time", "Judgement and report", "Client"


@app.command(epilog="Two reports side by side: loadtest compare A B")
def run(
    url: Annotated[
        str, typer.Argument(envvar=ENV + "URL", help="The server, such as http://127.0.0.1:8000.")
    ],
    model: Annotated[
        str | None, _flag("model", "The model, or model@version; may be left out when one is served.", ASK)
    ] = None,
    depths: Annotated[
        str | None, _flag("depths", f"Step budgets to measure [default: {DEPTHS}, as far as allowed].", LOAD)
    ] = None,
    mix: Annotated[
        str | None,
        _flag(
            "mix",
            "Draw each budget instead: geometric:MEAN, uniform:LOW-HIGH or weighted:DEPTH=WEIGHT,…, or "
            "recorded: the max_steps of each line of --problems; --depths then bounds the report's groups.",
            LOAD,
        ),
    ] = None,
    concurrency: Annotated[
        str | None, _flag("concurrency", "Closed loop: users, one or several levels [default: 8].", LOAD)
    ] = None,
    rate: Annotated[
        str | None, _flag("rate", "Open loop: requests per second, one or several levels.", LOAD)
    ] = None,
    sweep: Annotated[
        bool, _flag("sweep", "Open loop: raise the rate until saturation, at every depth.", LOAD)
    ] = False,
    max_rate: Annotated[float, _flag("max-rate", "The sweep goes no higher than this.", LOAD)] = 5000.0,
    arrivals: Annotated[
        str, _flag("arrivals", "Open loop: poisson or constant spacing of requests.", LOAD)
    ] = "poisson",
    duration: Annotated[float, _flag("duration", "Seconds measured for every level and depth.", TIME)] = 10.0,
    warmup: Annotated[
        float, _flag("warmup", "Seconds of the same load before that, not measured.", TIME)
    ] = 1.0,
    repeats: Annotated[
        int, _flag("repeats", "How often everything under load is measured; 3 or more for compare.", TIME)
    ] = 1,
    alone: Annotated[
        float, _flag("alone", "Seconds for every depth with one request at a time; 0 leaves it out.", TIME)
    ] = 3.0,
    probe: Annotated[
        float, _flag("probe", "Seconds of depth-1 requests among deep ones; 0 leaves it out.", TIME)
    ] = 5.0,
    timeout: Annotated[float, _flag("timeout", "Seconds until a request is given up.", TIME)] = 30.0,
    stream: Annotated[bool, _flag("stream", "Ask for the stream of steps and time each step.", ASK)] = False,
    halting: Annotated[
        str,
        _flag(
            "halting",
            "The halting rule as JSON, or default for the model's own. "
            "The standard rule takes exactly the steps asked for.",
            ASK,
        ),
    ] = '{"criterion": "none"}',
    deadline_ms: Annotated[
        float | None, _flag("deadline-ms", "Send this deadline with every request.", ASK)
    ] = None,
    problems: Annotated[
        Path | None, _flag("problems", "A JSONL file of problems, with labels if accuracy is wanted.", ASK)
    ] = None,
    difficulty: Annotated[
        str,
        _flag("difficulty", "Difficulty of generated problems: hops, nesting or chain, N or LOW-HIGH.", ASK),
    ] = "1-5",
    protocol: Annotated[
        str, _flag("protocol", "v1 (Fathom), or v2 (Open Inference Protocol, needs --problems).", ASK)
    ] = "v1",
    api_key: Annotated[
        str | None, _flag("api-key", "Sent as a bearer token; never written down.", ASK)
    ] = None,
    slo_p99_ms: Annotated[
        float | None, _flag("slo-p99-ms", "The latency that 99 % of requests must keep.", JUDGE)
    ] = None,
    max_error_rate: Annotated[
        float, _flag("max-error-rate", "The share of requests that may go unanswered.", JUDGE)
    ] = 0.01,
    out: Annotated[
        Path | None, _flag("out", "The report's folder [default: reports/loadtest-DATE-TIME].", JUDGE)
    ] = None,
    processes: Annotated[
        int | None, _flag("processes", "Client processes [default: as many as the rate needs].", CLIENT)
    ] = None,
    connections: Annotated[
        int, _flag("connections", "Connections per client process at most.", CLIENT)
    ] = 256,
    seed: Annotated[int, _flag("seed", "Fixes problems, budgets and arrivals.", CLIENT)] = 0,
) -> None:
    """Measure a server's latency against depth, and write a report.

    Exits with 0 when every bound was kept, 1 when not, 2 when the test cannot run, 130 when interrupted
    (the report is written all the same).
    """
    from loadtest.errors import LoadTestError
    from loadtest.run import load_test, make_plan

    try:
        plan = make_plan(
            url=url,
            model=model,
            protocol=protocol,
            depths=depths or DEPTHS,
            mix=mix,
            concurrency=concurrency,
            rate=rate,
            sweep=sweep,
            max_rate=max_rate,
            arrivals=arrivals,
            duration_s=duration,
            warmup_s=warmup,
            repeats=repeats,
            alone_s=alone,
            probe_s=probe,
            stream=stream,
            halting=halting,
            deadline_ms=deadline_ms,
            problems=problems,
            difficulty=difficulty,
            slo_p99_ms=slo_p99_ms,
            max_error_rate=max_error_rate,
            timeout_s=timeout,
            connections=connections,
            processes=processes,
            seed=seed,
            api_key=api_key,
        )
        code = load_test(plan, out, clip=depths is None)
    except LoadTestError as error:
        typer.echo(f"loadtest: {error}", err=True)
        raise typer.Exit(2) from None
    raise typer.Exit(code)


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(envvar=ENV + "A", help="A report's folder, or its report.json.")],
    b: Annotated[Path, typer.Argument(envvar=ENV + "B", help="The report to hold against it.")],
) -> None:
    """Set two reports side by side: the ratio B/A of every figure, and whether it is beyond the noise."""
    from loadtest.analyse.compare import print_comparison
    from loadtest.errors import LoadTestError

    try:
        print_comparison(a, b)
    except LoadTestError as error:
        typer.echo(f"loadtest: {error}", err=True)
        raise typer.Exit(2) from None
