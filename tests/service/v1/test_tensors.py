"""Models that are not ours, end to end: tensors in, several states, answers per token and outputs."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import re
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from client.answers import Answer, content_of
from client.terminal import console
from model.bundle import TORCHSCRIPT, write_manifest
from model.row import Layout
from service.app import create_app
from service.errors import StartupError
from service.http.v1.answer_schemas import InferAnswer, StepEvent
from service.http.v1.streaming import FRAMES
from service.runners.costs import MOST_BUCKETS
from service.runners.host import HostRunner
from service.runners.open import open_runner
from service.runners.runner import Carry
from service.runners.store import MOST_TABLES
from service.settings import read_settings
from tests.service.servers import events, eventually, uvicorn_running
from tests.service.tensor_bundles import (
    cells_after,
    grid_after,
    grid_bundle,
    lookup_bundle,
    problem,
    scalar_bundle,
    tokens_bundle,
)

Body = dict[str, Any]
SHORT, OTHER, LONG = [0.5, -2.0, 1.0], [-0.25, 3.0], [float(place % 5 - 2.5) for place in range(20)]
GRIDS = [[[1.0, 2.0, 4.0]], [[0.0], [8.0]], [[1.0, 2.0, 4.0]], [[2.0] * 5] * 4]
SCORED: Body = {
    "name": "scored",
    "scores": [{"name": "q_halt", "halts": "above", "default": 7.0}],
    "halting": {"criterion": "q_halt", "threshold": 6.0},
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """All bundles of tensor_bundles behind a real server."""
    repository: Path = tmp_path_factory.mktemp("bundles")
    tokens_bundle(repository)
    tokens_bundle(repository, **SCORED)
    grid_bundle(repository)
    scalar_bundle(repository)
    lookup_bundle(repository)
    limits = {"max_event_bytes": 2**20, "slots": 6, "quantum_ms": 1}
    app = create_app(read_settings({"repository": repository, **limits}))
    with uvicorn_running(app) as url, httpx.Client(base_url=url, timeout=20) as client:
        eventually(lambda: client.get("/health/ready").status_code == 200)
        yield client


def infer(client: httpx.Client, problems: object, **terms: object) -> list[Body]:
    response = client.post("/v1/infer", json={"input": problems, "model": "cells", **terms})
    assert response.status_code == 200, response.text
    InferAnswer.model_validate(response.json())
    return response.json()["results"]


def refused(client: httpx.Client, problems: object, **terms: object) -> tuple[str, str]:
    """The field and the message of a 422."""
    response = client.post("/v1/infer", json={"input": problems, "model": "cells", **terms})
    assert response.status_code == 422, response.text
    return response.json()["error"]["field"], response.json()["error"]["message"]


def test_every_real_token_has_its_answer_and_no_other_has(client: httpx.Client) -> None:
    (result,) = infer(client, problem(SHORT), max_steps=4, include=["probabilities", "scores"])
    logits = cells_after(SHORT, 4) + np.log(np.abs(np.float32(SHORT)))[:, None]
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert result["answer"] == logits.argmax(axis=1).tolist() == [0, 1, 0]
    assert result["label"] == ["low", "high", "low"]
    assert [list(share) for share in result["probabilities"]] == [["low", "high"]] * 3
    assert np.allclose([list(share.values()) for share in result["probabilities"]], shares, atol=1e-6)
    assert (result["steps"], result["halt_reason"], result["scores"]) == (4, "budget", {})


def test_rows_of_several_buckets_are_together_what_they_are_alone(client: httpx.Client) -> None:
    terms: Body = {"max_steps": 9, "include": ["probabilities", "trace"], "latents": {"select": "full"}}
    problems = [problem(x) for x in (SHORT, LONG, OTHER, LONG[:9], SHORT)] * 8
    together = infer(client, problems, **terms)
    for given, result in zip(problems[:5], together, strict=False):
        assert infer(client, given, **terms) == [result]
        assert len(result["answer"]) == len(given["tensors"]["x"])
        assert [len(step["answer"]) for step in result["trace"]] == [len(result["answer"])] * 9
    assert together[:5] * 8 == together


def test_requests_that_make_room_for_one_another_change_nothing(client: httpx.Client) -> None:
    """Six slots, and every request wants them all: rows yield and come back in mid-thought."""

    def ask(steps: int) -> list[Body]:
        problems = [problem(x) for x in (SHORT, LONG, OTHER, LONG[:9])] * 4
        return infer(client, problems, max_steps=steps, latents={"select": "full"})

    asked = [100, 10, 80, 5]
    with ThreadPoolExecutor(len(asked)) as threads:
        together = list(threads.map(ask, asked))
    assert re.search(r'^fathom_yields_total{model="cells"} [1-9]', client.get("/metrics").text, re.MULTILINE)
    assert together == [ask(steps) for steps in asked]


def test_a_model_may_have_no_axes_at_all(client: httpx.Client) -> None:
    problems = [{"tensors": {"x": number}} for number in (1, 2.5)]
    latents = {"select": "full", "encoding": "json"}
    for start, result in zip((1, 2.5), infer(client, problems, model="scalar", latents=latents), strict=True):
        for shown in (result["output"], result["latents"]):
            assert (shown["shape"], shown["data"]) == ([], start + 3)
    assert refused(client, problems, model="scalar", latents={"select": "pooled"})[0] == "latents.select"


def test_a_deadline_ends_what_has_no_scores_to_halt_on(client: httpx.Client) -> None:
    results = infer(client, [problem(SHORT), problem(LONG)], max_steps=1_000_000, deadline_ms=100)
    assert {result["halt_reason"] for result in results} == {"deadline"}
    assert [len(result["answer"]) for result in results] == [3, 20]


def test_every_state_comes_by_name_without_padding(client: httpx.Client) -> None:
    (result,) = infer(
        client,
        problem(SHORT),
        max_steps=2,
        latents={"select": "full", "encoding": "json", "dtype": "float16"},
    )
    cells, total = result["latents"]["cells"], result["latents"]["total"]
    assert (cells["shape"], total["shape"], total["dtype"]) == ([3, 2], [3], "float16")
    assert np.allclose(cells["data"], cells_after(SHORT, 2), atol=1e-2)
    assert total["data"] == [3.0, 4.0, 5.0]


@pytest.mark.parametrize("select", ["readout", "pooled"])
def test_a_part_of_the_state_is_only_had_where_there_is_one_state(client: httpx.Client, select: str) -> None:
    field, message = refused(client, problem(SHORT), latents={"select": select})
    assert (field, message) == (
        "latents.select",
        f"cells has no single state (N, D) to take the {select} of; select full",
    )


def test_a_criterion_that_is_not_computed_is_refused_with_those_that_are(client: httpx.Client) -> None:
    field, message = refused(client, problem(SHORT), halting={"criterion": "confidence", "threshold": 0.9})
    assert field == "halting.criterion"
    assert message == "criterion 'confidence' is not computed by cells; choose one of none"
    field, message = refused(client, problem(SHORT), model="scored", halting={"criterion": "mood"})
    assert message == "criterion 'mood' is unknown; choose one of none, q_halt"


def test_a_model_halts_on_a_score_of_its_own(client: httpx.Client) -> None:
    """It counts from the goal's largest, 3."""
    asked: list[tuple[Body, int]] = [
        ({}, 3),
        ({"halting": {"criterion": "q_halt"}}, 4),
        ({"halting": {"criterion": "q_halt", "threshold": 5}}, 2),
        ({"halting": {"criterion": "q_halt", "threshold": 5, "patience": 2}}, 3),
    ]
    for terms, steps in asked:
        (result,) = infer(client, problem(SHORT), model="scored", include=["scores"], max_steps=9, **terms)
        assert (result["steps"], result["halt_reason"]) == (steps, "halted")
        assert result["scores"] == {"q_halt": 3.0 + steps}
    described = client.get("/v1/models/scored").json()
    assert described["criteria"] == ["none", "q_halt"]
    assert described["example"] == problem([0.5, -1.0])


def test_a_stream_shows_every_step_and_both_states(client: httpx.Client) -> None:
    body = {"model": "cells", "input": [problem(SHORT), problem(LONG)], "max_steps": 3, "stream": True}
    with client.stream("POST", "/v1/infer", json=body | {"latents": {"select": "full"}}) as response:
        *steps, (name, done) = events(response)
    assert name == "done"
    for _, step in steps:
        StepEvent.model_validate(step)
        x = [SHORT, LONG][step["index"]]
        cells = np.frombuffer(base64.b64decode(step["latents"]["cells"]["data"]), "<f4").reshape(len(x), 2)
        assert np.array_equal(cells, cells_after(x, step["step"]))
        assert len(step["answer"]) == len(x)
    assert len(steps) == 6
    last = {step["index"]: step["answer"] for _, step in steps}
    assert [result["answer"] for result in done["results"]] == [last[0], last[1]]


def test_frames_hold_the_output_and_then_the_state_as_they_are(client: httpx.Client) -> None:
    body = {"model": "grid", "input": {"tensors": {"x": GRIDS[3]}}, "latents": {"select": "full"}}
    content = client.post("/v1/infer", json=body, headers={"accept": FRAMES}).content
    for step in (1, 2, 3, 3):
        (size,) = struct.unpack_from("<I", content)
        header, content = json.loads(content[4 : 4 + size]), content[4 + size :]
        shown = header["results"][0] if header["event"] == "done" else header
        for name in ("output", "latents"):
            raw, content = content[: shown[name]["byte_size"]], content[shown[name]["byte_size"] :]
            values = np.frombuffer(raw, "<f4").reshape(shown[name]["shape"])
            assert np.allclose(values, grid_after(GRIDS[3], step))
    assert not content


@pytest.mark.parametrize("encoding", ["base64", "json"])
def test_an_output_is_the_answer_of_a_model_without_classes(client: httpx.Client, encoding: str) -> None:
    """Padded to one size, the mean of these grids would be another."""
    problems = [{"tensors": {"x": grid}} for grid in GRIDS]
    terms: Body = {"model": "grid", "latents": {"encoding": encoding}, "include": ["trace", "probabilities"]}
    results = infer(client, problems, **terms)
    for grid, result in zip(GRIDS, results, strict=True):
        assert (result["answer"], result["label"], result["probabilities"]) == (None, None, None)
        for step, shown in enumerate((*result["trace"], result), start=1):
            output, data = shown["output"], shown["output"]["data"]
            assert (output["dtype"], output["encoding"]) == ("float32", encoding)
            values = np.frombuffer(base64.b64decode(data), "<f4") if encoding == "base64" else np.array(data)
            assert np.allclose(values.reshape(output["shape"]), grid_after(grid, min(step, 3)), atol=1e-5)
        assert infer(client, {"tensors": {"x": grid}}, **terms) == [result]


def test_a_problem_beyond_the_domain_is_answered_with_a_warning(client: httpx.Client) -> None:
    problems = [{"tensors": {"x": [[1.0]] * height}} for height in (8, 9)]
    within, beyond = infer(client, problems, model="grid")
    assert "warnings" not in within
    assert "Right for up to 8 rows." in beyond["warnings"][0]


class GridInTorch(torch.nn.Module):
    """The graphs of the grid bundle."""

    @torch.jit.export
    def embed(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (x,)

    @torch.jit.export
    def step(self, grid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        following = grid - grid.mean(dim=(1, 2), keepdim=True) + 1
        return following, following


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_without_scores_takes_the_same_steps(tmp_path: Path) -> None:
    onnx = grid_bundle(tmp_path)
    torch.jit.script(GridInTorch()).save(str(onnx.folder / TORCHSCRIPT))
    content = json.loads(onnx.manifest.model_dump_json(exclude={"files", "format_version"}))
    bundle = write_manifest(onnx.folder, content, [TORCHSCRIPT])
    runner = open_runner(bundle, "cpu", "torchscript")
    runner.put(0, Carry(Layout(bundle.manifest).row({"x": np.float32(GRIDS[0])})))
    for step in (1, 2):
        runner.launch([0], [])
        (landing,) = runner.land()
        assert landing.error is None
        assert np.allclose(landing.logits[0], grid_after(GRIDS[0], step))
        assert landing.scores.shape == (1, 0)
    runner.close()


def test_what_is_no_number_fails_its_problem_and_no_other(client: httpx.Client) -> None:
    """The logarithm of 0 is none, in a real token as in padding; nor is a mean beyond float32."""
    broken, sound = infer(client, [problem([1.0, 0.0]), problem(SHORT)], latents={"select": "full"})
    assert (broken["halt_reason"], broken["answer"], broken["probabilities"]) == ("error", None, None)
    assert broken["error"] == "the model's readout is not finite"
    assert sound == infer(client, problem(SHORT), latents={"select": "full"})[0]
    problems = [{"tensors": {"x": [[3e38, 3e38]]}}, {"tensors": {"x": GRIDS[0]}}]
    broken, sound = infer(client, problems, model="grid")
    assert broken["halt_reason"] == "error"
    assert "output" not in broken
    assert sound["output"]["shape"] == [1, 3]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "as a stream"])
def test_rows_that_the_model_cannot_read_are_the_callers_to_mend(client: httpx.Client, stream: bool) -> None:
    bad, good = {"tensors": {"x": 9.0}}, {"tensors": {"x": 2.0}}
    for given, field in ((bad, "input"), ([bad, bad], "input.0")):
        body = {"input": given, "model": "lookup", "stream": stream}
        if stream:
            with client.stream("POST", "/v1/infer", json=body) as response:
                ((name, content),) = list(events(response))
            assert name == "error"
            error = content["error"]
        else:
            where, _ = refused(client, given, model="lookup")
            error = client.post("/v1/infer", json=body).json()["error"]
            assert where == error["field"]
        assert (error["code"], error["field"]) == ("invalid", field)
        assert error["message"].startswith("the model cannot read this row")
    broken, sound = infer(client, [bad, good], model="lookup")
    assert broken["halt_reason"] == "error"
    assert sound["output"] == infer(client, good, model="lookup")[0]["output"]


def test_people_see_lists_and_outputs_in_a_table(
    client: httpx.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    for given, model, words in (
        (problem(SHORT), "cells", "[0, 1, 0]"),
        ({"tensors": {"x": GRIDS[3]}}, "grid", "float32 [4, 5]"),
    ):
        for include in ([], ["probabilities"]):
            body = {"input": given, "model": model, "include": include}
            console.answer(Answer.read(content_of(client.post("/v1/infer", json=body).content)))
            assert words in capsys.readouterr().out


def test_ever_new_sizes_without_padding_take_no_more_and_no_more_memory(tmp_path: Path) -> None:
    bundle = grid_bundle(tmp_path)
    runner, layout = open_runner(bundle, "cpu", "onnx"), Layout(bundle.manifest)
    assert isinstance(runner, HostRunner)
    for height, width in itertools.product(range(1, 33), range(1, 5)):
        row = layout.row({"x": np.ones((height, width), np.float32)})
        assert row.bucket == (height, width)
        runner.put(0, Carry(row))
        runner.launch([0], [])
        (landing,) = runner.land()
        assert landing.logits.shape == (1, height, width)
        runner.release(0)
    assert len(runner.store.tables) == MOST_TABLES
    assert len(runner.costs.seconds) == MOST_BUCKETS
    runner.close()


@pytest.mark.parametrize(
    ("bundle", "changes", "words"),
    [
        ("grid", {"logits": {"name": "logits", "dtype": "float32", "shape": ["B", "H"]}}, "logits of shape"),
        ("grid", {"scores": ["kl"]}, "disagree about tensor names"),
        ("scored", {"scores": [*SCORED["scores"], "kl"]}, r"scores of shape \(1, 1\), not \(1, 2\)"),
    ],
)
def test_a_step_that_is_not_as_its_manifest_says_is_an_error_at_the_start(
    tmp_path: Path, bundle: str, changes: Body, words: str
) -> None:
    grid_bundle(tmp_path) if bundle == "grid" else tokens_bundle(tmp_path, **SCORED)
    file = tmp_path / bundle / "1" / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    app = create_app(read_settings({"repository": tmp_path}))

    async def start() -> None:
        async with app.router.lifespan_context(app):
            await app.state.service.fleet.started()

    with pytest.raises(StartupError, match=words):
        asyncio.run(start())


def test_what_the_outputs_of_a_trace_would_take_is_bounded(client: httpx.Client) -> None:
    wide = {"tensors": {"x": [[1.0] * 32] * 32}}
    field, message = refused(client, wide, model="grid", max_steps=1000, include=["trace"])
    assert field == "include"
    assert "lower max_steps" in message


def test_tensors_may_come_as_bytes(client: httpx.Client) -> None:
    packed = {
        "shape": [3],
        "dtype": "float32",
        "data": base64.b64encode(np.array(SHORT, "<f4").tobytes()).decode(),
    }
    given = {"tensors": {"x": packed, "goal": [1, 2, 3]}}
    assert infer(client, given) == infer(client, problem(SHORT))


def test_a_problem_that_does_not_fit_is_refused_by_name(client: httpx.Client) -> None:
    given = [problem(SHORT), problem([1.0] * 65)]
    assert refused(client, given) == ("input.1.tensors.x", "tensor x has 65 along N, and may have 1 to 64")


def test_the_page_of_the_api_shows_what_these_models_take(client: httpx.Client) -> None:
    page = json.dumps(client.get("/openapi.json").json())
    assert "TensorsProblem" in page
