"""What the caller asked for, checked. Every field is a flag, declared here and nowhere else."""

# ruff: noqa: RUF009  flag is dataclasses.field with the words of a flag

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from loadtest.drive.arrivals import ARRIVALS_HELP, parse_arrivals
from loadtest.drive.budgets import MIX_HELP, Mix, parse_depths, parse_mix
from loadtest.errors import LoadTestError
from loadtest.flags import (
    check_bounds,
    flag,
    flag_name,
    halting_rule,
    headers,
    number_range,
    numbers,
    whole_numbers,
)

Loop = Literal["open", "closed"]

LOAD, ASK, TIME, JUDGE, CLIENT = "Load", "What is asked", "Time", "Judgement", "Client"
STANDARD_DEPTHS = (1, 2, 4, 8, 16, 32)
PROTOCOLS = ("v1", "v2")


@dataclass(frozen=True)
class LoadPlan:
    """One load test in full. Raises LoadTestError for figures that make no sense together.

    Times end in their unit. `halting` is the request's field, None leaves the choice to the server's own
    default. Exactly one of `concurrency`, `rate`, `sweep` and `replay` is set.
    """

    url: str
    model: str | None = flag(None, ASK, "The model, or model@version; may be left out when one is served.")
    protocol: str = flag("v1", ASK, "v1 (Fathom), or v2 (Open Inference Protocol, needs --problems).")
    depths: tuple[int, ...] = flag(
        STANDARD_DEPTHS, LOAD, "Step budgets to measure.",
        parse=parse_depths, shown="1,2,4,8,16,32 as far as allowed", above=0,
    )  # fmt: skip
    mix: str | None = flag(
        None, LOAD,
        f"Draw each budget instead: {MIX_HELP}: the max_steps of each line of --problems; "
        "--depths then bounds the report's groups.",
    )  # fmt: skip
    concurrency: tuple[int, ...] = flag(
        (), LOAD, "Closed loop: users, one or several levels.", parse=whole_numbers, shown="8", above=0
    )
    rate: tuple[float, ...] = flag(
        (), LOAD, "Open loop: requests per second, one or several levels.", parse=numbers, above=0
    )
    sweep: bool = flag(False, LOAD, "Open loop: raise the rate until saturation, at every depth.")
    max_rate: float = flag(5000.0, LOAD, "The sweep goes no higher than this.", above=0)
    replay: Path | None = flag(
        None, LOAD,
        "Open loop: send what a file recorded, when and as deep as it was: a report's requests.jsonl, "
        "or what a server captured.",
    )  # fmt: skip
    speed: float = flag(1.0, LOAD, "The replay is this many times as fast as what was recorded.", above=0)
    arrivals: str = flag("poisson", LOAD, f"Open loop: {ARRIVALS_HELP}.")
    max_in_flight: int = flag(
        1024, LOAD, "Requests in flight at most; what is due beyond that waits, and its latency counts it.",
        above=0,
    )  # fmt: skip
    cancel: float = flag(0.0, LOAD, "The share of requests whose client goes away early.", least=0, most=1)
    cancel_after_s: float = flag(
        0.05, LOAD, "They go away at a moment drawn evenly from this many seconds.", above=0
    )
    duration_s: float = flag(10.0, TIME, "Seconds measured for every level and depth.", above=0)
    warmup_s: float = flag(1.0, TIME, "Seconds of the same load before that, not measured.", least=0)
    repeats: int = flag(
        1, TIME, "How often everything is measured; 3 or more if reports are to be compared.", above=0
    )
    alone_s: float = flag(
        3.0, TIME, "Seconds for every depth with one request at a time; 0 leaves it out.", least=0
    )
    probe_s: float = flag(
        5.0, TIME, "Seconds of depth-1 requests without and with deep ones; 0 leaves it out.", least=0
    )
    timeout_s: float = flag(30.0, TIME, "Seconds until a request is given up.", above=0)
    stream: bool = flag(False, ASK, "Ask for the stream of steps and time each step.")
    halting: dict[str, Any] | None = flag(
        {"criterion": "none"}, ASK,
        "The halting rule as JSON, or default for the model's own. "
        "The standard rule takes exactly the steps asked for.",
        parse=halting_rule, shown='{"criterion": "none"}',
    )  # fmt: skip
    deadline_ms: float | None = flag(None, ASK, "Send this deadline with every request.", above=0)
    problems: Path | None = flag(None, ASK, "A JSONL file of problems, with labels if accuracy is wanted.")
    difficulty: tuple[int, int] = flag(
        (1, 5), ASK, "Difficulty of generated problems: hops, nesting or chain, N or LOW-HIGH.",
        parse=number_range, shown="1-5", above=0,
    )  # fmt: skip
    header: dict[str, str] = flag(
        {},
        ASK,
        "Headers to send with every request: NAME=VALUE,…; not written down.",
        parse=headers,
        secret=True,
    )
    api_key: str | None = flag(None, ASK, "Sent as a bearer token; never written down.", secret=True)
    slo_p99_ms: float | None = flag(None, JUDGE, "The latency that 99 % of requests must keep.", above=0)
    max_error_rate: float = flag(
        0.01, JUDGE, "The share of requests that may go unanswered.", least=0, most=1
    )
    plan: float | None = flag(
        None, JUDGE, "With --sweep: print how many servers this many requests per second need.", above=0
    )
    scrape_s: float = flag(
        0.5, JUDGE, "Read the server's own /metrics this often during the run; 0 leaves it out.", least=0
    )
    processes: int | None = flag(
        None, CLIENT, "Client processes.", shown="as many as the rate needs", above=0
    )
    seed: int = flag(0, CLIENT, "Fixes problems, budgets and arrivals.", least=0)
    replay_rate: float | None = None  # the mean rate of what is replayed, once it has been read

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise LoadTestError(f"{self.url!r} is not a server's address: write http://HOST:PORT")
        for each in fields(self):
            check_bounds(each, getattr(self, each.name))
        loads = (bool(self.concurrency), bool(self.rate), self.sweep, self.replay is not None)
        if sum(loads) != 1:
            raise LoadTestError(
                "give one of --concurrency (closed loop), --rate (open loop), --sweep and --replay"
            )
        if self.protocol not in PROTOCOLS:
            raise LoadTestError(f"--protocol {self.protocol!r}: choose {' or '.join(PROTOCOLS)}")
        if self.protocol == "v2" and self.problems is None and self.replay is None:
            raise LoadTestError("--protocol v2 needs --problems: tensors cannot be made up")
        if self.protocol == "v2" and (self.stream or self.replay):
            raise LoadTestError(
                f"{'--stream' if self.stream else '--replay'} needs --protocol v1: the Open Inference "
                "Protocol has neither a stream of steps nor captured requests"
            )
        if self.protocol == "v2" and self.halting and "target_accuracy" in self.halting:
            raise LoadTestError(
                "target_accuracy needs --protocol v1: v2 knows a criterion and its threshold only"
            )
        if self.plan and not self.sweep:
            raise LoadTestError("--plan needs --sweep: servers are counted from the rate that one holds")
        if parse_arrivals(self.arrivals).kind == "ramp" and self.sweep:
            raise LoadTestError("--sweep needs a steady rate: --arrivals ramp has none")
        self.drawn  # noqa: B018  a mix that is none is refused here

    @property
    def loop(self) -> Loop:
        """Closed when a number of users is given, else open."""
        return "closed" if self.concurrency else "open"

    @property
    def levels(self) -> tuple[float, ...]:
        """Users or requests per second to hold, in the caller's order; none when sweeping."""
        if self.replay:
            return (self.replay_rate,) if self.replay_rate else ()
        return tuple(float(level) for level in self.concurrency) or self.rate

    @property
    def drawn(self) -> Mix | None:
        """The mix that budgets are drawn from, bounded by the deepest of `depths`; None without one."""
        return parse_mix(self.mix, self.depths[-1]) if self.mix else None

    @property
    def budgets(self) -> tuple[int | None, ...]:
        """The depths to load one after the other, or (None,) for the mix."""
        return (None,) if self.mix else self.depths


def make_plan(url: str, given: dict[str, Any]) -> LoadPlan:
    """The LoadPlan of a command line: `given` has the texts or values of the flags that were given, by field.

    Without a load, 8 users. Raises LoadTestError naming the flag.
    """
    flags = {each.name: each.metadata["flag"] for each in fields(LoadPlan) if each.metadata}
    values = {}
    for name, value in given.items():
        parse = flags[name].parse
        try:
            values[name] = parse(value) if parse else value
        except LoadTestError as error:
            raise LoadTestError(f"{flag_name(name)} {value!r}: {error}") from None
    if not {"concurrency", "rate", "sweep", "replay"} & values.keys():
        values["concurrency"] = (8,)
    if "replay" in values:
        values.setdefault("mix", "recorded")
    return LoadPlan(url.rstrip("/"), **values)
