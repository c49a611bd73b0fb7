"""A served model: a real thread and a real event loop around an engine with a fake runner."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import pytest

from model.halting import HaltReason
from service.engine.engine import EngineLimits
from service.engine.messages import Finished, Stepped, Submission, Trajectory
from service.engine.served_model import RESTARTS, SUSPICIOUS, ServedModel, State
from service.engine.ticket import Budget, Ticket
from service.errors import Overloaded, StartupError, Unavailable
from tests.service.fakes import FakeCodec, FakeObserver, FakeRunner, fake_bundle, plan


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 30))


def work(*names: int, steps: int = 3, every_step: bool = False) -> Submission:
    problems = tuple(Trajectory(plan(name), max_steps=steps, every_step=every_step) for name in names)
    return Submission(problems, time.monotonic())


async def ends(ticket: Ticket) -> list[Finished]:
    return [event async for events in ticket for event in events if isinstance(event, Finished)]


def worker_of(
    opener: Callable[[], FakeRunner],
    limits: EngineLimits | None = None,
    observer: FakeObserver | None = None,
    budget: Budget | None = None,
) -> ServedModel:
    return ServedModel(
        fake_bundle(),
        FakeCodec(),
        opener,
        limits or EngineLimits(slots=2),
        observer or FakeObserver(),
        budget or Budget(10**6, 10**6),
    )


async def until(served: ServedModel, health: str | None) -> None:
    """Wait until the model's health begins with `health` (None: ready)."""
    while (now := served.health()) is not health and not (now and health and now.startswith(health)):
        await asyncio.sleep(0.001)


@asynccontextmanager
async def started(runner: FakeRunner, limits: EngineLimits | None = None) -> AsyncIterator[ServedModel]:
    served = worker_of(lambda: runner, limits)
    served.start()
    await until(served, None)
    try:
        yield served
    finally:
        runner.may_step.set()
        served.close()
        await served.closed()


def test_a_worker_is_not_ready_before_a_real_step_has_run() -> None:
    async def scenario() -> None:
        runner = FakeRunner()
        runner.may_step.clear()
        served = worker_of(lambda: runner)
        assert (served.health() or "").startswith("starting")
        served.start()
        await asyncio.to_thread(runner.stepping.wait, 10)
        with pytest.raises(Unavailable):
            served.submit(work(1))
        runner.may_step.set()
        await until(served, None)
        served.close()
        await served.closed()

    run(scenario())


def test_many_submissions_each_get_their_own_events_in_order() -> None:
    async def scenario() -> None:
        async with started(FakeRunner()) as served:
            tickets = [served.submit(work(name, name + 100, every_step=True)) for name in range(30)]
            for name, ticket in enumerate(tickets):
                events = [event async for batch in ticket for event in batch]
                for index in (0, 1):
                    own = [event for event in events if event.index == index]
                    assert [event.step for event in own if isinstance(event, Stepped)] == [1, 2, 3]
                    assert isinstance(own[-1], Finished)
                    assert own[-1].logits is not None
                    assert own[-1].logits.tolist() == [name + 100 * index, 3]

    run(scenario())


def test_a_loop_that_is_behind_hears_of_several_steps_at_once() -> None:
    async def scenario() -> None:
        observer = FakeObserver()
        served = worker_of(FakeRunner, observer=observer)
        served.start()
        await until(served, None)
        ticket = served.submit(work(1, steps=5, every_step=True))
        while not observer.reasons:
            time.sleep(0.001)  # the loop does nothing else meanwhile
        batches = [events async for events in ticket]
        assert sum(map(len, batches)) == 6
        assert len(batches) <= 2, "the last step may have been told a moment later"
        served.close()
        await served.closed()

    run(scenario())


def test_overload_is_refused_at_once_and_an_empty_queue_takes_anything() -> None:
    async def scenario() -> None:
        runner = FakeRunner(cost=1.0)
        async with started(runner, EngineLimits(slots=1, queue_seconds=20)) as served:
            runner.may_step.clear()
            large = served.submit(work(1, 2, steps=30))
            with pytest.raises(Overloaded) as refusal:
                served.submit(work(3, steps=30))
            assert refusal.value.retry_after >= 1
            short = served.submit(work(4, steps=1))  # passes the others, so it does not wait for long
            runner.may_step.set()
            assert len(await ends(short)) == 1
            assert len(await ends(large)) == 2
            assert len(await ends(served.submit(work(3, steps=1)))) == 1

    run(scenario())


def test_a_cancelled_ticket_ends_with_cancelled_and_frees_its_slots() -> None:
    async def scenario() -> None:
        runner = FakeRunner()
        async with started(runner) as served:
            ticket = served.submit(work(1, 2, 3, steps=10**6))
            await asyncio.to_thread(runner.stepping.wait, 10)
            ticket.cancel()
            ticket.cancel()
            assert [end.reason for end in await ends(ticket)] == [HaltReason.CANCELLED] * 3
            assert runner.rows == {}
            assert served.waiting_steps == 0

    run(scenario())


def test_draining_refuses_the_new_and_finishes_the_old() -> None:
    async def scenario() -> None:
        runner = FakeRunner()
        async with started(runner) as served:
            runner.may_step.clear()
            ticket = served.submit(work(1))
            drained = asyncio.create_task(served.drain(10))
            await until(served, "draining")
            with pytest.raises(Unavailable):
                served.submit(work(2))
            assert not drained.done()
            runner.may_step.set()
            assert await drained
            assert (await ends(ticket))[0].reason is HaltReason.BUDGET

    run(scenario())


def test_closing_cancels_what_outlasts_the_drain_and_joins_the_thread() -> None:
    async def scenario() -> None:
        runner = FakeRunner()
        async with started(runner) as served:
            ticket = served.submit(work(1, steps=10**9))
            assert not await served.drain(0.01)
            served.close()
            assert (await ends(ticket))[0].reason is HaltReason.CANCELLED
            await served.closed()
            assert runner.closed

    run(scenario())


def test_a_step_that_hangs_makes_the_worker_stalled_and_its_return_makes_it_well() -> None:
    async def scenario() -> None:
        runner = FakeRunner()
        async with started(runner, EngineLimits(slots=2, stall_seconds=0.05)) as served:
            await asyncio.sleep(0.1)
            assert served.health() is None, "being idle is not a stall"
            runner.may_step.clear()
            ticket = served.submit(work(1))
            await until(served, "stalled")
            runner.may_step.set()
            await ends(ticket)
            assert served.health() is None

    run(scenario())


def broken() -> NoReturn:
    raise AssertionError("a bug of ours")


def test_an_engine_that_breaks_down_tells_everyone_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.engine.served_model.BACK_OFF_SECONDS", (0.01, 0.01))

    async def scenario() -> None:
        runners = [FakeRunner(), FakeRunner()]
        first, observer = runners[0], FakeObserver()
        served = worker_of(lambda: runners.pop(0), observer=observer)
        served.start()
        await served.started()
        first.may_step.clear()
        first.stepping.clear()
        ticket = served.submit(work(1, 2, 3))
        await asyncio.to_thread(first.stepping.wait, 10)
        first.land = broken  # type: ignore[method-assign]
        first.may_step.set()
        lost = await ends(ticket)
        assert [end.reason for end in lost] == [HaltReason.ERROR] * 3
        assert "restarting" in (lost[0].error or "")
        assert observer.loads[-1] == (0, 0), "nobody runs in an engine that has broken down"
        await until(served, None)
        assert observer.restarts == 1
        assert first.closed, "what the broken engine held is let go of"
        assert [end.reason for end in await ends(served.submit(work(4)))] == [HaltReason.BUDGET]
        assert served.running == served.waiting == 0
        served.close()
        await served.closed()

    run(scenario())


def test_an_engine_that_keeps_breaking_down_has_failed_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.engine.served_model.BACK_OFF_SECONDS", (0.001, 0.001))

    async def scenario() -> None:
        good, opened = FakeRunner(), 0

        def opener() -> FakeRunner:
            nonlocal opened
            opened += 1
            if opened > 1:
                raise RuntimeError("no device")
            return good

        served = worker_of(opener)
        served.start()
        await served.started()
        good.land = broken  # type: ignore[method-assign]
        assert [end.reason for end in await ends(served.submit(work(1)))] == [HaltReason.ERROR]
        await until(served, "failed: RuntimeError")
        assert served.state is State.FAILED
        assert opened == 1 + RESTARTS
        with pytest.raises(Unavailable):
            served.submit(work(4))
        served.close()
        await served.closed()

    run(scenario())


def test_a_model_that_cannot_take_its_first_step_says_so_to_whoever_starts_it() -> None:
    async def scenario() -> None:
        runner = FakeRunner()
        runner.land = broken  # type: ignore[method-assign]
        served = worker_of(lambda: runner)
        served.start()
        with pytest.raises(StartupError, match="a bug of ours"):
            await served.started()
        served.close()
        await served.closed()

    run(scenario())


def test_requests_that_fail_one_after_the_other_do_not_end_an_engine_that_works() -> None:
    async def scenario() -> None:
        async with started(FakeRunner()) as served:
            for name in range(3 * SUSPICIOUS):
                problem = Trajectory(plan(name, fail_at=1), max_steps=3)
                ticket = served.submit(Submission((problem,), time.monotonic()))
                assert [end.reason for end in await ends(ticket)] == [HaltReason.ERROR]
            assert served.health() is None
            assert [end.reason for end in await ends(served.submit(work(1)))] == [HaltReason.BUDGET]

    run(scenario())


def test_a_problem_that_fits_into_a_free_slot_is_never_refused() -> None:
    async def scenario() -> None:
        runner = FakeRunner(cost=1.0)
        async with started(runner, EngineLimits(slots=64, queue_seconds=1)) as served:
            runner.may_step.clear()
            tickets = [served.submit(work(name, steps=4096)) for name in range(64)]
            with pytest.raises(Overloaded):
                served.submit(work(64, steps=4096))
            for ticket in tickets:
                ticket.cancel()
            runner.may_step.set()

    run(scenario())


def test_a_deadline_bounds_what_a_request_weighs() -> None:
    async def scenario() -> None:
        runner = FakeRunner(cost=1.0)
        async with started(runner, EngineLimits(slots=1, queue_seconds=5)) as served:
            runner.may_step.clear()
            deep = [served.submit(work(1, steps=4096))]
            with pytest.raises(Overloaded):
                served.submit(work(2, steps=4096))
            now = time.monotonic()
            timed = Submission((Trajectory(plan(3), max_steps=4096, deadline=now + 0.05),), now)
            ticket = served.submit(timed)
            runner.may_step.set()
            assert [end.reason for end in await ends(ticket)] == [HaltReason.DEADLINE]
            deep[0].cancel()

    run(scenario())
