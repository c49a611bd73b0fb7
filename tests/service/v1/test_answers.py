"""POST /v1/infer answered whole: what an answer holds, and how the terms of a request are understood."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import numpy as np
import pytest

from service.http.v1.answer_schemas import InferAnswer
from tests.service.servers import Running, chain, counting_bundle, serving

CALIBRATED = {
    "problems": 1000,
    "max_steps": 40,
    "confidence": 0.95,
    "points": [
        {
            "criterion": "confidence",
            "threshold": threshold,
            "accuracy": accuracy,
            "mean_steps": steps,
            "hardest_accuracy": accuracy,
            "guaranteed": guaranteed,
        }
        for threshold, accuracy, steps, guaranteed in (
            (0.4, 0.9, 2.0, 0.85),
            (0.95, 0.99, 8.0, 0.97),
            (0.99, 0.99, 9.0, 0.98),
        )
    ],
}


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    bundles = (
        counting_bundle(version="2"),
        counting_bundle(version="10", calibration=CALIBRATED),
        counting_bundle("other", halting={"criterion": "none", "threshold": 0.0}),
    )
    with serving(*bundles) as running:
        yield running


def result_of(server: Running, problem: object = None, **terms: object) -> dict[str, object]:
    response = server.infer(problem or chain(5), **{"model": "graph", **terms})
    assert response.status_code == 200, response.text
    answer = InferAnswer.model_validate(response.json())  # what OpenAPI promises
    assert answer.id == response.headers["x-request-id"]
    result: dict[str, object] = response.json()["results"][0]
    return result


def test_an_answer_says_what_was_found_and_how_long_it_took(server: Running) -> None:
    response = server.infer(chain(5), model="graph", max_steps=16)
    body = response.json()
    assert response.headers["content-type"] == "application/json"
    assert body["id"].startswith("req_")
    assert (body["model"], body["version"]) == ("graph", "10")
    (result,) = body["results"]
    shares = result.pop("probabilities")
    assert result == {
        "answer": True,
        "label": "reachable",
        "steps": 5,
        "max_steps": 16,
        "halt_reason": "halted",
    }
    assert shares["reachable"] == pytest.approx(1 / (1 + np.exp(-3)))
    assert sum(shares.values()) == pytest.approx(1)
    assert body["usage"] == {"steps": 5}
    timings = body["timings_ms"]
    assert 0 <= timings["queue"] <= timings["total"]
    assert 0 < timings["compute"] <= timings["total"]


def test_a_list_is_answered_in_order_each_with_its_own_depth(server: Running) -> None:
    depths = [7, 2, 5, 3, 9, 4]
    body = server.infer([chain(depth) for depth in depths], model="graph").json()
    assert [result["steps"] for result in body["results"]] == depths
    assert body["usage"] == {"steps": sum(depths)}


def test_a_large_list_is_encoded_and_answered_like_a_small_one(server: Running) -> None:
    body = server.infer([chain(60) for _ in range(100)], model="graph", max_steps=3).json()
    assert [result["steps"] for result in body["results"]] == [3] * 100


def test_the_default_version_is_the_highest_and_others_can_be_named(server: Running) -> None:
    assert server.infer(chain(2), model="graph").json()["version"] == "10"
    assert server.infer(chain(2), model="graph@2").json()["version"] == "2"


def test_the_model_may_be_left_out_where_one_is_served() -> None:
    with serving(counting_bundle(version="1"), counting_bundle(version="2")) as server:
        assert server.infer(chain(2)).json()["version"] == "2"


def test_include_decides_what_results_hold(server: Running) -> None:
    bare = result_of(server, include=[])
    assert not {"probabilities", "scores", "trace", "latents"} & set(bare)
    everything = result_of(server, include=["probabilities", "scores", "trace"])
    assert everything["scores"] == {
        "confidence": 1.0,
        "entropy": pytest.approx(0.1),
        "kl": 0.0,
        "argmax_stability": 0.0,
    }
    trace = everything["trace"]
    assert isinstance(trace, list)
    assert [step["step"] for step in trace] == [1, 2, 3, 4, 5]
    assert [step["answer"] for step in trace] == [False] * 4 + [True]


def test_a_score_that_is_not_a_number_is_null(server: Running) -> None:
    result = result_of(server, max_steps=1, include=["scores"])
    scores = result["scores"]
    assert isinstance(scores, dict)
    assert scores["kl"] is None


@pytest.mark.parametrize(
    ("select", "shape"),
    [("readout", [2, 4]), ("pooled", [4]), ("full", [6, 4])],
    ids=lambda value: str(value),
)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_latents_come_back_as_selected_and_encoded(
    server: Running, select: str, shape: list[int], dtype: str
) -> None:
    whole = np.arange(6)[:, None] + np.full((1, 4), 5 / 8)
    expected = {"readout": whole[[0, 5]], "pooled": whole.mean(axis=0), "full": whole}[select]
    for encoding in ("base64", "json"):
        latents = result_of(server, latents={"select": select, "dtype": dtype, "encoding": encoding})[
            "latents"
        ]
        assert isinstance(latents, dict)
        assert (latents["shape"], latents["dtype"], latents["encoding"]) == (shape, dtype, encoding)
        if encoding == "base64":
            values = np.frombuffer(base64.b64decode(latents["data"]), np.dtype(dtype).newbyteorder("<"))
            np.testing.assert_array_equal(values.reshape(shape), expected)
        else:
            np.testing.assert_array_equal(np.array(latents["data"]), expected)


def test_a_trace_with_latents_shows_the_state_of_every_step(server: Running) -> None:
    trace = result_of(server, include=["trace"], latents={"select": "pooled", "encoding": "json"})["trace"]
    assert isinstance(trace, list)
    assert [step["latents"]["data"][0] for step in trace] == [2.5 + step / 8 for step in range(1, 6)]


def test_without_a_halting_rule_the_bundle_decides(server: Running) -> None:
    assert result_of(server, chain(1))["steps"] == 2  # its min_steps
    assert result_of(server, chain(1), max_steps=1)["steps"] == 1  # the caller's budget comes first
    assert result_of(server, chain(30))["max_steps"] == 16
    assert result_of(server, chain(30))["halt_reason"] == "budget"


def test_a_criterion_without_a_threshold_has_its_usual_one(server: Running) -> None:
    result = result_of(server, chain(9), halting={"criterion": "kl"})
    assert (result["steps"], result["halt_reason"]) == (2, "halted")  # not a number at 1, zero from 2 on


def test_a_threshold_a_patience_and_a_floor_are_kept(server: Running) -> None:
    halting = {"criterion": "confidence", "threshold": 0.75, "patience": 3}
    assert result_of(server, chain(4), halting=halting)["steps"] == 6
    assert result_of(server, chain(4), halting={"criterion": "confidence"}, min_steps=9)["steps"] == 9


def test_criterion_none_takes_exactly_max_steps(server: Running) -> None:
    result = result_of(server, chain(1), halting={"criterion": "none"}, max_steps=11)
    assert (result["steps"], result["halt_reason"]) == (11, "budget")


def test_a_target_accuracy_takes_the_cheapest_threshold_that_guarantees_it(server: Running) -> None:
    cheap = result_of(server, chain(5), halting={"target_accuracy": 0.85})
    assert (cheap["steps"], cheap["max_steps"]) == (2, 40)  # the budget that was measured
    assert result_of(server, chain(5), halting={"target_accuracy": 0.97})["steps"] == 5


def test_at_the_deadline_the_best_answer_so_far_is_returned() -> None:
    with serving() as server:
        server.runner.pace = 0.02
        result = result_of(server, halting={"criterion": "none"}, max_steps=10_000, deadline_ms=100)
        assert result["halt_reason"] == "deadline"
        assert isinstance(result["steps"], int)
        assert 1 <= result["steps"] <= 6
        late = result_of(server, halting={"criterion": "none"}, max_steps=10_000, deadline_ms=0.001)
        assert (late["halt_reason"], late["steps"]) == ("deadline", 1)


def test_a_sane_request_id_is_kept_and_any_other_replaced(server: Running) -> None:
    for offered, kept in (("mine-1", True), ("x" * 129, False), ("ümlaut".encode(), False)):
        response = server.client.post(
            "/v1/infer", json={"model": "graph", "input": chain(2)}, headers={"x-request-id": offered}
        )
        assert (response.headers["x-request-id"] == offered) is kept
        assert response.json()["id"] == response.headers["x-request-id"]


def test_one_problem_that_fails_is_told_apart_from_its_neighbours() -> None:
    with serving() as server:
        server.runner.nan_nodes = 13
        body = server.infer([chain(5), chain(12), chain(3)]).json()
        InferAnswer.model_validate(body)
        assert [result["halt_reason"] for result in body["results"]] == ["halted", "error", "halted"]
        failed = body["results"][1]
        assert (failed["answer"], failed["label"], failed["probabilities"]) == (None, None, None)
        assert "not finite" in failed["error"]


def test_a_request_of_which_nothing_came_is_an_error_of_the_server() -> None:
    with serving() as server:
        server.runner.nan_nodes = 13
        for problem in (chain(12), [chain(12), chain(12)]):
            response = server.infer(problem)
            assert response.status_code == 500
            assert response.json()["error"]["code"] == "model_failed"
        assert server.infer(chain(5)).status_code == 200
        assert server.metric("fathom_requests_total", model="graph", code="500") == 2
