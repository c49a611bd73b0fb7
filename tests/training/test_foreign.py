"""Models that nobody here wrote, exported and served: skipped where their packages are not installed.

Optical flow by recurrent refinement (torchvision's raft_small) and a tiny recursive model, weights
untrained. Each is its own forward pass, whatever the number of steps.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.codecs.tensors import packed
from service.app import create_app
from service.settings import read_settings
from tests.service.servers import eventually, uvicorn_running
from training.ship.module import export_module

pytestmark = pytest.mark.usefixtures("one_thread")

Named = dict[str, Tensor]
STEPS = (1, 4, 12)


class Flow(nn.Module):
    """RAFT: where each pixel of one picture is in another, refined at every step.

    The correlations of all pairs of places are looked up and never change; the batch must come first,
    which it does not in the original.
    """

    readout_kind = "tensor"
    max_steps = 12
    axes: dict[str, dict[int, str]] = {}  # noqa: RUF012  maps are an eighth of the pictures

    def __init__(self, raft: Any) -> None:
        super().__init__()
        self.raft = raft.raft_small(weights=None)
        self._module = raft

    def example_inputs(self) -> Named:
        draw = torch.Generator().manual_seed(3)
        first = torch.rand(2, 3, 128, 128, generator=draw) * 2 - 1
        return {"first": first, "second": first.roll((3, 5), dims=(2, 3))}

    def embed(self, first: Tensor, second: Tensor) -> tuple[Named, Named]:
        maps = self.raft.feature_encoder(torch.cat((first, second), dim=0))
        one, other = torch.chunk(maps, 2, dim=0)
        self.raft.corr_block.build_pyramid(one, other)
        context = {
            f"level{level}": volume.reshape(first.shape[0], -1, *volume.shape[1:])
            for level, volume in enumerate(self.raft.corr_block.corr_pyramid)
        }
        seen = self.raft.context_encoder(first)
        held = self.raft.update_block.hidden_state_size
        hidden, rest = torch.split(seen, [held, seen.shape[1] - held], dim=1)
        grid = self._module.make_coords_grid(first.shape[0], 16, 16)
        context |= {"seen": torch.relu(rest), "grid": grid}
        return context, {"hidden": torch.tanh(hidden), "coordinates": grid}

    def step(self, context: Named, state: Named) -> Named:
        levels = [volume.flatten(0, 1) for name, volume in context.items() if name.startswith("level")]
        self.raft.corr_block.corr_pyramid = levels
        found = self.raft.corr_block.index_pyramid(centroids_coords=state["coordinates"])
        flow = state["coordinates"] - context["grid"]
        hidden, change = self.raft.update_block(state["hidden"], context["seen"], found, flow)
        return {"hidden": hidden, "coordinates": state["coordinates"] + change}

    def readout(self, context: Named, state: Named) -> Tensor:
        flow: Tensor = self._module.upsample_flow(flow=state["coordinates"] - context["grid"], up_mask=None)
        return flow


class Recursive(nn.Module):
    """A tiny recursive model: every step refines a latent six times and then the answer, thrice over."""

    readout_kind = "tokens"
    labels = [str(token) for token in range(12)]  # noqa: RUF012
    axes: dict[str, dict[int, str]] = {}  # noqa: RUF012  its mixer knows one length
    score_rules = {"halt": "above"}  # noqa: RUF012
    max_steps = 12

    def __init__(self, package: Any) -> None:
        super().__init__()
        mixer = package.MLPMixer1D(dim=16, depth=2, seq_len=10)
        self.model = package.TinyRecursiveModel(dim=16, num_tokens=12, network=mixer)

    def example_inputs(self) -> Named:
        return {"tokens": torch.arange(20).view(2, 10) * 7 % 12}

    def embed(self, tokens: Tensor) -> tuple[Named, Named]:
        inputs, _ = self.model.embed_inputs_with_registers(tokens)
        outputs, latents = (start.expand_as(inputs) for start in self.model.get_initial())
        return {"inputs": inputs}, {"outputs": outputs, "latents": latents}

    def step(self, context: Named, state: Named) -> Named:
        refined = self.model.deep_refinement(context["inputs"], state["outputs"], state["latents"])
        return dict(zip(("outputs", "latents"), refined, strict=True))

    def readout(self, context: Named, state: Named) -> Tensor:
        logits: Tensor = self.model.to_pred(state["outputs"])
        return logits

    def scores(self, context: Named, state: Named, previous: Named) -> Named:
        return {"halt": self.model.to_halt_pred(state["outputs"]).sigmoid()}


@contextmanager
def served(module: nn.Module, repository: Path) -> Iterator[httpx.Client]:
    export_module(module, repository / "foreign" / "1", lambda _: None)
    settings = {"repository": repository, "max_body_bytes": 2**23, "max_event_bytes": 2**27}
    with (
        uvicorn_running(create_app(read_settings(settings))) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        eventually(lambda: client.get("/health/ready").status_code == 200)
        yield client


def infer(client: httpx.Client, inputs: Mapping[str, Tensor], **terms: object) -> list[dict[str, Any]]:
    """Every row of a batch as a problem of one request."""
    rows = len(next(iter(inputs.values())))
    problems = [
        {"tensors": {name: packed(tensor[row].numpy()) for name, tensor in inputs.items()}}
        for row in range(rows)
    ]
    response = client.post("/v1/infer", json={"input": problems, "halting": {"criterion": "none"}, **terms})
    assert response.status_code == 200, response.text
    results: list[dict[str, Any]] = response.json()["results"]
    return results


def array(shown: dict[str, Any]) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(shown["data"]), "<f4").reshape(shown["shape"])


@pytest.mark.filterwarnings("ignore:The tensor attributes", "ignore:To copy construct")
def test_optical_flow_is_refined_for_as_many_steps_as_a_request_asks(tmp_path: Path) -> None:
    try:
        from torchvision.models.optical_flow import raft
    except Exception as error:  # noqa: BLE001  built for another torch, it raises whatever it likes
        pytest.skip(f"torchvision cannot be used: {error}")
    torch.manual_seed(0)
    module = Flow(raft).eval()
    inputs = module.example_inputs()
    with torch.no_grad():
        expected = module.raft(inputs["first"], inputs["second"], num_flow_updates=max(STEPS))
    with served(module, tmp_path) as client:
        for steps in STEPS:
            for row, result in enumerate(infer(client, inputs, max_steps=steps)):
                assert result["steps"] == steps
                flow = expected[steps - 1][row].numpy()
                assert np.allclose(array(result["output"]), flow, atol=1e-3 * (1 + np.abs(flow).max()))


def test_a_tiny_recursive_model_stops_row_by_row(tmp_path: Path) -> None:
    package = pytest.importorskip("tiny_recursive_model", exc_type=ImportError)
    torch.manual_seed(0)
    module = Recursive(package).eval()
    inputs = module.example_inputs()
    with served(module, tmp_path) as client:
        outputs, latents = (start.expand(2, 10, 16) for start in module.model.get_initial())
        for step in range(1, max(STEPS) + 1):
            with torch.no_grad():
                outputs, latents, logits, halt = module.model(inputs["tokens"], outputs, latents)
            if step not in STEPS:
                continue
            asked = {"include": ["scores"], "latents": {"select": "full"}}
            for row, result in enumerate(infer(client, inputs, max_steps=step, **asked)):
                assert np.allclose(array(result["latents"]["outputs"]), outputs[row], atol=1e-3)
                assert result["answer"] == logits[row].argmax(dim=-1).tolist()
                assert abs(result["scores"]["halt"] - float(halt[row])) < 1e-3
        (once,) = {result["steps"] for result in infer(client, inputs, halting={"criterion": "halt"})}
        assert once == 1, "an untrained head says a half, which is its threshold"
