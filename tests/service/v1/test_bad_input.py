"""Bad input: always the one error shape, with the field, and never a slot taken."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.service.servers import Running, chain, counting_bundle, eventually, serving
from tests.service.v1.test_answers import CALIBRATED

LIMIT = 100_000  # bytes of a body
VALID: dict[str, Any] = {
    "model": "graph",
    "input": chain(3),
    "max_steps": 8,
    "min_steps": 1,
    "halting": {"criterion": "confidence", "threshold": 0.9, "patience": 1},
    "deadline_ms": 50.0,
    "stream": False,
    "include": ["scores"],
    "latents": {"select": "pooled", "dtype": "float16", "encoding": "json"},
}


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    bundles = (counting_bundle(), counting_bundle("calibrated", calibration=CALIBRATED))
    with serving(*bundles, max_body_bytes=LIMIT, max_problems=4, max_nodes=20, max_edges=30) as running:
        yield running


def graph(**changes: object) -> dict[str, object]:
    return {**chain(3), **changes}


def without(key: str) -> dict[str, object]:
    return {name: value for name, value in chain(3).items() if name != key}


BAD = [
    ("no input", {"model": "graph", "input": ...}, "input", "is missing"),
    ("an unknown field", {"zzz": 3}, "zzz", "unknown field; known here: model, input"),
    ("a mistyped field", {"max_stpes": 3}, "max_stpes", "did you mean max_steps? known here: model, input"),
    ("an unknown halting field", {"halting": {"treshold": 1}}, "halting.treshold", "threshold? known"),
    ("an unknown latents field", {"latents": {"what": 1}}, "latents.what", "select, dtype, encoding"),
    ("a model that is no string", {"model": 7}, "model", "must be a string"),
    ("no model where several are served", {"model": None}, "model", "calibrated, graph"),
    ("an input that is no problem", {"input": 3}, "input", "object"),
    ("a null input", {"input": None}, "input", "object"),
    ("an empty list", {"input": []}, "input", "at least one"),
    ("too many problems", {"input": [chain(1)] * 5}, "input", "takes 4"),
    ("a bad problem in a list", {"input": [chain(1), chain(2), 3]}, "input.2", "object"),
    ("no edges", {"input": without("edges")}, "input.edges", "missing"),
    ("no source", {"input": without("source")}, "input.source", "missing"),
    ("an unknown field of a problem", {"input": graph(weight=1)}, "input.weight", "unknown field"),
    ("edges that are no list", {"input": graph(edges="ab")}, "input.edges", "list"),
    ("an edge of three", {"input": graph(edges=[[0, 1], [1, 2, 3]])}, "input.edges.1", "pair"),
    ("an edge of text", {"input": graph(edges=["ab"])}, "input.edges.0", "pair"),
    ("a node that is true", {"input": graph(edges=[[0, True]])}, "input.edges.0.1", "string or an integer"),
    ("a node that is a fraction", {"input": graph(edges=[[0.5, 1]])}, "input.edges.0.0", "string"),
    ("a source that is nowhere", {"input": graph(source="z")}, "input.source", "not in the graph"),
    ("a target that is nowhere", {"input": graph(target=-1)}, "input.target", "not in the graph"),
    ("an edge to an unlisted node", {"input": graph(nodes=[0, 1, 2])}, "input.edges.2", "not in nodes"),
    ("a node listed twice", {"input": graph(nodes=[0, 1, 1])}, "input.nodes.2", "twice"),
    ("an empty graph", {"input": graph(edges=[])}, "input.edges", "empty"),
    ("too many nodes", {"input": chain(25)}, "input.edges", "takes 20"),
    ("too many edges", {"input": graph(edges=[[0, 1]] * 31)}, "input.edges", "takes 30"),
    ("a bad edge in a list", {"input": [chain(1), graph(edges=[[0]])]}, "input.1.edges.0", "pair"),
    ("max_steps of 0", {"max_steps": 0}, "max_steps", "at least 1"),
    ("negative max_steps", {"max_steps": -5}, "max_steps", "at least 1"),
    ("max_steps over the limit", {"max_steps": 1_000_001}, "max_steps", "1000000"),
    ("astronomic max_steps", {"max_steps": 10**400}, "max_steps", "1000000"),
    ("max_steps that is true", {"max_steps": True}, "max_steps", "integer"),
    ("max_steps in text", {"max_steps": "8"}, "max_steps", "integer"),
    ("a fraction of a step", {"max_steps": 8.5}, "max_steps", "integer"),
    ("min_steps of 0", {"min_steps": 0}, "min_steps", "at least 1"),
    ("min_steps over max_steps", {"max_steps": 4, "min_steps": 5}, "min_steps", "max_steps of 4"),
    ("min_steps over the default", {"min_steps": 17}, "min_steps", "default max_steps of 16"),
    ("halting in text", {"halting": "kl"}, "halting", "object"),
    ("halting that says nothing", {"halting": {}}, "halting.criterion", "target_accuracy"),
    ("an unknown criterion", {"halting": {"criterion": "mood"}}, "halting.criterion", "none, confidence"),
    ("one it lacks", {"halting": {"criterion": "learned"}}, "halting.criterion", "not computed by graph"),
    (
        "threshold too high",
        {"halting": {"criterion": "confidence", "threshold": 1.5}},
        "halting.threshold",
        "0 to 1",
    ),
    (
        "threshold too low",
        {"halting": {"criterion": "kl", "threshold": -1}},
        "halting.threshold",
        "out of range",
    ),
    ("threshold for none", {"halting": {"criterion": "none", "threshold": 1}}, "halting.threshold", "none"),
    ("threshold in text", {"halting": {"criterion": "kl", "threshold": "1"}}, "halting.threshold", "number"),
    ("patience of 0", {"halting": {"criterion": "kl", "patience": 0}}, "halting.patience", "at least 1"),
    (
        "astronomic patience",
        {"halting": {"criterion": "kl", "patience": 2**63}},
        "halting.patience",
        "at most",
    ),
    (
        "a trace beyond memory",
        {"include": ["trace"], "max_steps": 1_000_000, "input": [chain(2)] * 4},
        "include",
        "bytes",
    ),
    ("no calibration", {"halting": {"target_accuracy": 0.9}}, "halting.target_accuracy", "no calibration"),
    (
        "an accuracy out of reach",
        {"model": "calibrated", "halting": {"target_accuracy": 0.999}},
        "halting.target_accuracy",
        "0.9800 at best",
    ),
    ("an accuracy over 1", {"halting": {"target_accuracy": 1.1}}, "halting.target_accuracy", "at most 1"),
    (
        "a target and a criterion",
        {"halting": {"target_accuracy": 0.9, "criterion": "kl"}},
        "halting.criterion",
        "one of the two",
    ),
    ("a deadline of 0", {"deadline_ms": 0}, "deadline_ms", "above 0"),
    ("a deadline in text", {"deadline_ms": "soon"}, "deadline_ms", "number"),
    ("stream that is 1", {"stream": 1}, "stream", "true or false"),
    (
        "an unknown include",
        {"include": ["scores", "soul"]},
        "include.1",
        "'probabilities', 'scores', 'trace' or 'answer_entropy'",
    ),
    ("include in text", {"include": "scores"}, "include", "list"),
    (
        "unknown latents",
        {"latents": {"select": "all"}},
        "latents.select",
        "'none', 'readout', 'pooled' or 'full'",
    ),
    ("an unknown dtype", {"latents": {"dtype": "int8"}}, "latents.dtype", "'float32' or 'float16'"),
    ("an unknown encoding", {"latents": {"encoding": "hex"}}, "latents.encoding", "'base64' or 'json'"),
    (
        "latents beyond memory",
        {
            "latents": {"select": "full"},
            "include": ["trace"],
            "max_steps": 1_000_000,
            "input": [chain(19)] * 4,
        },
        "latents.select",
        "bytes",
    ),
]


@pytest.mark.parametrize(
    ("changes", "field", "words"), [case[1:] for case in BAD], ids=[case[0] for case in BAD]
)
def test_what_is_wrong_is_refused_by_field_and_in_words(
    server: Running, changes: dict[str, Any], field: str, words: str
) -> None:
    body = {"model": "graph", "input": chain(3), **changes}
    response = server.client.post(
        "/v1/infer", json={key: value for key, value in body.items() if value is not ...}
    )
    error = error_of(response)
    assert (response.status_code, error["code"], error["field"]) == (422, "invalid", field), error
    assert words in error["message"]
    assert len(error["message"].split()) >= 3, "not a sentence"
    assert_no_slot_is_taken(server)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"  ",
        b"{",
        b'{"input": }',
        b"edges=a",
        b'{"max_steps": NaN}',
        b'{"max_steps": Infinity}',
        b'{"max_steps": -Infinity}',
        b'{"max_steps": ' + b"9" * 5000 + b"}",
        b"\xff\xfe\xfd",
        b'{"a": "\x80"}',
        b"[" * 50_000,
        b'{"input":' * 10_000,
    ],
    ids=lambda content: repr(content[:20]),
)
def test_what_is_not_json_is_a_bad_request(server: Running, content: bytes) -> None:
    response = server.client.post("/v1/infer", content=content)
    assert (response.status_code, error_of(response)["code"]) == (400, "invalid_json")


def test_json_that_is_no_object_is_refused_without_a_field(server: Running) -> None:
    for content in (b"[]", b"3", b"null", b'"text"'):
        response = server.client.post("/v1/infer", content=content)
        assert (response.status_code, error_of(response)["field"]) == (422, None)


def test_numbers_that_overflow_are_refused(server: Running) -> None:
    response = server.client.post(
        "/v1/infer", content=b'{"model": "graph", "input": {}, "deadline_ms": 1e999}'
    )
    assert (response.status_code, error_of(response)["field"]) == (422, "deadline_ms")


@pytest.mark.parametrize("model", ["nobody", "graph@7", "graph@", "@1", "", "../graph"])
def test_an_unknown_model_is_not_found(server: Running, model: str) -> None:
    response = server.infer(chain(2), model=model)
    error = error_of(response)
    assert (response.status_code, error["code"], error["field"]) == (404, "unknown_model", "model")


def test_a_body_over_the_limit_is_refused_by_its_declared_length(server: Running) -> None:
    response = server.client.post("/v1/infer", content=b" " * (LIMIT + 1))
    assert (response.status_code, error_of(response)["code"]) == (413, "too_large")


def test_a_body_over_the_limit_is_refused_without_a_declared_length(server: Running) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 10_000

    response = server.client.post("/v1/infer", content=endless())
    assert (response.status_code, error_of(response)["code"]) == (413, "too_large")


def test_a_body_in_pieces_is_read_whole(server: Running) -> None:
    content = json.dumps({"model": "graph", "input": chain(3)}).encode()
    response = server.client.post("/v1/infer", content=iter([content[:7], content[7:]]))
    assert response.status_code == 200


def test_the_framework_answers_in_the_same_shape(server: Running) -> None:
    for method, path, status in (
        ("GET", "/nowhere", 404),
        ("GET", "/v1/infer", 405),
        ("POST", "/metrics", 405),
    ):
        response = server.client.request(method, path)
        assert response.status_code == status
        error_of(response)
    assert server.client.get("/v1/infer").headers["allow"] == "POST"


def test_a_message_quotes_no_megabyte_and_survives_broken_unicode(server: Running) -> None:
    long = error_of(server.infer(graph(source="x" * 50_000), model="graph"))
    assert len(long["message"]) <= 500
    content = b'{"model": "graph", "input": {"edges": [], "source": 1, "target": 1, "\\ud800": 1}}'
    response = server.client.post("/v1/infer", content=content)
    assert response.status_code == 422


def test_hundreds_of_malformed_requests_break_nothing_and_take_no_slot(server: Running) -> None:
    draw = random.Random(0)
    seen = set()
    for _ in range(600):
        content = json.dumps(mangled(copy.deepcopy(VALID), draw)).encode()
        if draw.random() < 0.2:
            place = draw.randrange(len(content))
            content = content[:place] + bytes([draw.randrange(256)]) + content[place + draw.randrange(3) :]
        response = server.client.post("/v1/infer", content=content)
        seen.add(response.status_code)
        assert response.status_code in (200, 400, 404, 422), (content, response.text)
        if response.status_code != 200:
            error_of(response)
    assert {400, 404, 422} <= seen
    eventually(lambda: server.served.running == server.served.waiting == 0)
    assert server.infer(chain(3), model="graph").status_code == 200


def mangled(body: Any, draw: random.Random) -> Any:
    """The body with one to three places replaced, removed or wrapped."""
    junk = [None, True, 0, -1, 2**70, 1.5, "", "x", [], {}, [[]], {"a": 1}, [1, "b", None], "\ud800", 1e308]
    for _ in range(draw.randint(1, 3)):
        inner = body
        while isinstance(inner, dict | list) and inner:
            key = draw.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))
            if isinstance(inner[key], dict | list) and inner[key] and draw.random() < 0.7:
                inner = inner[key]
                continue
            change = draw.random()
            if change < 0.15:
                del inner[key]
            elif change < 0.3 and isinstance(inner, dict):
                inner[draw.choice(["extra", "", "edges"])] = draw.choice(junk)
            else:
                inner[key] = [inner[key]] if change < 0.4 else draw.choice(junk)
            break
    return body


def error_of(response: httpx.Response) -> dict[str, Any]:
    body = response.json()
    assert set(body) == {"error"}
    error = body["error"]
    assert set(error) == {"code", "message", "field"}
    assert isinstance(error["code"], str)
    assert isinstance(error["message"], str)
    assert error["field"] is None or isinstance(error["field"], str)
    assert response.headers["x-request-id"]
    return dict(error)


def assert_no_slot_is_taken(server: Running) -> None:
    assert server.served.running == server.served.waiting == 0
