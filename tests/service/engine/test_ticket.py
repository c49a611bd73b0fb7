"""A ticket: events in order, a reader who may be slow, and a budget that many share."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from model.halting import HaltReason
from service.engine.messages import Event, Finished, Stepped, Submission, Trajectory
from service.engine.ticket import Budget, Ticket
from tests.service.fakes import plan

LOGITS = np.zeros(2, np.float32)


def submission(problems: int = 1) -> Submission:
    return Submission(tuple(Trajectory(plan(n), max_steps=1000) for n in range(problems)), 0.0)


def step(number: int, index: int = 0, last: bool = False, bytes_: int = 0) -> Stepped:
    state = {"state": np.zeros(bytes_, np.uint8)} if bytes_ else None
    return Stepped(index, number, LOGITS, LOGITS, state, last)


EACH = step(1).nbytes


def end(index: int = 0) -> Finished:
    return Finished(index, 1, HaltReason.BUDGET, LOGITS, LOGITS)


def read(ticket: Ticket) -> list[Event]:
    """All there is, when the last problem has ended."""

    async def collect() -> list[Event]:
        return [event async for events in ticket for event in events]

    return asyncio.run(asyncio.wait_for(collect(), 10))


def steps(events: list[Event]) -> list[int]:
    return [event.step for event in events if isinstance(event, Stepped)]


def test_a_reader_in_time_gets_everything_in_order() -> None:
    ticket = Ticket(submission(), lambda _: None, Budget(10**6, 10**6))
    for number in range(1, 20):
        ticket.put(step(number))
    assert ticket.put(end())
    events = read(ticket)
    assert steps(events) == list(range(1, 20))
    assert isinstance(events[-1], Finished)
    assert ticket.dropped_steps == 0


def test_what_a_slow_reader_leaves_is_dropped_oldest_first_and_counted() -> None:
    budget = Budget(10 * EACH, 10**9)
    ticket = Ticket(submission(), lambda _: None, budget)
    for number in range(1, 1001):
        ticket.put(step(number, last=number == 1000))
        assert budget.used <= 10 * EACH
    ticket.put(end())
    assert steps(read(ticket)) == list(range(991, 1001))
    assert ticket.dropped_steps == 990
    assert budget.used == 0


def test_the_last_step_of_a_problem_is_never_dropped_however_little_may_be_kept() -> None:
    ticket = Ticket(submission(3), lambda _: None, Budget(1, 1))
    for number in range(1, 50):
        for index in range(3):
            ticket.put(step(number, index, last=number == 10 * (index + 1)))
    for index in range(3):
        ticket.put(end(index))
    assert steps(read(ticket)) == [10, 20, 30]


def test_states_count_with_their_size() -> None:
    ticket = Ticket(submission(), lambda _: None, Budget(10**6, 10**9))
    for number in range(1, 11):
        ticket.put(step(number, bytes_=300_000))
    ticket.put(end())
    assert steps(read(ticket)) == [8, 9, 10]


def test_all_readers_together_have_a_bound_too() -> None:
    budget = Budget(10**6, 20 * EACH)
    tickets = [Ticket(submission(), lambda _: None, budget) for _ in range(4)]
    for number in range(1, 101):
        for ticket in tickets:
            ticket.put(step(number))
            assert budget.used <= 20 * EACH
    for ticket in tickets:
        ticket.close()
    assert budget.used == 0


def test_what_is_reserved_is_never_dropped_and_is_given_back() -> None:
    budget = Budget(EACH, EACH)
    ticket = Ticket(submission(), lambda _: None, budget, reserved=500)
    for number in range(1, 101):
        ticket.put(step(number))
    ticket.put(end())
    assert len(steps(read(ticket))) == 100
    assert budget.used == 500
    ticket.close()
    ticket.close()
    assert budget.used == 0


def test_what_comes_after_the_reader_has_left_is_not_kept() -> None:
    left: list[Submission] = []
    budget = Budget(10**6, 10**6)
    ticket = Ticket(submission(), left.append, budget)
    ticket.put(step(1))
    ticket.close()
    assert left == [ticket.submission]
    for number in range(2, 100):
        ticket.put(step(number))
    assert budget.used == 0
    assert ticket.put(end()), "the engine must still learn that it was the last"


class Taking:
    """Somebody who takes steps at once, but for those of a number in `leaves`."""

    def __init__(self, *leaves: int) -> None:
        self.taken: list[Event] = []
        self._leaves = leaves

    def __call__(self, events: Sequence[Event]) -> bool:
        if any(isinstance(event, Finished) or event.step in self._leaves for event in events):
            return False
        self.taken += events
        return True


async def awaited(ticket: Ticket, got: list[Event]) -> asyncio.Task[None]:
    """A reader that waits by now."""

    async def collect() -> None:
        async for events in ticket:
            got.extend(events)

    reader = asyncio.create_task(collect())
    await asyncio.sleep(0)
    return reader


def test_steps_are_taken_where_they_come_while_the_reader_waits_and_it_gets_the_rest() -> None:
    async def scenario() -> None:
        budget, got, taking = Budget(10**6, 10**6), list[Event](), Taking(3)
        ticket = Ticket(submission(2), lambda _: None, budget)
        ticket.offer(taking)
        ticket.put(step(1))
        assert not taking.taken, "nobody waits for it yet"
        reader = await awaited(ticket, got)
        ticket.put(step(2), step(2, index=1))
        assert (steps(taking.taken), budget.used) == ([2, 2], 0)
        ticket.put(step(3))
        ticket.put(step(4))
        assert steps(taking.taken) == [2, 2], "the reader has 3 to read before that"
        while len(got) < 3:
            await asyncio.sleep(0)
        ticket.put(step(5))
        assert not ticket.put(step(6), end())
        assert ticket.put(end(1))
        await reader
        assert (steps(taking.taken), steps(got)) == ([2, 2, 5], [1, 3, 4, 6])
        assert got[-2:] == [end(), end(1)]

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_what_breaks_where_steps_are_taken_breaks_their_reader() -> None:
    def broken(_: Sequence[Event]) -> bool:
        raise RuntimeError("a bug")

    async def scenario() -> None:
        ticket = Ticket(submission(), lambda _: None, Budget(10**6, 10**6))
        ticket.offer(broken)
        reader = await awaited(ticket, [])
        assert not ticket.put(step(1))
        with pytest.raises(RuntimeError, match="a bug"):
            await reader

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_nothing_is_offered_once_nobody_reads() -> None:
    async def scenario() -> None:
        taking = Taking()
        ticket = Ticket(submission(), lambda _: None, Budget(10**6, 10**6))
        ticket.offer(taking)
        reader = await awaited(ticket, [])
        ticket.close()
        ticket.put(step(1))
        assert not taking.taken
        reader.cancel()

    asyncio.run(asyncio.wait_for(scenario(), 10))
