"""The worker: a real thread and a real event loop around an engine with a fake runner."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import pytest

from model.halting import HaltReason
from service.engine.engine import EngineLimits
from service.engine.work import Finished, Problem, Stepped, Submission
from service.engine.worker import Ticket, Worker
from service.errors import Overloaded, Unavailable
from tests.service.fakes import FakeCodec, FakeObserver, FakeRunner, fake_bundle, plan


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 30))


def work(*names: int, steps: int = 3, every_step: bool = False) -> Submission:
    problems = tuple(Problem(plan(name), max_steps=steps, every_step=every_step) for name in names)
    return Submission(problems, time.monotonic())


async def ends(ticket: Ticket) -> list[Finished]:
    return [event async for event in ticket if isinstance(event, Finished)]


async def until(worker: Worker, health: str | None) -> None:
    """Wait until the worker's health begins with `health` (None: ready)."""
    while (now := worker.health()) is not health and not (now and health and now.startswith(health)):
        await asyncio.sleep(0.001)


@asynccontextmanager
async def started(runner: FakeRunner, limits: EngineLimits | None = None) -> AsyncIterator[Worker]:
    worker = Worker(fake_bundle(), FakeCodec(), runner, limits or EngineLimits(slots=2), FakeObserver())
    worker.start()
    await until(worker, None)
    try:
        yield worker
    finally:
        runner.may_step.set()
        worker.close()


def test_a_worker_is_not_ready_before_a_real_step_has_run() -> None:
    async def scenario() -> None:
        runner = FakeRunner()
        runner.may_step.clear()
        worker = Worker(fake_bundle(), FakeCodec(), runner, EngineLimits(), FakeObserver())
        assert (worker.health() or "").startswith("starting")
        worker.start()
        await asyncio.to_thread(runner.stepping.wait, 10)
        with pytest.raises(Unavailable):
            worker.submit(work(1))
        runner.may_step.set()
        await until(worker, None)
        worker.close()

    run(scenario())


def test_many_submissions_each_get_their_own_events_in_order() -> None:
    async def scenario() -> None:
        async with started(FakeRunner()) as worker:
            tickets = [worker.submit(work(name, name + 100, every_step=True)) for name in range(30)]
            for name, ticket in enumerate(tickets):
                events = [event async for event in ticket]
                for index in (0, 1):
                    own = [event for event in events if event.index == index]
                    assert [event.step for event in own if isinstance(event, Stepped)] == [1, 2, 3]
                    assert isinstance(own[-1], Finished)
                    assert own[-1].logits is not None
                    assert own[-1].logits.tolist() == [name + 100 * index, 3]

    run(scenario())


def test_overload_is_refused_at_once_and_an_empty_queue_takes_anything() -> None:
    async def scenario() -> None:
        runner = FakeRunner()
        async with started(runner, EngineLimits(slots=1, queue_steps=20)) as worker:
            runner.may_step.clear()
            large = worker.submit(work(1, 2, steps=30))
            with pytest.raises(Overloaded) as refusal:
                worker.submit(work(3, steps=1))
            assert refusal.value.retry_after >= 1
            runner.may_step.set()
            assert len(await ends(large)) == 2
            assert len(await ends(worker.submit(work(3, steps=1)))) == 1

    run(scenario())


def test_a_cancelled_ticket_ends_with_cancelled_and_frees_its_slots() -> None:
    async def scenario() -> None:
        runner = FakeRunner()
        async with started(runner) as worker:
            ticket = worker.submit(work(1, 2, 3, steps=10**6))
            await asyncio.to_thread(runner.stepping.wait, 10)
            ticket.cancel()
            ticket.cancel()
            assert [end.reason for end in await ends(ticket)] == [HaltReason.CANCELLED] * 3
            assert runner.rows == {}
            assert worker.waiting_steps == 0

    run(scenario())


def test_draining_refuses_the_new_and_finishes_the_old() -> None:
    async def scenario() -> None:
        runner = FakeRunner()
        async with started(runner) as worker:
            runner.may_step.clear()
            ticket = worker.submit(work(1))
            drained = asyncio.create_task(worker.drain(10))
            await until(worker, "draining")
            with pytest.raises(Unavailable):
                worker.submit(work(2))
            assert not drained.done()
            runner.may_step.set()
            assert await drained
            assert (await ends(ticket))[0].reason is HaltReason.BUDGET

    run(scenario())


def test_closing_cancels_what_outlasts_the_drain_and_joins_the_thread() -> None:
    async def scenario() -> None:
        runner = FakeRunner()
        async with started(runner) as worker:
            ticket = worker.submit(work(1, steps=10**9))
            assert not await worker.drain(0.01)
            worker.close()
            assert (await ends(ticket))[0].reason is HaltReason.CANCELLED
            assert runner.closed

    run(scenario())


def test_a_step_that_hangs_makes_the_worker_stalled_and_its_return_makes_it_well() -> None:
    async def scenario() -> None:
        runner = FakeRunner()
        async with started(runner, EngineLimits(slots=2, stall_seconds=0.05)) as worker:
            await asyncio.sleep(0.1)
            assert worker.health() is None, "being idle is not a stall"
            runner.may_step.clear()
            ticket = worker.submit(work(1))
            await until(worker, "stalled")
            runner.may_step.set()
            await ends(ticket)
            assert worker.health() is None

    run(scenario())


def broken(batches: object) -> NoReturn:
    raise AssertionError("a bug of ours")


def test_an_engine_that_fails_answers_everyone_with_an_error_and_says_so() -> None:
    async def scenario() -> None:
        runner = FakeRunner()
        async with started(runner) as worker:
            runner.may_step.clear()
            ticket = worker.submit(work(1, 2, 3))
            await asyncio.to_thread(runner.stepping.wait, 10)
            runner.step = broken  # type: ignore[method-assign]
            runner.may_step.set()
            assert [end.reason for end in await ends(ticket)] == [HaltReason.ERROR] * 3
            assert (worker.health() or "").startswith("failed")
            with pytest.raises(Unavailable):
                worker.submit(work(4))

    run(scenario())
