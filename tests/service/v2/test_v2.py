"""/v2 on the wire: tensors in JSON and raw, terms, padding, and errors in the protocol's shape."""

from __future__ import annotations

import json
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.service.servers import (
    PATIENCE,
    WIDTH,
    Running,
    chain,
    counting_bundle,
    eventually,
    serving,
    shipped_running,
)

Body = dict[str, Any]
DATATYPES = {"int64": "INT64", "bool": "BOOL"}
HEADER = "Inference-Header-Content-Length"


def encoded(*edges: int) -> dict[str, NDArray[Any]]:
    """Chains of so many edges, one a row, padded to the longest, as the counting model reads them."""
    longest = max(edges) + 1
    roles = np.zeros((len(edges), longest), np.int64)
    adjacency = np.zeros((len(edges), longest, longest), np.bool_)
    mask = np.zeros((len(edges), longest), np.bool_)
    for row, count in enumerate(edges):
        adjacency[row, np.arange(count), np.arange(1, count + 1)] = True
        mask[row, : count + 1] = True
    return {"roles": roles, "adjacency": adjacency, "mask": mask}


def listed(tensors: dict[str, NDArray[Any]], nested: bool = False) -> list[Body]:
    return [
        {
            "name": name,
            "shape": list(values.shape),
            "datatype": DATATYPES[values.dtype.name],
            "data": (values if nested else values.ravel()).tolist(),
        }
        for name, values in tensors.items()
    ]


def ask(running: Running, *edges: int, **more: Any) -> httpx.Response:
    return running.client.post("/v2/models/graph/infer", json={"inputs": listed(encoded(*edges)), **more})


def outputs(answer: httpx.Response) -> dict[str, Any]:
    """The outputs by name: lists in their shape."""
    assert answer.status_code == 200, answer.text
    return {
        output["name"]: np.array(output["data"]).reshape(output["shape"]).tolist()
        for output in answer.json()["outputs"]
    }


@pytest.fixture(scope="module")
def running() -> Any:
    with serving() as running:
        yield running


def test_the_server_and_its_model_say_what_they_are(running: Running) -> None:
    server = running.client.get("/v2").json()
    assert server["name"] == "fathom"
    assert "binary_tensor_data" in server["extensions"]
    for path in ("/v2/models/graph", "/v2/models/graph/versions/1"):
        model = running.client.get(path).json()
        assert (model["name"], model["versions"], model["platform"]) == ("graph", ["1"], "fathom_fake")
        assert model["inputs"][1] == {"name": "adjacency", "datatype": "BOOL", "shape": [-1, -1, -1]}
        assert {output["name"]: output["datatype"] for output in model["outputs"]} == {
            "logits": "FP32",
            "steps": "INT32",
            "halt_reason": "BYTES",
            "state": "FP32",
        }


def test_health_is_as_it_is_elsewhere_and_needs_no_key() -> None:
    with serving(api_keys="secret") as running:
        assert running.client.get("/v2/health/live").json() == {"live": True}
        assert running.client.get("/v2/health/ready").json() == {"ready": True, "live": True}
        assert running.client.get("/v2/models/graph/ready").status_code == 401
        key = {"Authorization": "Bearer secret"}
        ready = running.client.get("/v2/models/graph/ready", headers=key)
        assert ready.json() == {"name": "graph", "ready": True}
        running.served.stop_admitting()
        assert running.client.get("/v2/health/ready").status_code == 503
        drained = running.client.get("/v2/models/graph/versions/1/ready", headers=key)
        assert (drained.status_code, drained.json()) == (503, {"error": "graph is not ready: draining"})


@pytest.mark.parametrize("nested", [False, True])
def test_rows_take_a_slot_each_and_halt_each_on_its_own(running: Running, nested: bool) -> None:
    body = {"id": "mine", "inputs": listed(encoded(2, 5, 3), nested)}
    answer = running.client.post("/v2/models/graph/infer", json=body)
    assert outputs(answer) == {
        "logits": [[0.0, 3.0]] * 3,
        "steps": [2, 5, 3],
        "halt_reason": ["halted"] * 3,
    }
    assert {key: answer.json()[key] for key in ("id", "model_name", "model_version")} == {
        "id": "mine",
        "model_name": "graph",
        "model_version": "1",
    }


def test_an_answer_is_that_of_v1(running: Running) -> None:
    result = running.infer(chain(7), max_steps=9).json()["results"][0]
    steps = outputs(ask(running, 7, parameters={"max_steps": 9}))
    assert steps["steps"] == [result["steps"]]
    assert steps["halt_reason"] == [result["halt_reason"]]


def test_raw_tensors_come_in_after_the_json_and_go_out_after_it(running: Running) -> None:
    tensors = encoded(2, 4)
    inputs = listed({name: tensors[name] for name in ("mask", "roles", "adjacency")})
    raw = b""
    for given in inputs[1:]:  # the first stays in the JSON
        data = tensors[given["name"]].tobytes()
        given["parameters"] = {"binary_data_size": len(data)}
        del given["data"]
        raw += data
    wanted = [
        {"name": "halt_reason", "parameters": {"binary_data": True}},
        {"name": "state", "parameters": {"binary_data": True}},
        {"name": "steps", "parameters": {"binary_data": False}},
    ]
    text = json.dumps(
        {"inputs": inputs, "outputs": wanted, "parameters": {"binary_data_output": True}}
    ).encode()
    answer = running.client.post(
        "/v2/models/graph/infer", content=text + raw, headers={HEADER: str(len(text))}
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/octet-stream"
    length = int(answer.headers[HEADER])
    reasons, state, steps = json.loads(answer.content[:length])["outputs"]
    assert steps == {"name": "steps", "datatype": "INT32", "shape": [2], "data": [2, 4]}
    size = reasons["parameters"]["binary_data_size"]
    rest = answer.content[length:]
    assert rest[:size] == 2 * (struct.pack("<I", 6) + b"halted")
    assert len(rest) == size + state["parameters"]["binary_data_size"]
    values = np.frombuffer(rest[size:], "<f4").reshape(state["shape"])
    assert values.shape == (2, 5, WIDTH)


def test_states_are_padded_as_the_rows_were(running: Running) -> None:
    found = outputs(ask(running, 4, 2, outputs=[{"name": "state"}, {"name": "steps"}]))
    state = np.array(found["state"])
    assert state.shape == (2, 5, WIDTH)
    assert (state[0, :, 0] == np.arange(5) + 4 / 8).all()
    assert (state[1, :3, 0] == np.arange(3) + 2 / 8).all()
    assert not state[1, 3:].any()


def test_what_stands_in_the_padding_does_not_matter(running: Running) -> None:
    tensors = encoded(4, 2)
    tensors["adjacency"][1, 3:] = True
    tensors["roles"][1, 3:] = 10**9
    answer = running.client.post("/v2/models/graph/infer", json={"inputs": listed(tensors)})
    assert outputs(answer)["steps"] == [4, 2]


@pytest.mark.parametrize(
    ("parameters", "steps", "reason"),
    [
        ({}, 6, "halted"),
        ({"max_steps": 3}, 3, "budget"),
        ({"min_steps": 9}, 9, "halted"),
        ({"halting_criterion": "none", "max_steps": 11}, 11, "budget"),
        ({"halting_criterion": "confidence", "halting_threshold": 0.4}, 1, "halted"),
        ({"halting_criterion": "confidence", "halting_patience": 3}, 8, "halted"),
        ({"halting_criterion": "none", "max_steps": 10**6, "deadline_ms": 1e-3}, 1, "deadline"),
    ],
)
def test_parameters_are_the_terms_of_the_request(
    running: Running, parameters: Body, steps: int, reason: str
) -> None:
    found = outputs(ask(running, 6, parameters=parameters))
    assert (found["steps"], found["halt_reason"]) == ([steps], [reason])


BROKEN: list[tuple[Body, str]] = [
    ({"outptus": []}, "outptus: is an unknown field; did you mean outputs? known here: id"),
    ({"more": 1}, "more: is an unknown field; known here: id, model_name"),
    ({"model_name": "logic"}, "model_name: is another model"),
    ({"parameters": {"sequence_id": 3}}, "parameters.sequence_id: is not supported here"),
    ({"parameters": {"zzz": 3}}, "parameters.zzz: is an unknown field; known here: max_steps"),
    ({"parameters": {"max_steps": 3.5}}, "parameters.max_steps: must be an integer"),
    ({"parameters": {"max_steps": 0}}, "parameters.max_steps: must be at least 1"),
    ({"parameters": {"max_steps": 2, "min_steps": 3}}, "parameters.min_steps: min_steps is over"),
    ({"parameters": {"halting_criterion": "x"}}, "parameters.halting_criterion: criterion 'x' is unknown"),
    ({"parameters": {"halting_threshold": 1}}, "parameters.halting_criterion: give a criterion"),
    ({"inputs": []}, "inputs: must have at least 1"),
    ({"inputs": None}, "inputs: must be a list"),
    ({"outputs": [{"name": "score"}]}, "outputs.0.name: is no output of graph: logits, steps"),
    ({"outputs": [{"name": "steps"}] * 2}, "outputs.1.name: is asked for twice"),
    (
        {"outputs": [{"name": "steps", "parameters": {"classification": 3}}]},
        "outputs.0.parameters.classification",
    ),
]


@pytest.mark.parametrize(("more", "said"), BROKEN, ids=lambda value: str(value)[:40])
def test_what_is_wrong_with_a_request_is_said_in_one_line(running: Running, more: Body, said: str) -> None:
    answer = ask(running, 2, **more)
    assert answer.status_code == 422, answer.text
    assert list(answer.json()) == ["error"]
    assert answer.json()["error"].startswith(said)


WRONG: list[tuple[Body, str]] = [
    ({"name": "role"}, "inputs.0.name: is no input of graph: roles, adjacency, mask"),
    ({"name": "mask", "datatype": "BOOL", "data": [True] * 3}, "inputs.2.name: is there twice"),
    ({"datatype": "INT32"}, "inputs.0.datatype: must be INT64 for roles"),
    ({"shape": [3]}, "inputs.0.shape: must have 2 sizes"),
    ({"shape": [1, 4]}, "inputs.0.data: must be a list of 4 values"),
    ({"shape": [-1, 3]}, "inputs.0.shape.0: must be at least 0"),
    ({"shape": [3, 1]}, "inputs: adjacency has 1 along B, where others have 3"),
    ({"shape": [0, 3], "data": []}, "inputs: adjacency has 1 along B, where others have 0"),
    ({"data": [0, 0, 0.5]}, "inputs.0.data: must hold integers only"),
    ({"data": [0, 0, True]}, "inputs.0.data: must hold integers only"),
    ({"data": [0, 0, 2**70]}, "inputs.0.data: has a number that int64 cannot hold"),
    ({"data": [[0, 0, 0], [0]]}, "inputs.0.data: is ragged"),
    ({"data": [[0], [0], [0]]}, "inputs.0.data: must be a list of 3 values"),
    ({"data": 0}, "inputs.0.data: must be a list of 3 values"),
    ({"data": None}, "inputs.0: give data, or a binary_data_size"),
    ({"parameters": {"binary_data_size": 24}}, "inputs.0: give data, or a binary_data_size"),
    (
        {"parameters": {"shared_memory_region": "x"}},
        "inputs.0.parameters.shared_memory_region: is not supported",
    ),
    (
        {"data": None, "parameters": {"binary_data_size": 24}},
        "inputs.0.parameters.binary_data_size: has 0 bytes, and the shape [1, 3] 24",
    ),
]


@pytest.mark.parametrize(("change", "said"), WRONG, ids=lambda value: str(value)[:40])
def test_what_is_wrong_with_a_tensor_is_said_in_one_line(running: Running, change: Body, said: str) -> None:
    inputs = listed(encoded(2))
    inputs[0] |= change
    answer = running.client.post("/v2/models/graph/infer", json={"inputs": inputs})
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"].startswith(said)


def test_a_row_without_a_token_and_too_many_or_too_long_rows_are_refused() -> None:
    with serving(max_problems=2, max_nodes=8) as running:
        tensors = encoded(2, 2)
        tensors["mask"][1] = False
        for given, said in (
            (tensors, "inputs: row 1 has no token: its mask is all false"),
            (encoded(1, 1, 1), "inputs: 3 rows, and this server takes 1 to 2"),
            (encoded(1, 8), "inputs: row 1 is 9 long, and this server takes 8"),
        ):
            answer = running.client.post("/v2/models/graph/infer", json={"inputs": listed(given)})
            assert (answer.status_code, answer.json()) == (422, {"error": said})


@pytest.mark.parametrize(
    ("header", "tail", "said"),
    [
        ("x", b"", "inference-header-content-length: must be the length of the JSON"),
        ("-1", b"", "inference-header-content-length: must be"),
        ("100000", b"", "inference-header-content-length: must be"),
        (None, b"12345", "5 bytes follow the JSON, and the inputs have 0"),
    ],
)
def test_a_header_that_does_not_fit_the_body_is_refused(
    running: Running, header: str | None, tail: bytes, said: str
) -> None:
    text = json.dumps({"inputs": listed(encoded(2))}).encode()
    answer = running.client.post(
        "/v2/models/graph/infer", content=text + tail, headers={HEADER: header or str(len(text))}
    )
    assert answer.status_code == 422
    assert answer.json()["error"].startswith(said)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/", 404),
        ("GET", "/v2/models", 404),
        ("GET", "/v2/models/none", 404),
        ("GET", "/v2/models/graph/versions/9", 404),
        ("POST", "/v2/models/none/infer", 404),
        ("POST", "/v2/models/graph/versions/9/infer", 404),
        ("GET", "/v2/models/graph/infer", 405),
        ("POST", "/v2/health/live", 405),
        ("POST", "/v2/models/graph/infer", 400),
        ("POST", "/v2/repository/models/graph/load", 403),
    ],
)
def test_every_error_is_the_word_error_and_a_sentence(
    running: Running, method: str, path: str, status: int
) -> None:
    answer = running.client.request(method, path, content=b"{" if method == "POST" else None)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert isinstance(answer.json()["error"], str)


def test_refusals_of_the_front_have_that_shape_too() -> None:
    with serving(api_keys="secret", max_body_bytes=100) as running:
        refused = ask(running, 2)
        assert (refused.status_code, type(refused.json()["error"])) == (401, str)
        running.client.headers["Authorization"] = "Bearer secret"
        refused = ask(running, 2)
        assert (refused.status_code, type(refused.json()["error"])) == (413, str)


def test_a_row_that_fails_says_so_and_the_others_are_answered() -> None:
    with serving() as running:
        running.runner.nan_nodes = 4
        answer = ask(running, 2, 3)
        found = outputs(answer)
        assert found["halt_reason"] == ["halted", "error"]
        assert found["logits"] == [[0.0, 3.0], [None, None]]
        warnings = answer.json()["parameters"]["warnings"]
        assert warnings == "row 1: the model's readout is not finite"
        alone = ask(running, 3)
        assert (alone.status_code, list(alone.json())) == (500, ["error"])


@pytest.mark.parametrize("rows", [1, 2])
def test_rows_that_the_model_cannot_read_are_the_callers_to_mend(rows: int) -> None:
    tokens = {"name": "tokens", "datatype": "INT64", "shape": [rows, 1], "data": [9999] * rows}
    mask = {"name": "mask", "datatype": "BOOL", "shape": [rows, 1], "data": [True] * rows}
    with shipped_running() as client:
        refused = client.post("/v2/models/logic/infer", json={"inputs": [tokens, mask]})
        assert refused.status_code == 422, refused.text
        assert refused.json()["error"].startswith("inputs: the model cannot read this row")
        sound = {**tokens, "data": [1] * (rows - 1) + [9999]}
        mixed = client.post("/v2/models/logic/infer", json={"inputs": [sound, mask]})
        assert mixed.status_code == (200 if rows > 1 else 422)


def test_a_client_that_goes_away_frees_its_slots_and_is_counted() -> None:
    with serving() as running:
        endless = {"halting_criterion": "none", "max_steps": 10**6}
        with pytest.raises(httpx.ReadTimeout):
            running.client.post(
                "/v2/models/graph/infer",
                json={"inputs": listed(encoded(2, 3)), "parameters": endless},
                timeout=httpx.Timeout(5, read=0.3),
            )
        running.runner.wait_until(taken=0)
        eventually(lambda: running.metric("fathom_requests_total", model="graph", code="499") == 1)


def test_an_answer_that_could_not_be_kept_is_refused() -> None:
    with serving(max_event_bytes=2**14) as running:
        assert ask(running, 30).status_code == 200
        refused = ask(running, *[30] * 8, outputs=[{"name": "state"}])
        assert refused.status_code == 422
        assert refused.json()["error"].startswith("the answer could take")


def test_a_version_is_asked_by_its_path() -> None:
    newer = counting_bundle(version="2", halting={"criterion": "none", "threshold": 0.0})
    with serving(counting_bundle(), newer) as running:
        body = {"inputs": listed(encoded(3))}
        taken = {
            version: outputs(running.client.post(f"/v2/models/graph{version}/infer", json=body))["steps"]
            for version in ("", "/versions/1", "/versions/2")
        }
        assert taken == {"": [16], "/versions/1": [3], "/versions/2": [16]}


def test_a_running_request_is_cancelled_with_its_best_answers() -> None:
    with serving() as running, ThreadPoolExecutor() as pool:
        running.runner.may_step.clear()
        terms = {"parameters": {"halting_criterion": "none", "max_steps": 10**6}}
        body = {"inputs": listed(encoded(2)), **terms}
        asking = pool.submit(
            running.client.post, "/v2/models/graph/infer", json=body, headers={"X-Request-Id": "one"}
        )
        running.runner.wait_until(taken=1)
        assert running.client.delete("/v1/requests/one").json() == {"id": "one", "cancelled": 1}
        running.runner.may_step.set()
        found = outputs(asking.result(PATIENCE))
        assert found["halt_reason"] == ["cancelled"]
        assert found["steps"][0] < 10**6
