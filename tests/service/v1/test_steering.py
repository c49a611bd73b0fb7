"""DELETE, keep and continue_from, interventions, samples and aggregates over HTTP, on real servers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest

from service.app import create_app
from service.http.v1.answer_schemas import InferAnswer
from service.http.v1.kept import KeptThoughts
from service.settings import read_settings
from tests.service.servers import (
    CountingRunner,
    Running,
    chain,
    counting_bundle,
    events,
    eventually,
    serving,
    uvicorn_running,
)

Body = dict[str, Any]
TO_THE_END = {"criterion": "none"}
SCALE = {"step": 2, "op": "scale", "value": 1e6}


@pytest.fixture
def server() -> Iterator[Running]:
    with serving(counting_bundle(), slots=4) as running:
        yield running


@pytest.fixture(scope="module")
def shipped() -> Iterator[httpx.Client]:
    settings = read_settings({"keep_seconds": 100, "max_kept_bytes": 2**24})
    with (
        uvicorn_running(create_app(settings)) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        eventually(lambda: client.get("/health/ready").status_code == 200)
        yield client


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as executor:
        yield executor


def ask(client: httpx.Client, id_: str = "", **body: Any) -> Body:
    response = client.post("/v1/infer", json=body, headers={"x-request-id": id_} if id_ else {})
    assert response.status_code == 200, response.text
    InferAnswer.model_validate(response.json())
    answer: Body = response.json()
    return answer


def graph(hops: int) -> Body:
    return {"edges": [[n, n + 1] for n in range(hops)], "source": 0, "target": hops}


def refusal(response: httpx.Response) -> tuple[int, str, str | None]:
    error = response.json()["error"]
    return response.status_code, error["code"], error["field"]


# --- DELETE ---


def held(server: Running, pool: ThreadPoolExecutor, id_: str, **body: Any) -> Future[httpx.Response]:
    """A request that is in its slots and cannot step on."""
    server.runner.may_step.clear()
    problems = body["input"] if isinstance(body["input"], list) else [body["input"]]
    future = pool.submit(server.client.post, "/v1/infer", json=body, headers={"x-request-id": id_})
    server.runner.wait_until(min(len(problems), 4))
    return future


def test_a_cancelled_request_answers_with_what_it_has_and_who_had_not_begun_takes_no_step(
    server: Running, pool: ThreadPoolExecutor
) -> None:
    body = {"input": [chain(9)] * 6, "halting": TO_THE_END, "max_steps": 1000}
    future = held(server, pool, "mine", **body)
    reply = server.client.delete("/v1/requests/mine")
    assert (reply.status_code, reply.json()) == (200, {"id": "mine", "cancelled": 6})
    server.runner.may_step.set()
    answer = future.result().json()
    InferAnswer.model_validate(answer)
    assert [result["halt_reason"] for result in answer["results"]] == ["cancelled"] * 6
    assert [(result["steps"], result["answer"]) for result in answer["results"][4:]] == [(0, None)] * 2
    for result in answer["results"][:4]:
        assert 1 <= result["steps"] <= 3
        assert result["answer"] is not None
    assert answer["usage"]["steps"] == sum(result["steps"] for result in answer["results"])
    server.runner.wait_until(0)
    assert server.infer(chain(2)).json()["results"][0]["answer"] is True


def test_a_cancelled_stream_ends_with_its_answer(server: Running) -> None:
    body = {"input": chain(9), "halting": TO_THE_END, "max_steps": 1_000_000, "stream": True}
    seen: list[tuple[str, Body]] = []
    headers = {"x-request-id": "a/b c"}
    server.runner.pace = 0.002
    with server.client.stream("POST", "/v1/infer", json=body, headers=headers) as response:
        for name, data in events(response):
            seen.append((name, data))
            if len(seen) == 3:
                assert server.client.delete("/v1/requests/a%2Fb%20c").json()["cancelled"] == 1
    assert [name for name, _ in seen].count("done") == 1
    (result,) = seen[-1][1]["results"]
    assert result["halt_reason"] == "cancelled"
    assert result["steps"] == seen[-2][1]["step"]
    assert result["answer"] == seen[-2][1]["answer"]


def test_what_does_not_run_cannot_be_cancelled(server: Running) -> None:
    ask(server.client, "over", input=chain(2))
    for id_ in ("over", "never", ""):
        assert refusal(server.client.delete(f"/v1/requests/{id_}"))[:2] == (404, "unknown_request")


def test_two_running_requests_of_one_id_are_both_cancelled(server: Running, pool: ThreadPoolExecutor) -> None:
    body = {"input": chain(9), "halting": TO_THE_END, "max_steps": 1000}
    server.runner.may_step.clear()
    futures = [
        pool.submit(server.client.post, "/v1/infer", json=body, headers={"x-request-id": "twin"})
        for _ in range(2)
    ]
    eventually(lambda: server.served.running + server.served.waiting == 2)
    assert server.client.delete("/v1/requests/twin").json() == {"id": "twin", "cancelled": 2}
    server.runner.may_step.set()
    for future in futures:
        assert future.result().json()["results"][0]["halt_reason"] == "cancelled"


def test_only_the_key_that_sent_a_request_may_cancel_it_or_go_on_from_it(pool: ThreadPoolExecutor) -> None:
    with serving(counting_bundle(), api_keys="one,two", slots=4) as server:
        mine, theirs = ({"authorization": f"Bearer {key}"} for key in ("one", "two"))
        body = {"input": chain(9), "halting": TO_THE_END, "max_steps": 1000, "keep": 60}
        server.runner.may_step.clear()
        future = pool.submit(
            server.client.post, "/v1/infer", json=body, headers={**mine, "x-request-id": "secret"}
        )
        server.runner.wait_until(1)
        assert refusal(server.client.delete("/v1/requests/secret", headers=theirs))[:2] == (
            404,
            "unknown_request",
        )
        assert server.client.delete("/v1/requests/secret").status_code == 401
        assert server.client.delete("/v1/requests/secret", headers=mine).status_code == 200
        server.runner.may_step.set()
        assert future.result().json()["results"][0]["halt_reason"] == "cancelled"
        further = {"continue_from": "secret", "max_steps": 20}
        stranger = server.client.post("/v1/infer", json=further, headers=theirs)
        assert refusal(stranger) == (404, "unknown_request", "continue_from")
        own = server.client.post("/v1/infer", json=further, headers=mine)
        assert own.json()["results"][0]["steps"] == 20


# --- keep and continue_from ---


SEVERAL: dict[str, list[Body]] = {
    "graph": [graph(hops) for hops in (1, 5, 12, 40)],
    "text": [
        {
            "facts": [f"P{n} is the parent of P{n + 1}" for n in range(links)],
            "query": f"P0 is the parent of P{links}",
        }
        for links in (1, 6)
    ],
    "logic": [{"expression": text} for text in ("T", "!(T&F)|F", "!" * 12 + "(T|F)")],
}
SHOWN = {"include": ["probabilities", "scores", "answer_entropy"], "latents": {"select": "full"}}


@pytest.mark.parametrize("model", list(SEVERAL))
@pytest.mark.parametrize(
    "halting", [{}, {"halting": TO_THE_END}, {"halting": {"criterion": "kl", "patience": 3}}]
)
def test_a_thought_that_goes_on_is_bit_for_bit_one_request(
    shipped: httpx.Client, model: str, halting: Body
) -> None:
    terms = {"model": model, **halting, **SHOWN}
    whole = ask(shipped, input=SEVERAL[model], max_steps=32, **terms)
    first = ask(shipped, "first", input=SEVERAL[model], max_steps=1, keep=60, **terms)
    second = ask(shipped, "second", continue_from="first", max_steps=9, keep=60, **SHOWN)
    third = ask(shipped, continue_from="second", max_steps=32, **SHOWN)
    for one, other in zip(whole["results"], third["results"], strict=True):
        assert one == other
    taken = [answer["usage"]["steps"] for answer in (first, second, third)]
    assert sum(taken) == whole["usage"]["steps"]
    again = ask(shipped, continue_from="second", max_steps=32, **SHOWN)
    assert again["results"] == third["results"], "what is kept can be gone on from again"


def test_a_stream_goes_on_with_the_step_after_the_last(shipped: httpx.Client) -> None:
    ask(shipped, "begun", model="graph", input=graph(9), max_steps=4, halting=TO_THE_END, keep=60)
    body = {"continue_from": "begun", "max_steps": 8, "stream": True}
    with shipped.stream("POST", "/v1/infer", json=body) as response:
        seen = list(events(response))
    assert [data["step"] for name, data in seen if name == "step"] == [5, 6, 7, 8]
    assert seen[-1][1]["usage"]["steps"] == 4


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"continue_from": "never"}, (404, "unknown_request", "continue_from")),
        ({"max_steps": 3}, (422, "invalid", "max_steps")),
        ({"input": graph(1)}, (422, "invalid", "input")),
        ({"model": "text"}, (422, "invalid", "model")),
        ({"keep": 1000}, (422, "invalid", "keep")),
        ({"aggregate": "mode"}, (422, "invalid", "aggregate")),
        ({"samples": {"count": 2}}, (422, "invalid", "continue_from")),
        ({"interventions": [{"step": 4, "op": "zero"}]}, (422, "invalid", "interventions.0.step")),
    ],
    ids=lambda case: ",".join(case) if isinstance(case, dict) else "",
)
def test_what_cannot_go_on_is_refused(
    shipped: httpx.Client, changes: Body, expected: tuple[int, str, str]
) -> None:
    ask(shipped, "four", model="graph", input=graph(9), max_steps=4, halting=TO_THE_END, keep=60)
    body = {"continue_from": "four", "max_steps": 32, **changes}
    assert refusal(shipped.post("/v1/infer", json=body)) == expected


def test_what_is_kept_is_bounded_in_time_and_bytes_and_evicts_whoever_holds_most() -> None:
    with serving(counting_bundle(), slots=4, max_kept_bytes=20_000, api_keys="a,b") as server:
        kept: KeptThoughts = server.app.state.service.kept

        def keep(id_: str, key: str, seconds: float = 600) -> int:
            headers = {"x-request-id": id_, "authorization": f"Bearer {key}"}
            body = {"input": chain(5), "keep": seconds}
            return server.client.post("/v1/infer", json=body, headers=headers).status_code

        def is_there(id_: str, key: str) -> bool:
            body = {"continue_from": id_, "max_steps": 64}
            headers = {"authorization": f"Bearer {key}"}
            return server.client.post("/v1/infer", json=body, headers=headers).status_code == 200

        assert keep("theirs", "b") == 200
        each = kept.used
        assert each > 0
        for n in range(40):
            assert keep(f"mine{n}", "a") == 200
            assert kept.used <= 20_000
        assert is_there("theirs", "b"), "another key's are not lost to it"
        assert not is_there("mine0", "a")
        assert is_there("mine39", "a")
        before = kept.used
        assert keep("mine39", "a") == 200
        assert kept.used <= before, "the newer takes the place of the older"
        assert keep("short", "b", seconds=0.01) == 200
        eventually(lambda: not is_there("short", "b"))
        assert not [name for name in kept.requests if name[1] == "short"]
        many = {"input": [chain(19)] * 100, "keep": 60}
        refused = server.client.post("/v1/infer", json=many, headers={"authorization": "Bearer a"})
        assert refusal(refused) == (422, "invalid", "keep")


def test_nothing_stays_set_aside_when_requests_are_refused_or_go_away() -> None:
    runner = CountingRunner()
    with serving(counting_bundle(), runner=runner, slots=4, max_kept_bytes=20_000) as server:
        kept: KeptThoughts = server.app.state.service.kept
        runner.may_step.clear()
        body = {"input": chain(5), "keep": 60, "halting": TO_THE_END, "max_steps": 1000}
        leaving = threading.Thread(target=_ask_and_leave, args=(server.client.base_url, body))
        leaving.start()
        runner.wait_until(1)
        assert kept.used > 0
        leaving.join()
        runner.may_step.set()
        runner.wait_until(0)
        eventually(lambda: kept.used == 0)


def _ask_and_leave(url: httpx.URL, body: Body) -> None:
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{str(url).rstrip('/')}/v1/infer", json=body, timeout=0.5)


# --- interventions ---


def test_an_intervention_changes_its_answer_and_says_by_how_much(shipped: httpx.Client) -> None:
    body = {"model": "graph", "input": graph(5), "max_steps": 8, "halting": TO_THE_END}
    clean = ask(shipped, **body)["results"][0]
    hit = [{"step": 7, "op": "zero"}, {"step": 8, "op": "zero"}]
    changed = ask(shipped, **body, interventions=hit)["results"][0]
    assert "effect" not in changed
    assert changed["probabilities"] != clean["probabilities"]
    paired = ask(shipped, **body, interventions=hit, paired=True)
    (result,) = paired["results"]
    effect = result.pop("effect")
    assert result == changed
    p, q = (np.array(list(each["probabilities"].values())) for each in (clean, changed))
    assert effect["kl"] == pytest.approx(float((p * np.log(p / q)).sum()), rel=1e-4)
    assert effect["answer_changed"] is (clean["answer"] != changed["answer"])
    assert paired["usage"]["steps"] == 16, "the clean row is thought, too"


def test_an_intervention_without_effect_has_none(shipped: httpx.Client) -> None:
    body = {"model": "graph", "input": [graph(3), graph(6)], "max_steps": 8, "halting": TO_THE_END}
    answer = ask(shipped, **body, interventions=[{"step": 2, "op": "scale", "value": 1}], paired=True)
    assert [result["effect"] for result in answer["results"]] == [{"kl": 0.0, "answer_changed": False}] * 2


def test_interventions_leave_other_requests_alone(shipped: httpx.Client, pool: ThreadPoolExecutor) -> None:
    body = {"model": "graph", "input": [graph(7), graph(20)], "max_steps": 24, "latents": {"select": "full"}}
    clean = ask(shipped, **body)["results"]
    noisy = [
        {"step": step, "op": "noise", "tokens": [0, 3], "value": 2.0, "seed": step} for step in range(1, 9)
    ]
    futures = [
        pool.submit(ask, shipped, **body, **({"interventions": noisy} if n % 2 else {})) for n in range(16)
    ]
    answers = [future.result()["results"] for future in futures]
    assert all(answer == clean for answer in answers[::2])
    assert all(answer == answers[1] for answer in answers[1::2])
    assert answers[1] != clean


@pytest.mark.parametrize(
    ("intervention", "field"),
    [
        ({"step": 9, "op": "zero"}, "step"),
        ({"step": 0, "op": "zero"}, "step"),
        ({"step": 1, "op": "erase"}, "op"),
        ({"step": 1, "op": "scale"}, "value"),
        ({"step": 1, "op": "zero", "value": 1}, "value"),
        ({"step": 1, "op": "set", "value": [1, 2]}, "value"),
        ({"step": 1, "op": "set", "value": True}, "value"),
        ({"step": 1, "op": "add", "value": 1e300}, "value"),
        ({"step": 1, "op": "zero", "tokens": [5]}, "tokens.0"),
        ({"step": 1, "op": "zero", "tokens": [-1]}, "tokens.0"),
        ({"step": 1, "op": "zero", "tokens": [1, 1]}, "tokens"),
        ({"step": 1, "op": "zero", "tokens": []}, "tokens"),
        ({"step": 1, "op": "zero", "tokens": "some"}, "tokens"),
        ({"step": 1, "op": "zero", "state": "other"}, "state"),
        ({"step": 1, "op": "zero", "seed": -1}, "seed"),
        ({"step": 1, "op": "zero", "more": 1}, "more"),
    ],
    ids=lambda case: json.dumps(case) if isinstance(case, dict) else "",
)
def test_an_intervention_that_means_nothing_is_refused_by_field(
    shipped: httpx.Client, intervention: Body, field: str
) -> None:
    body = {"model": "graph", "input": graph(4), "max_steps": 8, "interventions": [intervention]}
    assert refusal(shipped.post("/v1/infer", json=body)) == (422, "invalid", f"interventions.0.{field}")


@pytest.mark.parametrize(
    ("steering", "field"),
    [
        ({"samples": {"count": 2, "noise": 1e6}}, "samples.noise"),
        ({"interventions": [{"step": 1, "op": "set", "value": 1e6}, *[SCALE] * 20]}, "interventions"),
    ],
)
def test_a_state_that_is_changed_beyond_all_numbers_is_the_callers_doing(
    shipped: httpx.Client, steering: Body, field: str
) -> None:
    body = {"model": "graph", "input": graph(3), "max_steps": 64, "halting": TO_THE_END, **steering}
    assert refusal(shipped.post("/v1/infer", json=body)) == (422, "invalid", field)
    streamed = shipped.post("/v1/infer", json={**body, "stream": True}).text
    assert streamed.rpartition("event: ")[2].startswith("error")
    assert f'"field":"{field}"' in streamed


def test_so_it_is_for_who_goes_on_from_such_a_state(shipped: httpx.Client) -> None:
    steering = {"interventions": [{"step": 1, "op": "set", "value": 1e6}, *[SCALE] * 20]}
    body = {"model": "graph", "input": graph(3), "max_steps": 8, "halting": TO_THE_END, **steering}
    kept = shipped.post("/v1/infer", json={**body, "keep": 60}, headers={"x-request-id": "broken"})
    assert refusal(kept) == (422, "invalid", "interventions")
    further = shipped.post("/v1/infer", json={"continue_from": "broken", "max_steps": 16})
    assert refusal(further) == (422, "invalid", "continue_from")


def test_what_goes_without_interventions_is_refused(shipped: httpx.Client) -> None:
    body = {"model": "graph", "input": graph(4)}
    assert refusal(shipped.post("/v1/infer", json={**body, "paired": True}))[2] == "paired"
    many = [{"step": 1, "op": "zero"}] * 65
    assert refusal(shipped.post("/v1/infer", json={**body, "interventions": many}))[2] == "interventions"


# --- aggregates ---


def test_the_aggregate_of_all_steps_is_what_the_trace_says(shipped: httpx.Client) -> None:
    body = {"model": "graph", "input": [graph(3), graph(9)], "max_steps": 8, "halting": TO_THE_END}
    traced = ask(shipped, **body, include=["trace"])["results"]
    for aggregate in ("mode", "mean"):
        shown = ask(shipped, **body, aggregate=aggregate, include=["probabilities", "answer_entropy"])[
            "results"
        ]
        for one, steps in zip(shown, (result["trace"] for result in traced), strict=True):
            labels = [step["label"] for step in steps]
            shares = {label: labels.count(label) / 8 for label in one["probabilities"]}
            if aggregate == "mean":
                means = {
                    k: np.mean([step["probabilities"][k] for step in steps]) for k in one["probabilities"]
                }
                assert one["probabilities"] == pytest.approx(means)
            else:
                assert one["probabilities"] == pytest.approx(shares, abs=1e-6)
                assert one["label"] == max(shares, key=lambda label: shares[label])
            entropy = -sum(q * np.log(q) for q in shares.values() if q)
            assert one["answer_entropy"] == pytest.approx(entropy)
    last = ask(shipped, **body, aggregate="last")["results"]
    assert [one["label"] for one in last] == [one["trace"][-1]["label"] for one in traced]


# --- samples ---


def test_samples_vote_the_same_whoever_is_beside_them(
    shipped: httpx.Client, pool: ThreadPoolExecutor
) -> None:
    body = {"model": "graph", "input": [graph(4), graph(11)], "max_steps": 16}
    samples = {"count": 8, "noise": 0.6, "seed": 7}
    alone = ask(shipped, **body, samples=samples)
    for result in alone["results"]:
        assert sum(result["samples"]["votes"].values()) == 8
        assert result["samples"]["agreement"] == result["samples"]["votes"][result["label"]] / 8
        assert result["samples"]["agreement"] == max(result["samples"]["votes"].values()) / 8
    assert alone["usage"]["steps"] >= 16
    others = [pool.submit(ask, shipped, **body, samples=samples) for _ in range(4)]
    others += [pool.submit(ask, shipped, **body, samples={**samples, "seed": n}) for n in range(4)]
    for other in others[:4]:
        assert other.result()["results"] == alone["results"]
    assert len({json.dumps(other.result()["results"]) for other in others[4:]}) > 1
    single = ask(shipped, **{**body, "input": graph(11)}, samples=samples)["results"]
    assert single == alone["results"][1:]


def test_samples_without_noise_all_agree_with_the_plain_answer(shipped: httpx.Client) -> None:
    body = {"model": "graph", "input": graph(4), "max_steps": 16}
    plain = ask(shipped, **body)
    sampled = ask(shipped, **body, samples={"count": 3, "noise": 0})
    (result,) = sampled["results"]
    assert result.pop("samples") == {"votes": {"reachable": 3}, "agreement": 1.0}
    assert result == plain["results"][0]
    assert sampled["usage"]["steps"] == 3 * plain["usage"]["steps"]


def test_a_single_sample_is_a_vote_of_one(shipped: httpx.Client) -> None:
    body = {"model": "graph", "input": [graph(4), graph(2)], "max_steps": 16}
    plain = ask(shipped, **body)["results"]
    for result, without in zip(
        ask(shipped, **body, samples={"count": 1, "noise": 0})["results"], plain, strict=True
    ):
        assert result.pop("samples") == {"votes": {"reachable": 1}, "agreement": 1.0}
        assert result == without


def test_the_surest_sample_has_the_best_score_of_its_criterion(shipped: httpx.Client) -> None:
    body = {
        "model": "graph",
        "input": graph(4),
        "max_steps": 6,
        "halting": TO_THE_END,
        "include": ["probabilities"],
    }
    seen = []
    request = {**body, "stream": True, "samples": {"count": 6, "noise": 0.8, "seed": 1, "choose": "surest"}}
    with shipped.stream("POST", "/v1/infer", json=request) as response:
        seen = list(events(response))
    last = {data["sample"]: data for name, data in seen if name == "step" and data["step"] == 6}
    assert sorted(last) == list(range(6))
    best = max(last.values(), key=lambda data: max(data["probabilities"].values()))
    (result,) = seen[-1][1]["results"]
    assert result["probabilities"] == best["probabilities"]


def test_too_many_samples_and_what_does_not_go_with_them_are_refused(shipped: httpx.Client) -> None:
    body = {"model": "graph", "input": graph(4), "samples": {"count": 2}}
    changes: list[tuple[Body, str]] = [
        ({"samples": {"count": 65}}, "samples.count"),
        ({"samples": {"count": 2, "noise": -1}}, "samples.noise"),
        ({"samples": {"count": 64}, "input": [graph(1)] * 65}, "samples.count"),
        ({"samples": {"count": 2, "more": 1}}, "samples.more"),
        ({"keep": 5}, "keep"),
        ({"paired": True, "interventions": [{"step": 1, "op": "zero"}]}, "paired"),
    ]
    for change, field in changes:
        assert refusal(shipped.post("/v1/infer", json={**body, **change})) == (422, "invalid", field)
