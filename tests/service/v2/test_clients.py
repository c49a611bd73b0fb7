"""Stock clients against /v2, unchanged: tritonclient over HTTP, KServe's, and the load tester's own mode."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient import http
from tritonclient.http import aio
from tritonclient.utils import InferenceServerException

from service.app import create_app
from service.settings import read_settings
from tests.service.servers import eventually, serving, uvicorn_running
from tests.service.tensor_bundles import GOAL, cells_after, problem, tokens_bundle
from tests.service.v2.test_v2 import encoded

ADMIN = {"Authorization": "Bearer an admin's key"}
KSERVE = os.environ.get("KSERVE_PYTHON", sys.executable)  # an interpreter that can import kserve


@pytest.fixture(scope="module")
def counting() -> Iterator[str]:
    """host:port of the counting model."""
    with serving() as running:
        yield str(running.client.base_url).removeprefix("http://").rstrip("/")


@pytest.fixture
def cells(tmp_path: Path) -> Iterator[str]:
    """host:port of a real model with two states, in a repository of its own."""
    tokens_bundle(tmp_path / "bundles")
    settings = read_settings({"repository": tmp_path / "bundles", "admin_keys": "an admin's key"})
    with uvicorn_running(create_app(settings)) as url:
        with http.InferenceServerClient(url.removeprefix("http://")) as client:
            eventually(client.is_server_ready)
        yield url.removeprefix("http://")


def inputs_of(module: Any, tensors: dict[str, NDArray[Any]], binary: bool) -> list[Any]:
    """The same tensors for the sync or the aio client."""
    inputs = []
    for name, values in tensors.items():
        datatype = {"int64": "INT64", "bool": "BOOL", "float32": "FP32"}[values.dtype.name]
        given = module.InferInput(name, list(values.shape), datatype)
        given.set_data_from_numpy(values, binary_data=binary)
        inputs.append(given)
    return inputs


def outputs_of(module: Any, binary: bool, *names: str) -> list[Any]:
    return [module.InferRequestedOutput(name, binary_data=binary) for name in names]


@pytest.mark.parametrize("binary", [True, False])
def test_tritonclient_infers(counting: str, binary: bool) -> None:
    with http.InferenceServerClient(counting) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("graph")
        assert client.is_model_ready("graph", "1")
        assert not client.is_model_ready("none")
        assert client.get_server_metadata()["name"] == "fathom"
        assert client.get_model_metadata("graph")["inputs"][0]["datatype"] == "INT64"
        inputs = inputs_of(http, encoded(3, 5), binary)
        usual = client.infer("graph", inputs, request_id="mine")  # as it does by default: all raw
        assert usual.get_response()["id"] == "mine"
        assert usual.as_numpy("logits").tolist() == [[0, 3], [0, 3]]
        assert usual.as_numpy("halt_reason").tolist() == [b"halted", b"halted"]
        wanted = outputs_of(http, binary, "state", "steps", "halt_reason")
        parameters = {"max_steps": 4, "halting_criterion": "confidence", "halting_threshold": 0.9}
        chosen = client.infer("graph", inputs, outputs=wanted, model_version="1", parameters=parameters)
        assert chosen.as_numpy("steps").dtype == np.int32
        assert chosen.as_numpy("steps").tolist() == [3, 4]
        assert chosen.as_numpy("halt_reason").tolist() == [
            word if not binary else word.encode() for word in ("halted", "budget")
        ]
        assert chosen.as_numpy("state").shape == (2, 6, 4)
        assert chosen.as_numpy("logits") is None


def test_tritonclient_compresses_and_waits_for_later(counting: str) -> None:
    with http.InferenceServerClient(counting) as client:
        inputs = inputs_of(http, encoded(3), binary=True)
        packed = client.infer("graph", inputs, request_compression_algorithm="gzip")
        assert packed.as_numpy("steps").tolist() == [3]
        later = [client.async_infer("graph", inputs) for _ in range(3)]
        assert [request.get_result().as_numpy("steps").tolist() for request in later] == [[3]] * 3


def test_tritonclient_reads_our_errors(counting: str) -> None:
    with http.InferenceServerClient(counting) as client:
        inputs = inputs_of(http, encoded(3), binary=True)
        for ask, status, said in (
            (lambda: client.infer("none", inputs), "404", "model: there is no model 'none'"),
            (lambda: client.infer("graph", inputs[:2]), "422", "inputs: mask missing"),
            (
                lambda: client.infer("graph", inputs, priority=2),
                "422",
                "parameters.priority: is not supported",
            ),
            (lambda: client.get_model_config("graph"), "404", "there is nothing at /v2/models/graph/config"),
            (lambda: client.load_model("graph"), "403", "this is closed on a server without"),
        ):
            with pytest.raises(InferenceServerException) as refusal:
                ask()
            assert refusal.value.status() == status
            assert refusal.value.message().startswith(said)


@pytest.mark.parametrize("binary", [True, False])
def test_tritonclient_aio_infers_side_by_side(counting: str, binary: bool) -> None:
    async def ask() -> None:
        async with aio.InferenceServerClient(counting) as client:
            assert await client.is_server_ready()
            assert await client.is_model_ready("graph", "1")
            several = [
                client.infer("graph", inputs_of(aio, encoded(edges), binary), parameters={"max_steps": 20})
                for edges in (2, 9, 4)
            ]
            answers = await asyncio.gather(*several)
            assert [answer.as_numpy("steps").tolist() for answer in answers] == [[2], [9], [4]]
            with pytest.raises(InferenceServerException) as refusal:
                await client.infer("graph", [], parameters={"max_steps": 20})
            assert refusal.value.message() == "inputs: must have at least 1 items"

    asyncio.run(ask())


def test_tritonclient_manages_the_repository(cells: str) -> None:
    with http.InferenceServerClient(cells) as client:
        served = {"name": "cells", "version": "1", "state": "READY", "reason": ""}
        assert client.get_model_repository_index() == [served]
        with pytest.raises(InferenceServerException) as refusal:
            client.unload_model("cells")
        assert refusal.value.status() == "401"
        client.unload_model("cells", headers=ADMIN)
        assert not client.is_model_ready("cells")
        assert client.get_model_repository_index()[0]["state"] == "UNAVAILABLE"
        client.load_model("cells", headers=ADMIN)
        assert client.is_model_ready("cells")
        client.load_model("cells", headers=ADMIN)  # once more
        with pytest.raises(InferenceServerException) as refusal:
            client.load_model("cells", headers=ADMIN, config="{}")
        assert "no parameters" in refusal.value.message()
        with pytest.raises(InferenceServerException) as refusal:
            client.load_model("none", headers=ADMIN)
        assert refusal.value.status() == "404"


def test_tritonclient_aio_manages_the_repository(cells: str) -> None:
    async def manage() -> None:
        async with aio.InferenceServerClient(cells) as client:
            await client.unload_model("cells", headers=ADMIN)
            assert not await client.is_model_ready("cells")
            await client.load_model("cells", headers=ADMIN)
            (entry,) = await client.get_model_repository_index()
            assert entry["state"] == "READY"

    asyncio.run(manage())


@pytest.mark.parametrize("binary", [True, False])
def test_states_come_by_name_as_they_are(cells: str, binary: bool) -> None:
    x = np.float32([[0.5, -1, 2], [3, 1, 0.25]])
    goal = np.tile(np.float32(GOAL), (2, 1))
    with http.InferenceServerClient(cells) as client:
        answer = client.infer(
            "cells",
            inputs_of(http, {"x": x, "goal": goal}, binary),
            outputs=outputs_of(http, binary, "cells", "logits"),
            parameters={"max_steps": 7, "halting_criterion": "none"},
        )
        for row in range(2):
            assert np.array_equal(answer.as_numpy("cells")[row], cells_after(x[row].tolist(), 7))
        assert answer.as_numpy("logits").shape == (2, 3, 2)


KSERVE_SCRIPT = """
import asyncio, json, sys
import numpy as np
from kserve import InferenceRESTClient, RESTConfig, InferRequest, InferInput
from kserve.protocol.infer_type import RequestedOutput

async def main(url):
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    seen = [await client.is_server_live(url), await client.is_server_ready(url)]
    seen += [await client.is_model_ready(url, "graph"), await client.is_model_ready(url, "none")]
    roles, mask = np.zeros((1, 4), np.int64), np.ones((1, 4), bool)
    adjacency = np.zeros((1, 4, 4), bool)
    adjacency[0, [0, 1, 2], [1, 2, 3]] = True
    for binary in (True, False):
        inputs = []
        for name, values in {"roles": roles, "adjacency": adjacency, "mask": mask}.items():
            kind = "INT64" if values.dtype == np.int64 else "BOOL"
            given = InferInput(name, list(values.shape), kind)
            given.set_data_from_numpy(values, binary_data=binary)
            inputs.append(given)
        outputs = [
            RequestedOutput(name, parameters={"binary_data": binary})
            for name in ("steps", "logits", "halt_reason")
        ]
        request = InferRequest(
            "graph", inputs, parameters={"max_steps": 9}, request_outputs=outputs, request_id="mine"
        )
        answer = await client.infer(url, request, model_name="graph")
        seen.append([answer.id, answer.get_output_by_name("steps").as_numpy().tolist()])
        seen.append(answer.get_output_by_name("logits").as_numpy().tolist())
    try:
        await client.infer(url, {"inputs": []}, model_name="graph")
    except Exception as error:
        seen.append(str(error).split(",")[0])
    print(json.dumps(seen))

asyncio.run(main(sys.argv[1]))
"""


def test_the_client_of_kserve_infers(counting: str) -> None:
    known = subprocess.run([KSERVE, "-c", "import kserve"], capture_output=True, check=False)
    if known.returncode:
        pytest.skip("kserve is not there: KSERVE_PYTHON names an interpreter that has it")
    done = subprocess.run(
        [KSERVE, "-c", KSERVE_SCRIPT, f"http://{counting}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    once = [["mine", [3]], [[0.0, 3.0]]]
    assert seen == [True, True, True, False, *once, *once, "inputs: must have at least 1 items"]


def test_the_load_tester_speaks_it(cells: str, tmp_path: Path) -> None:
    batch = {name: [values] for name, values in problem([0.5, -1.0])["tensors"].items()}
    (tmp_path / "problems.jsonl").write_text(json.dumps({"tensors": batch}) + "\n")
    command = [sys.executable, "-m", "fathom", "loadtest", f"http://{cells}", "--protocol", "v2"]
    options = {
        "--model": "cells",
        "--problems": tmp_path / "problems.jsonl",
        "--depths": "2,4",
        "--halting": '{"criterion": "none"}',
        "--concurrency": 1,
        "--duration": 0.5,
        "--warmup": 0.1,
        "--alone": 0,
        "--probe": 0,
        "--processes": 1,
        "--out": tmp_path / "report",
    }
    done = subprocess.run(
        [*command, *(str(part) for option in options.items() for part in option)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["target"]["datatypes"] == {"x": "FP32", "goal": "FP32"}
    used = {int(steps) for summary in report["summaries"] for steps in summary["used_depths"]}
    assert used == {2, 4}
    assert not any(summary["errors"] for summary in report["summaries"])
