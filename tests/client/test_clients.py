"""Both clients against a real server."""

from __future__ import annotations

import asyncio
import gc
import logging
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from client import (
    ApiError,
    AsyncClient,
    Client,
    FathomError,
    Invalid,
    NotFound,
    Overloaded,
    Unauthorized,
    Unavailable,
)
from tests.client.both import BOTH, AnyClient
from tests.service.servers import CountingRunner, Running, chain, counting_bundle, serving

FOREVER: dict[str, Any] = {"halting": "none", "max_steps": 1_000_000}


@pytest.fixture
def server() -> Iterator[Running]:
    with serving(slots=2, runner=CountingRunner(nan_nodes=8)) as running:
        yield running


@pytest.fixture(params=BOTH, ids=["blocking", "asyncio"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def client(server: Running, kind: type[AnyClient]) -> Iterator[AnyClient]:
    with kind(str(server.client.base_url)) as client:
        yield client


def test_an_answer_has_types(client: AnyClient) -> None:
    answer = client.infer("graph", chain(4), max_steps=9, request_id="mine", include=["scores"])
    (result,) = answer.results
    assert (answer.id, answer.model, answer.version, answer.usage.steps) == ("mine", "graph", "1", 4)
    assert (result.answer, result.label, result.steps, result.max_steps) == (True, "reachable", 4, 9)
    assert result.halt_reason == "halted"
    assert (result.probabilities, result.latents, result.trace, result.error) == (None, None, None, None)
    assert result.scores
    assert result.scores["confidence"] == 1.0
    assert answer.timings.total >= answer.timings.compute >= 0


def test_an_answer_is_the_servers_own(server: Running, client: AnyClient) -> None:
    problems = [chain(4), chain(2)]
    terms = {"include": ["probabilities", "scores", "trace"], "min_steps": 3}
    sent = {**terms, "halting": {"criterion": "confidence", "threshold": 0.8}, "max_steps": 6}
    plain = server.infer(problems, **sent, latents={"select": "pooled", "encoding": "json"}).json()
    answer = client.infer(None, problems, **sent, latents="pooled")
    own = answer.as_dict()
    assert [result["steps"] for result in own["results"]] == [4, 3]
    for result in plain["results"]:
        for shown in (result, *result["trace"]):
            shown["latents"] = shown["latents"]["data"]
    assert own["results"] == plain["results"]


def test_a_stream_shows_what_a_trace_shows(client: AnyClient) -> None:
    terms: Any = {"latents": {"select": "full", "dtype": "float16"}, "include": ["scores", "trace"]}
    (whole,) = client.infer("graph", chain(5), **terms).results
    steps = client.stream("graph", chain(5), **terms)
    for step, traced in zip(steps, whole.trace or [], strict=True):
        assert (step.index, step.step, step.answer, step.scores) == (0, *_shown(traced))
        assert isinstance(step.latents, np.ndarray)
        assert (step.latents.shape, step.latents.dtype) == ((6, 4), np.float16)
        np.testing.assert_array_equal(step.latents, traced.latents)
    assert steps.answer
    assert steps.answer.dropped_steps == 0
    (last,) = steps.answer.results
    np.testing.assert_array_equal(last.latents, whole.latents)


def _shown(traced: Any) -> tuple[Any, ...]:
    return traced.step, traced.answer, traced.scores


def test_there_is_no_answer_before_the_end_of_a_stream(server: Running, client: AnyClient) -> None:
    with client.stream("graph", chain(3)) as steps:
        assert steps.answer is None
        assert next(steps).step == 1
        assert steps.answer is None
        assert len(list(steps)) == 2
        assert steps.answer
        assert steps.answer.id == steps.id
        assert list(steps) == []


def test_closing_a_stream_frees_its_slots(server: Running, client: AnyClient) -> None:
    with client.stream("graph", [chain(2), chain(3)], **FOREVER) as steps:
        next(steps)
        server.runner.wait_until(2)
    server.runner.wait_until(0)
    assert list(steps) == []
    assert client.infer("graph", chain(2)).results[0].steps == 2


def test_letting_go_of_a_stream_frees_its_slots(server: Running) -> None:
    with Client(str(server.client.base_url)) as client:
        for _ in client.stream("graph", chain(2), **FOREVER):
            server.runner.wait_until(1)
            break
        gc.collect()
        server.runner.wait_until(0)


def test_a_task_that_is_cancelled_frees_its_slots(server: Running) -> None:
    async def main(streams: bool) -> None:
        async with AsyncClient(str(server.client.base_url)) as client:

            async def ask() -> None:
                if streams:
                    async for _ in client.stream("graph", chain(2), **FOREVER):
                        pass
                else:
                    await client.infer("graph", chain(2), **FOREVER)

            task = asyncio.create_task(ask())
            await asyncio.to_thread(server.runner.wait_until, 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.to_thread(server.runner.wait_until, 0)

    asyncio.run(main(streams=True))
    asyncio.run(main(streams=False))


def test_a_refusal_is_an_error_of_its_kind(client: AnyClient) -> None:
    with pytest.raises(NotFound) as unknown:
        client.infer("chess", chain(1))
    assert (unknown.value.status, unknown.value.code) == (404, "unknown_model")
    assert unknown.value.request_id
    with pytest.raises(Invalid) as wrong:
        client.infer("graph", {**chain(1), "target": 9})
    assert (wrong.value.status, wrong.value.field) == (422, "input.target")
    steps = client.stream("graph", {**chain(1), "target": 9})
    with pytest.raises(Invalid):
        next(steps)
    assert steps.answer is None


def test_a_model_that_breaks_down_is_told_whole_and_in_mid_stream(client: AnyClient) -> None:
    with pytest.raises(ApiError) as whole:
        client.infer("graph", chain(7), halting="none", max_steps=4)
    assert (whole.value.status, whole.value.code) == (500, "model_failed")
    steps = client.stream("graph", chain(7), halting="none", max_steps=4)
    assert next(steps).step == 1
    with pytest.raises(ApiError) as streamed:
        list(steps)
    assert (streamed.value.status, streamed.value.code) == (None, "model_failed")


def test_a_full_server_says_when_to_come_back(kind: type[AnyClient]) -> None:
    with (
        serving(slots=1, queue_seconds=0.001) as server,
        kind(str(server.client.base_url), retries=0) as client,
    ):
        server.runner.may_step.clear()
        with Client(str(server.client.base_url)) as other, ThreadPoolExecutor(1) as pool:
            first = pool.submit(other.infer, "graph", chain(3))
            server.runner.wait_until(1)
            with pytest.raises(Overloaded) as full:
                client.infer("graph", [chain(3)] * 200)
            assert full.value.retry_after
            server.runner.may_step.set()
            assert first.result(20).results[0].steps == 3


def test_a_server_that_drains_is_unavailable(kind: type[AnyClient]) -> None:
    with serving() as server, kind(str(server.client.base_url), retries=0) as client:
        server.runner.may_step.clear()
        server.served.stop_admitting()
        with pytest.raises(Unavailable):
            client.infer("graph", chain(3))
        server.runner.may_step.set()


def test_models_are_described(client: AnyClient) -> None:
    (listed,) = client.models()
    assert (listed.name, listed.version, listed.default, listed.backend) == ("graph", "1", True, "fake")
    model = client.model("graph@1")
    assert client.infer(model.name, model.example).results[0].label in ("reachable", "unreachable")
    assert model.schema
    assert model.more["limits"]["max_problems"] == 256
    with pytest.raises(NotFound):
        client.model("graph@2")
    with pytest.raises(NotFound):
        client.model("a/b")


def test_threads_may_share_a_client(server: Running) -> None:
    with Client(str(server.client.base_url)) as client, ThreadPoolExecutor(8) as pool:
        depths = [2 + number % 5 for number in range(64)]
        answers = pool.map(lambda depth: client.infer("graph", chain(depth)), depths)
        assert [answer.results[0].steps for answer in answers] == depths


def test_many_tasks_may_share_a_client(server: Running) -> None:
    async def main() -> list[int]:
        async with AsyncClient(str(server.client.base_url)) as client:
            asked = (client.infer("graph", chain(1 + number % 5)) for number in range(150))
            return [answer.results[0].steps for answer in await asyncio.gather(*asked)]

    assert asyncio.run(main()) == [max(2, 1 + number % 5) for number in range(150)]


@pytest.mark.parametrize("key", ["open-sesame", "sésam-öffne-dich"])
def test_a_key_opens_and_is_never_shown(
    kind: type[AnyClient], key: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said = []
    with serving(counting_bundle(), api_keys=key) as server:
        url = str(server.client.base_url)
        with kind(url, key) as right, kind(url, f"not-{key}") as wrong, kind(url) as none:
            assert right.infer("graph", chain(2)).results[0].answer
            said += [repr(right), str(vars(right))]
            for client in (wrong, none):
                with pytest.raises(Unauthorized) as refused:
                    client.infer("graph", chain(2))
                said.append("".join(traceback.format_exception(refused.value)))
            with pytest.raises(FathomError) as failed:
                right.infer("graph", {**chain(2), "target": 9})
            said.append("".join(traceback.format_exception(failed.value)))
        with kind("http://127.0.0.1:1", key, retries=0) as nobody, pytest.raises(FathomError) as failed:
            nobody.infer("graph", chain(2))
        said.append("".join(traceback.format_exception(failed.value)))
    assert caplog.records
    told = "\n".join([*said, *(record.getMessage() for record in caplog.records)])
    assert "Unauthorized" in told
    for form in (key, repr(key.encode())[2:-1]):
        assert form not in told


def test_cancelling_by_id_ends_a_stream_with_its_best_answers(server: Running, client: AnyClient) -> None:
    steps = client.stream("graph", [chain(2), chain(3), chain(4)], **FOREVER)  # two slots: one waits
    next(steps)
    server.runner.wait_until(2)
    with Client(str(server.client.base_url)) as other:
        assert other.cancel(steps.id) == 3
        list(steps)
        assert steps.answer
        results = steps.answer.results
        assert [result.halt_reason for result in results] == ["cancelled"] * 3
        assert (results[2].steps, results[2].answer) == (0, None)
        with pytest.raises(NotFound) as gone:
            other.cancel(steps.id)
    assert gone.value.code == "unknown_request"
    server.runner.wait_until(0)
