"""How long a request may have to wait for others, and whether that is too long."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection

from model.halting import HaltReason
from model.row import Bucket
from service.engine.messages import Finished, Submission, Trajectory
from service.engine.ticket import Ticket
from service.errors import Overloaded

LONGEST_RETRY = 60  # seconds; a busier server than that should be retried elsewhere
NEWEST = 0.02  # how much the newest row counts
LEAST_PART = 1 / 8  # who comes next may ask for deeper ones


class Depths:
    """Which part of its budget a row uses up, by what it halts on; from those that have ended of late.

    Without it a server that answers after 3 of 64 steps would refuse work as if each took all of them.
    """

    def __init__(self) -> None:
        self._parts: dict[str, float] = {}

    def saw(self, trajectory: Trajectory, end: Finished) -> None:
        """A row has ended. One that was cut short says nothing."""
        if end.reason in (HaltReason.HALTED, HaltReason.BUDGET) and trajectory.steps_left:
            criterion = trajectory.rule.criterion
            before = self._parts.get(criterion, 1.0)
            self._parts[criterion] = before + NEWEST * (end.taken / trajectory.steps_left - before)

    def part(self, trajectory: Trajectory) -> float:
        """All of it, where nothing is known."""
        return max(LEAST_PART, self._parts.get(trajectory.rule.criterion, 1.0))


def weight_of(submission: Submission, cost: Callable[[Bucket], float], depths: Depths) -> float:
    """About how many seconds of compute a submission takes, a step of each problem at least.

    cost: seconds that a row of a bucket takes for a step.
    """
    weight = 0.0
    for trajectory in submission.trajectories:
        step = cost(trajectory.row.bucket)
        most = max(step, trajectory.steps_left * step * depths.part(trajectory))
        if trajectory.deadline is not None:
            most = min(most, max(step, trajectory.deadline - submission.arrived))
        weight += most
    return weight


def refuse_if_full(
    submission: Submission,
    weight: float,
    tickets: Collection[Ticket],
    slots: int,
    abreast: int,
    most: float,
) -> None:
    """Raise Overloaded where a request of so many seconds would wait for more than `most`.

    tickets: what has not ended; abreast: how many batches are computed at the same time. Where there is a
    slot for everybody, nobody waits.
    """
    present = sum(ticket.unfinished for ticket in tickets)
    if not present or present + len(submission.trajectories) <= slots:
        return
    ahead = seconds_ahead(submission.key, weight, tickets) / abreast
    if ahead > most:
        raise Overloaded(
            f"the queue is full: this may have to wait for {ahead:.0f} s, over the "
            f"{most:g} allowed; ask for fewer steps, or try again later",
            retry_after=min(LONGEST_RETRY, ahead - most),
        )


def seconds_ahead(key: str, weight: float, tickets: Collection[Ticket]) -> float:
    """The seconds of others' compute that a request of so many may have to wait for.

    With fair shares that is as much of every other request of its key as it asks for itself, so a short
    one passes the long ones; and as much of every other key as of its own, however much that has sent.
    """
    own, others = 0.0, defaultdict[str, float](float)
    for ticket in tickets:
        if ticket.submission.key == key:
            own += min(weight, ticket.weight)
        else:
            others[ticket.submission.key] += ticket.weight
    return own + sum(min(own + weight, all_of_it) for all_of_it in others.values())
