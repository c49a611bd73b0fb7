"""A state of rank four, end to end: maps of any size, bodies over a mebibyte, and every way for tensors."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tritonclient import http

from model.codecs.tensors import packed
from service.app import create_app
from service.http.v1.streaming import FRAMES
from service.settings import read_settings
from tests.own_modules import Spread, parity
from tests.service.servers import eventually, uvicorn_running
from training.ship.module import export_module

Body = dict[str, Any]
Floats = NDArray[np.float32]
LARGE = np.random.default_rng(5).random((1, 500, 400), np.float32)  # 800,000 bytes, 1,066,668 in base64
SMALL = LARGE[:, :3, :4]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    repository: Path = tmp_path_factory.mktemp("bundles")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    export_module(Spread().eval(), repository / "spread" / "1", lambda _: None)
    export_module(parity(), repository / "parity" / "1", lambda _: None)
    torch.set_num_threads(before)
    limits = {"max_body_bytes": 2**22, "max_event_bytes": 2**27, "slots": 8}
    app = create_app(read_settings({"repository": repository, **limits}))
    with uvicorn_running(app) as url, httpx.Client(base_url=url, timeout=60) as client:
        eventually(lambda: client.get("/health/ready").status_code == 200)
        yield client


def after(heat: Floats, steps: int) -> dict[str, Floats]:
    """The module's own forward pass."""
    module = Spread().eval()
    with torch.no_grad():
        context, state = module.embed(torch.from_numpy(heat)[None])
        for _ in range(steps):
            state = module.step(context, state)
        return {"map": state["map"][0].numpy(), "output": module.readout(context, state)[0].numpy()}


def array(shown: Body) -> Floats:
    return np.frombuffer(base64.b64decode(shown["data"]), "<f4").reshape(shown["shape"])


def infer(client: httpx.Client, inputs: object, **terms: object) -> list[Body]:
    response = client.post("/v1/infer", json={"model": "spread", "input": inputs, **terms})
    assert response.status_code == 200, response.text
    results: list[Body] = response.json()["results"]
    return results


def test_a_map_comes_and_goes_in_base64_and_its_state_with_it(client: httpx.Client) -> None:
    given = {"tensors": {"heat": packed(LARGE)}}
    assert len(json.dumps(given)) > 2**20
    (result,) = infer(client, given, max_steps=2, latents={"select": "full"})
    expected = after(LARGE, 2)
    assert np.allclose(array(result["output"]), expected["output"], atol=1e-5)
    assert np.allclose(array(result["latents"]), expected["map"], atol=1e-5)
    assert result["latents"]["shape"] == [2, 500, 400]


def test_a_map_is_streamed_in_frames(client: httpx.Client) -> None:
    body = {"model": "spread", "input": {"tensors": {"heat": packed(LARGE)}}, "max_steps": 2, "stream": True}
    content = client.post("/v1/infer", json=body, headers={"accept": FRAMES}).content
    for step in (1, 2, 2):
        (size,) = struct.unpack_from("<I", content)
        header, content = json.loads(content[4 : 4 + size]), content[4 + size :]
        shown = header["results"][0]["output"] if header["event"] == "done" else header["output"]
        raw, content = content[: shown["byte_size"]], content[shown["byte_size"] :]
        values = np.frombuffer(raw, "<f4").reshape(shown["shape"])
        assert np.allclose(values, after(LARGE, step)["output"], atol=1e-5)
    assert not content


def test_a_stock_client_sends_and_gets_maps_as_bytes(client: httpx.Client) -> None:
    given = http.InferInput("heat", [1, *LARGE.shape], "FP32")
    given.set_data_from_numpy(LARGE[None], binary_data=True)
    wanted = [http.InferRequestedOutput(name, binary_data=True) for name in ("logits", "map", "steps")]
    with http.InferenceServerClient(str(client.base_url).removeprefix("http://").rstrip("/")) as stock:
        answer = stock.infer("spread", [given], outputs=wanted, parameters={"max_steps": 3})
    expected = after(LARGE, 3)
    assert answer.as_numpy("steps").tolist() == [3]
    assert np.allclose(answer.as_numpy("logits")[0], expected["output"], atol=1e-5)
    assert np.allclose(answer.as_numpy("map")[0], expected["map"], atol=1e-5)


def test_a_body_beyond_the_setting_is_refused(client: httpx.Client) -> None:
    many = [{"tensors": {"heat": packed(LARGE)}}] * 4
    response = client.post("/v1/infer", json={"model": "spread", "input": many})
    assert response.status_code == 413


def test_maps_of_any_size_are_together_what_they_are_alone(client: httpx.Client) -> None:
    """Sizes that cannot be padded, at depths of their own, side by side with rows of another model."""
    sizes = [(3, 4), (7, 5), (3, 4), (12, 9), (7, 5)]
    draw = np.random.default_rng(8)
    maps = [{"tensors": {"heat": packed(draw.random((1, *size), np.float32))}} for size in sizes]
    bits = [{"tensors": {"bits": draw.integers(0, 2, count).tolist()}} for count in (5, 17, 9)]

    def ask(model: str, problems: list[Body], steps: int) -> list[Body]:
        return infer(
            client, problems, model=model, max_steps=steps, include=["scores"], latents={"select": "full"}
        )

    wanted = [("spread", maps, 7), ("parity", bits, 11), ("spread", maps[::-1], 3), ("parity", bits, 20)] * 2
    with ThreadPoolExecutor(len(wanted)) as threads:
        together = list(threads.map(lambda each: ask(*each), wanted))
    for (model, problems, steps), results in zip(wanted[:4], together, strict=False):
        for given, result in zip(problems, results, strict=True):
            assert ask(model, [given], steps) == [result]


def test_a_map_halts_when_its_last_place_stands_still(client: httpx.Client) -> None:
    terms: Body = {"halting": {"criterion": "latent_diff", "threshold": 0.001}, "max_steps": 500}
    (result,) = infer(client, {"tensors": {"heat": packed(SMALL)}}, include=["scores"], **terms)
    assert result["halt_reason"] == "halted"
    last, before = (after(SMALL, steps)["map"] for steps in (result["steps"], result["steps"] - 1))
    moved = np.linalg.norm(last - before, axis=0) / np.maximum(np.linalg.norm(last, axis=0), 1e-12)
    assert moved.max() <= 0.0011
    assert result["scores"]["latent_diff"] <= 0.001
