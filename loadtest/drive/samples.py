"""What is known about one request after it has ended."""

from typing import Literal, NamedTuple

Outcome = Literal["ok", "refused", "failed", "timed_out", "cancelled"]
OUTCOMES: tuple[Outcome, ...] = ("ok", "refused", "failed", "timed_out", "cancelled")


class Sample(NamedTuple):
    """One request. A tuple, not a dataclass: hundreds of thousands cross a pipe from the client processes.

    Times ending in `_ms` are milliseconds, in `_s` seconds; None means that the server did not say.
    """

    number: int  # within its cell
    problem: int  # its place among the problems
    asked: int  # max_steps
    probe: bool  # a depth-1 request of the probe
    measured: bool  # due after the warm-up
    due_s: float  # intended start, after the cell's own start
    late_ms: float  # from due until the client got round to it
    wait_ms: float  # from then until it was allowed in flight
    latency_ms: float  # from due until the last byte (until given up, when timed out or cancelled)
    outcome: Outcome
    status: int  # 0 when no status line came
    error: str  # the server's error code or the client's words for what went wrong; "" when ok
    steps: int | None = None  # steps used
    halt_reason: str | None = None
    queue_ms: float | None = None
    compute_ms: float | None = None
    server_ms: float | None = None
    first_step_ms: float | None = None  # from due until the first step event
    gaps_ms: tuple[float, ...] = ()  # between the step events that followed
    correct: bool | None = None  # against the problem's label, when both are known

    @property
    def done_s(self) -> float:
        """When it ended, in seconds after the cell's start."""
        return self.due_s + self.latency_ms / 1e3
