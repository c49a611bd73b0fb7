"""A task comes with its codec alone: pages, examples and answers of one that this house does not know."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

import pytest

import model.codecs
from model.errors import BundleError
from service.bundles.opening import open_fleet
from service.http.v1.answer_schemas import InferAnswer
from service.settings import read_settings
from service.telemetry.metrics import Metrics
from tests.model import test_codecs
from tests.service.servers import CountingRunner, chain, counting_bundle, serving

DOMAIN = {"sentence": "Right up to six nodes.", "limits": {"nodes": 6}}
POINT = {
    "criterion": "confidence",
    "threshold": 0.8,
    "patience": 1,
    "accuracy": 0.6,
    "mean_steps": 1.0,
    "hardest_accuracy": 0.5,
    "guaranteed": 0.4,
}
CALIBRATION = {"problems": 100, "max_steps": 64, "confidence": 0.95, "points": [POINT]}


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("nodes", f"{test_codecs.__name__}:Brought", model.codecs.GROUP)]
    monkeypatch.setattr("model.codecs.metadata.entry_points", lambda group: points if group else [])


@pytest.mark.usefixtures("nodes")
def test_a_codec_from_outside_is_served_and_shown_like_ours() -> None:
    ours, brought = counting_bundle(), counting_bundle("count", codec={"name": "nodes"}, domain=DOMAIN)
    with serving(ours, brought, codecs="nodes, other") as server:
        answer = server.infer(4, model="count").json()["results"][0]
        assert (answer["answer"], answer["steps"]) == (True, 4)
        shown = server.client.get("/v1/models/count").json()
        assert (shown["example"], shown["schema"]["title"], shown["domain"]) == (3, "Nodes", DOMAIN)
        page = server.client.get("/openapi.json").json()
        request = page["components"]["schemas"]["InferRequest"]
        kinds = request["properties"]["input"]["anyOf"]
        assert [kind.get("title") for kind in kinds] == ["Nodes", "GraphProblem", None]
        assert request["anyOf"][0] == {"required": ["model", "input"]}
        assert {body["model"]: body["input"] for body in request["examples"]}["count"] == 3
        for body in request["examples"]:
            assert server.client.post("/v1/infer", json=body).status_code == 200
        refused = server.infer("x", model="count").json()["error"]
        assert refused["field"] == "input"


def test_a_problem_beyond_the_domain_is_answered_with_a_warning_of_its_own() -> None:
    with serving(counting_bundle(domain=DOMAIN)) as server:
        body = server.infer([chain(5), chain(6)]).json()
        first, second = body["results"]
        assert "warnings" not in first, "only where there is something to warn of"
        assert second["warnings"] == ["with 7 nodes, over 6, the answer may be wrong: Right up to six nodes."]
        assert second["answer"] is True
        InferAnswer.model_validate(body)


def test_a_rule_that_is_known_to_stop_too_early_warns_in_answers_and_streams() -> None:
    with serving(counting_bundle(calibration=CALIBRATION)) as server:
        rash = {"halting": {"criterion": "confidence", "threshold": 0.5}}
        body = server.infer(chain(2), **rash).json()
        (warning,) = body["results"][0]["warnings"]
        assert "right on 50.0% of the hardest problems" in warning
        streamed = server.infer(chain(2), stream=True, **rash).text
        assert streamed.count("may stop too early") == 1, "in done, and not in every step"
        assert "warnings" not in server.infer(chain(2)).text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codec": {"name": "grid"}}, "codec 'grid' is not available; use graph, logic"),
        (
            {"domain": {"sentence": "Right.", "limits": {"hops": 6}}},
            "domain limits 'hops', but its codec measures nodes, edges",
        ),
    ],
)
def test_a_codec_that_is_not_there_or_cannot_measure_ends_the_start(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr("service.bundles.opening.bundles_of", lambda _: [counting_bundle(**changes)])
    monkeypatch.setattr("service.bundles.opening.open_runner", lambda *_: CountingRunner())
    settings = read_settings({})
    with pytest.raises(BundleError, match=message) as refusal:
        open_fleet(settings, Metrics(settings))
    assert "\n" not in refusal.value.message
