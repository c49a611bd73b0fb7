"""Server settings against each other: which give more answers, or give them sooner."""

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.analyse.summaries import Summary, load_words
from loadtest.errors import LoadTestError
from loadtest.plan import Loop


@dataclass(frozen=True)
class Setting:
    """One combination of the server's flags, such as (("--slots", "16"), ("--quantum-ms", "5"))."""

    pairs: tuple[tuple[str, str], ...]

    @property
    def flags(self) -> tuple[str, ...]:
        return tuple(itertools.chain.from_iterable(self.pairs))

    def __str__(self) -> str:
        return ", ".join(f"{name.removeprefix('--')} {value}" for name, value in self.pairs) or "as it is"


@dataclass(frozen=True)
class Trial:
    """A setting under one load: medians over the rounds, each with a server of its own; p99 with its range.

    `kept`: every round answered enough, and within the bound if there is one.
    """

    setting: Setting
    loop: Loop
    level: float
    depth: int | None
    answers_per_s: float
    p99_ms: float
    p99_range_ms: tuple[float, float]
    kept: bool

    @property
    def load(self) -> str:
        return load_words(self.loop, self.level)


def read_settings(arguments: Sequence[str]) -> list[Setting]:
    """Every combination of `--flag value,value …`. Raises LoadTestError for anything else."""
    names: dict[str, list[str]] = {}
    rest = list(arguments)
    while rest:
        flag = rest.pop(0)
        name, given, value = flag.partition("=")
        if not name.startswith("--") or (not given and (not rest or rest[0].startswith("--"))):
            raise LoadTestError(
                f"{flag!r} is neither a flag of the load test nor a server's with values: "
                "write --slots 16,64,256"
            )
        if name in ("--host", "--port"):
            raise LoadTestError(f"{name} is chosen by the load test, which starts each server by itself")
        names[name] = (value if given else rest.pop(0)).split(",")
    if not names:
        raise LoadTestError("give settings of the server to try, such as --slots 16,64,256")
    return [Setting(tuple(zip(names, values, strict=True))) for values in itertools.product(*names.values())]


def make_trial(
    setting: Setting, rounds: Sequence[Summary], slo_p99_ms: float | None, max_error_rate: float
) -> Trial | None:
    """The Trial of one setting and load from its rounds; None when nothing was answered in one of them."""
    one = rounds[0]
    p99 = [summary.latency_ms.p99 for summary in rounds if summary.latency_ms]
    if len(p99) < len(rounds):
        return None
    return Trial(
        setting=setting,
        loop=one.loop,
        level=one.level,
        depth=None if one.mixed else one.depth_to,
        answers_per_s=statistics.median(summary.rates.achieved for summary in rounds),
        p99_ms=statistics.median(p99),
        p99_range_ms=(min(p99), max(p99)),
        kept=all(
            summary.error_rate <= max_error_rate and (slo_p99_ms is None or summary.keeps(slo_p99_ms))
            for summary in rounds
        ),
    )


def front(trials: Sequence[Trial]) -> list[Trial]:
    """The Pareto front: no other trial of the same depth has both more answers and a lower p99. By p99."""
    kept = []
    for trial in trials:
        others = [other for other in trials if other.depth == trial.depth and other is not trial]
        beaten = any(
            other.answers_per_s >= trial.answers_per_s
            and other.p99_ms <= trial.p99_ms
            and (other.answers_per_s, other.p99_ms) != (trial.answers_per_s, trial.p99_ms)
            for other in others
        )
        kept += [] if beaten else [trial]
    return sorted(kept, key=lambda trial: (trial.depth or 0, trial.p99_ms))


def best(trials: Sequence[Trial]) -> list[Trial]:
    """For each depth the trial with the most answers of those that kept every bound."""
    depths = dict.fromkeys(trial.depth for trial in trials if trial.kept)
    return [
        max((t for t in trials if t.depth == depth and t.kept), key=lambda trial: trial.answers_per_s)
        for depth in depths
    ]
