"""Limits: what a caller may ask for per second and at a time, and that nobody else pays for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from model.halting import HaltReason
from service.engine.messages import Finished, Submission
from service.engine.ticket import Budget, Ticket
from service.errors import Overloaded, headers_of
from service.http.keys import ANYBODY, Caller
from service.http.keys_file import Allowance, new_key
from service.http.limits import BURST_SECONDS, Bucket, Limits
from service.settings import read_settings
from tests.service.servers import CountingRunner, Running, chain, events, eventually, serving


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Model:
    """As much of a served model as limits see."""

    def __init__(self) -> None:
        self.tickets: list[Ticket] = []
        self.under_way = 0

    def submit(self, submission: Submission, reserved: int, queue_seconds: float) -> Ticket:
        ticket = Ticket(submission, lambda _: None, Budget(1, 1), reserved)
        self.tickets.append(ticket)
        return ticket

    def steps_under_way(self, key: str) -> int:
        return self.under_way


def limits(clock: Clock, **given: float) -> Limits:
    return Limits(read_settings(given), clock)


def taken(limits: Limits, caller: Caller, steps: int) -> None:
    """A request of one problem that takes so many steps."""
    model: Any = Model()
    problem: Any = object()
    ticket = limits.admit(caller, model, Submission((problem,), 0.0, caller.name))
    ticket.put(Finished(0, steps, HaltReason.HALTED, taken=steps))
    ticket.close()


def retry_after(refusal: pytest.ExceptionInfo[Overloaded]) -> int:
    return int(headers_of(refusal.value)["retry-after"])


def test_a_bucket_fills_at_its_rate_and_holds_a_burst() -> None:
    bucket = Bucket(10, now=0)
    assert bucket.level(0) == 10 * BURST_SECONDS
    bucket.take(50, 0)
    assert bucket.level(1) == 10 * BURST_SECONDS - 40
    assert bucket.seconds_until(0, 1) == pytest.approx(2)
    assert bucket.level(1000) == 10 * BURST_SECONDS


def test_requests_past_the_rate_are_told_when_to_come_back() -> None:
    clock = Clock()
    mine = limits(clock, requests_per_second=0.25)
    mine.count_request(ANYBODY)
    with pytest.raises(Overloaded, match=r"0\.25 requests a second") as refusal:
        mine.count_request(ANYBODY)
    assert retry_after(refusal) == 4
    clock.now += 3.9
    with pytest.raises(Overloaded):
        mine.count_request(ANYBODY)
    clock.now += 0.1
    mine.count_request(ANYBODY)


def test_steps_are_charged_as_taken_and_a_debt_is_waited_for() -> None:
    clock = Clock()
    mine = limits(clock, steps_per_second=10)
    taken(mine, ANYBODY, 120)  # 100 more than the bucket holds
    with pytest.raises(Overloaded, match="10 steps a second") as refusal:
        mine.check_steps(ANYBODY)
    assert retry_after(refusal) == 10
    with pytest.raises(Overloaded):
        taken(mine, ANYBODY, 1)
    clock.now += 10
    taken(mine, ANYBODY, 1)


def test_over_time_nobody_takes_more_steps_than_the_rate() -> None:
    clock = Clock()
    mine, total = limits(clock, steps_per_second=100), 0
    for _ in range(10_000):
        try:
            taken(mine, ANYBODY, 37)
            total += 37
        except Overloaded:
            clock.now += 0.05
    assert total <= 100 * (clock.now - 100 + BURST_SECONDS) + 37


def test_steps_that_are_under_way_count_before_they_are_charged() -> None:
    mine = limits(Clock(), steps_per_second=10)
    busy: Any = Model()
    mine.check_steps(ANYBODY, busy)
    busy.under_way = 21
    with pytest.raises(Overloaded):
        mine.check_steps(ANYBODY, busy)


def test_a_key_has_its_own_limits_in_place_of_the_settings_and_its_own_bucket() -> None:
    mine = limits(Clock(), requests_per_second=0.5, max_problems=5)
    ada, bob = Caller("ada", allowance=Allowance(requests_per_second=0)), Caller("bob")
    for _ in range(50):
        mine.count_request(ada)
    mine.count_request(bob)
    with pytest.raises(Overloaded, match="'bob'"):
        mine.count_request(bob)
    mine.count_request(ANYBODY)
    assert mine.of(ada).requests_per_second == 0
    assert mine.of(ada).max_problems == mine.of(bob).max_problems == 5


def test_a_rate_that_has_changed_in_the_file_holds_from_then_on() -> None:
    mine = limits(Clock())
    mine.count_request(Caller("ada", allowance=Allowance(requests_per_second=0.5)))
    with pytest.raises(Overloaded):
        mine.count_request(Caller("ada", allowance=Allowance(requests_per_second=0.5)))
    for _ in range(3):
        mine.count_request(Caller("ada", allowance=Allowance(requests_per_second=4)))


# --- over HTTP ---


def refused(answer: httpx.Response) -> int:
    """The seconds after which a refused request should come back."""
    assert answer.status_code == 429, answer.text
    assert answer.json()["error"]["code"] == "overloaded"
    return int(answer.headers["retry-after"])


def keyed(tmp_path: Path, **limits: object) -> tuple[str, dict[str, str]]:
    """A file with the key `ada` of these limits and the key `bob` without, and their secrets by name."""
    (ada, one), (bob, two) = new_key("ada", **limits), new_key("bob")
    file = tmp_path / "keys"
    file.write_text(f"{one}\n{two}\n")
    return str(file), {"ada": ada, "bob": bob}


def asked(server: Running, key: str, problem: object, **terms: object) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"}
    return server.client.post("/v1/infer", json={"input": problem, **terms}, headers=headers)


def test_a_key_in_debt_is_refused_before_its_body_is_read_and_others_are_not(tmp_path: Path) -> None:
    file, keys = keyed(tmp_path, steps_per_second=1)
    with serving(keys_file=file) as server:
        assert asked(server, keys["ada"], chain(40), max_steps=60).json()["usage"]["steps"] == 40
        assert 35 <= refused(asked(server, keys["ada"], "no problem at all")) <= 39
        assert server.client.get("/v1/models", headers={"authorization": f"Bearer {keys['ada']}"}).is_success
        assert asked(server, keys["bob"], chain(3)).is_success


def test_who_leaves_before_the_end_pays_for_the_steps_that_were_taken(tmp_path: Path) -> None:
    runner = CountingRunner()
    file, keys = keyed(tmp_path, steps_per_second=0.001)
    with serving(runner=runner, keys_file=file) as server:
        body = {"input": chain(60), "max_steps": 60, "stream": True}
        headers = {"authorization": f"Bearer {keys['ada']}"}
        runner.pace = 0.01
        with server.client.stream("POST", "/v1/infer", json=body, headers=headers) as response:
            for _, (name, event) in zip(range(4), events(response), strict=False):
                assert (name, event["step"] >= 1) == ("step", True)
        runner.wait_until(taken=0)
        eventually(lambda: asked(server, keys["ada"], chain(1)).status_code == 429)


def test_a_key_has_as_many_streams_as_it_may_and_an_ended_one_makes_room(tmp_path: Path) -> None:
    runner = CountingRunner()
    file, keys = keyed(tmp_path, max_streams=1)
    with serving(runner=runner, keys_file=file) as server:
        runner.may_step.clear()
        body = {"input": chain(5), "stream": True}
        headers = {"authorization": f"Bearer {keys['ada']}"}
        with server.client.stream("POST", "/v1/infer", json=body, headers=headers) as response:
            assert response.status_code == 200
            assert refused(asked(server, keys["ada"], chain(2), stream=True)) == 1
            runner.may_step.set()
            assert asked(server, keys["ada"], chain(2)).is_success
            assert [name for name, _ in events(response)][-1] == "done"
        assert asked(server, keys["ada"], chain(2), stream=True).is_success


def test_a_key_with_a_short_queue_is_refused_where_others_wait(tmp_path: Path) -> None:
    runner = CountingRunner()
    file, keys = keyed(tmp_path, queue_seconds=0.05)
    with serving(runner=runner, keys_file=file, slots=1) as server:
        runner.may_step.clear()
        body = {"input": chain(60), "max_steps": 100, "stream": True}  # of 0.1 s by the model's account
        headers = {"authorization": f"Bearer {keys['bob']}"}
        with server.client.stream("POST", "/v1/infer", json=body, headers=headers) as response:
            assert refused(asked(server, keys["ada"], chain(60), max_steps=100)) == 1
            with server.client.stream("POST", "/v1/infer", json=body, headers=headers) as second:
                assert second.status_code == 200
                runner.may_step.set()
                response.read()
                second.read()


def test_a_key_that_fills_its_queue_leaves_room_for_others() -> None:
    runner = CountingRunner()
    with serving(runner=runner, api_keys="greedy,modest", slots=1, queue_seconds=0.25) as server:
        runner.may_step.clear()
        streams = []
        body = {"input": chain(60), "max_steps": 100, "stream": True}  # of 0.1 s by the model's account

        def ask(key: str) -> int:
            request = server.client.build_request(
                "POST", "/v1/infer", json=body, headers={"authorization": f"Bearer {key}"}
            )
            streams.append(server.client.send(request, stream=True))
            return streams[-1].status_code

        assert [ask("greedy") for _ in range(6)] == [200, 200, 200, 429, 429, 429]
        # For each other request of theirs it waited for 0.1 s; now it waits for as much as one of its own.
        assert ask("modest") == 200
        runner.may_step.set()
        for stream in streams:
            stream.read()
