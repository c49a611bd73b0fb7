"""What the parent and its client processes say to each other, through pipes."""

from dataclasses import dataclass

from loadtest.drive.budgets import Mix
from loadtest.drive.cases import Case
from loadtest.drive.client import Shot
from loadtest.drive.dialects import Dialect
from loadtest.drive.samples import Outcome, Sample


@dataclass(frozen=True)
class Setup:
    """What a client process needs for all its cells."""

    url: str
    headers: dict[str, str]
    dialect: Dialect
    cases: tuple[Case, ...]
    timeout_s: float


@dataclass(frozen=True)
class Job:
    """One process's share of a cell. `start` is on the clock of `time.monotonic`."""

    start: float
    warmup_s: float
    length_s: float
    users: int
    depth: int | Mix
    shots: tuple[Shot, ...]  # what the pacer sends, by due time
    seed: str
    first_number: int
    number_step: int  # closed-loop requests are numbered first_number, first_number + number_step, …
    limit: int  # in flight at most
    cancel: float  # share of the users' requests that are cancelled, within cancel_after_s
    cancel_after_s: float


@dataclass(frozen=True)
class Progress:
    """How a running cell stands, for the live view only: what ended since the last word, and what has not."""

    in_flight: int
    outcomes: dict[Outcome, int]
    latency_ms: tuple[float, ...]  # of what was answered
    late_ms: tuple[float, ...]


@dataclass(frozen=True)
class Health:
    """How the client process itself fared while requests were being started.

    `lag_ms` are the latenesses of a timer that fires every 20 ms: how long the event loop was held up.
    """

    requests: int
    unfinished: int  # abandoned when the run was interrupted
    cpu_s: float
    wall_s: float
    lag_ms: tuple[float, ...]


@dataclass(frozen=True)
class Finished:
    """All that one process has to say about a cell."""

    samples: list[Sample]
    health: Health


class Stop:
    """Ask a process to end its cell now, abandoning what is in flight."""
