"""Faults in a running server: who is hit is told so, the others are answered, and it goes on or exits."""

from __future__ import annotations

import logging
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from service.runners.runner import Landing
from tests.service.servers import (
    PATIENCE,
    CountingRunner,
    chain,
    counting_bundle,
    events,
    eventually,
    serving,
)
from tests.service.test_process import LONG, fathom_serve

TO_THE_END = {"criterion": "none"}


class MortalRunner(CountingRunner):
    """Ends its engine's thread, once, when it is told to."""

    dies = False

    def land(self) -> list[Landing]:
        landings = super().land()
        if self.dies:
            self.dies = False
            raise AssertionError("a bug of ours")
        return landings


def test_an_engine_that_dies_tells_its_requests_and_comes_back_while_others_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    back_off = threading.Event()
    monkeypatch.setattr("service.engine.inbox.Inbox.closes_within", lambda *_: not back_off.wait(PATIENCE))
    runner = MortalRunner()
    with (
        serving(counting_bundle(), counting_bundle("other"), runner=runner) as server,
        ThreadPoolExecutor(4) as pool,
    ):
        kept = server.client.post(
            "/v1/infer",
            json={"model": "graph", "input": chain(9), "max_steps": 3, "keep": 100},
            headers={"x-request-id": "mine"},
        )
        assert kept.status_code == 200
        runner.may_step.clear()
        whole = [pool.submit(server.infer, chain(3), model="graph") for _ in range(2)]
        terms = {"model": "graph", "stream": True, "halting": TO_THE_END, "max_steps": 10**5}
        streamed = pool.submit(server.infer, chain(3), **terms)
        eventually(lambda: server.served.running + server.served.waiting == 3)
        runner.dies = True
        runner.may_step.set()
        for lost in whole:
            error = lost.result(PATIENCE).json()["error"]
            assert (lost.result().status_code, error["code"]) == (500, "model_failed")
            assert "restarting" in error["message"]
        assert streamed.result(PATIENCE).text.rpartition("event: ")[2].startswith("error")
        refused = server.infer(chain(3), model="graph")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
        assert server.infer(chain(3), model="other").json()["results"][0]["steps"] == 3
        assert server.client.get("/health/ready").status_code == 200, "the others can take traffic"
        assert [server.metric("fathom_ready", model=model) for model in ("graph", "other")] == [0, 1]
        back_off.set()
        eventually(lambda: server.infer(chain(3), model="graph").status_code == 200)
        gone_on = server.client.post("/v1/infer", json={"continue_from": "mine", "max_steps": 32})
        assert gone_on.json()["results"][0]["steps"] == 9, "an engine that is restarted loses no thought"
        runner.wait_until(taken=0)
        assert server.metric("fathom_running", model="graph") == 0


@pytest.mark.parametrize("breaks", [{"nan_nodes": 8}, {"failing_nodes": 8}], ids=["a NaN", "an exception"])
def test_a_row_that_breaks_the_model_is_told_so_and_its_neighbours_are_not(breaks: dict[str, int]) -> None:
    runner = CountingRunner(**breaks)
    with serving(runner=runner) as server, ThreadPoolExecutor(8) as pool:
        runner.may_step.clear()
        # A bucket of another length, and so another batch: a step that raises fails all of its batch.
        sound = [pool.submit(server.infer, chain(20)) for _ in range(4)]
        broken = [pool.submit(server.infer, chain(7), **terms) for terms in ({}, {"stream": True})]
        eventually(lambda: server.served.running + server.served.waiting == 6)
        runner.may_step.set()
        assert [one.result(PATIENCE).json()["results"][0]["steps"] for one in sound] == [16] * 4
        whole, streamed = (one.result(PATIENCE) for one in broken)
        assert (whole.status_code, whole.json()["error"]["code"]) == (500, "model_failed")
        assert streamed.text.rpartition("event: ")[2].startswith("error")
        assert '"code":"model_failed"' in streamed.text
        runner.wait_until(taken=0)
        assert server.metric("fathom_halt_total", model="graph", reason="error") == 2
        assert server.client.get("/health/ready").status_code == 200


def test_sigterm_under_load_leaves_no_request_without_an_answer() -> None:
    """Those that had begun are answered; who comes later is refused in words, or finds nobody there."""
    seen, lock = Counter[str](), threading.Lock()
    begun = threading.Barrier(9)
    body = {"model": "graph", "input": chain(6)}

    def follow(url: str, id_: str) -> str:
        asked = {**LONG, "input": [chain(60, nodes=list(range(200)))] * 4, "max_steps": 4096}
        with (
            httpx.Client(base_url=url, timeout=PATIENCE, headers={"x-request-id": id_}) as client,
            client.stream("POST", "/v1/infer", json=asked) as response,
        ):
            coming = events(response)
            assert next(coming)[0] == "step"
            begun.wait(PATIENCE)
            name, data = list(coming)[-1]
            assert len(data["results"]) == 4
        return name

    def ask(url: str) -> None:
        begun.wait(PATIENCE)
        while True:
            try:
                answer = httpx.post(f"{url}/v1/infer", json=body, timeout=PATIENCE)
            except httpx.TransportError:
                return
            with lock:
                seen[f"{answer.status_code} {answer.json().get('error', {}).get('code', '')}".strip()] += 1

    with fathom_serve("--drain-seconds", "60") as server, ThreadPoolExecutor(8) as pool:
        url = str(server.client.base_url)
        ids = [f"stream-{number}" for number in range(4)]
        streams = [pool.submit(follow, url, id_) for id_ in ids]
        asking = [pool.submit(ask, url) for _ in range(4)]
        begun.wait(PATIENCE)
        eventually(lambda: seen["200"] >= 4)
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: seen["503 unavailable"] >= 4)
        for id_ in ids:
            assert httpx.delete(f"{url}/v1/requests/{id_}", timeout=PATIENCE).status_code in (200, 404)
        assert [one.result(PATIENCE) for one in streams] == ["done"] * 4
        assert server.process.wait(PATIENCE) == 0
        for one in asking:
            one.result(PATIENCE)
    assert set(seen) == {"200", "503 unavailable"}, seen
    assert not [line for line in server.log if "ERROR" in line or "Traceback" in line], server.log
