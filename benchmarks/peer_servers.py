"""Other servers around the same step graph, each as its documentation recommends for dynamic batching.

    PEERS/bin/python benchmarks/peer_servers.py litserve|ray|bentoml|fastapi --port 8001 [--batch 16]

They run in an environment of their own (litserve, ray[serve], bentoml, fastapi, uvicorn[standard],
onnxruntime, numpy, pydantic). All of them pad a batch to its longest row, and step it until its deepest row
is done; a row is answered from the readout at its own depth. Bodies: {"input": a problem, "max_steps": 12}.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

sys.path.insert(0, str(Path(__file__).parent.parent))

from model.bundle import EMBED_ONNX, STEP_ONNX, read_bundle
from model.codecs import CodecLimits, codec_of
from model.readout import answer_of
from model.row import Layout

PATHS = {"litserve": "/predict", "ray": "/", "bentoml": "/predict", "fastapi": "/predict"}
ROOT = Path(__file__).parent.parent
WAIT = 0.002  # seconds that a batch waits for more
Content = dict[str, Any]


class StepModel:
    """The two graphs of a bundle, with the bundle's own codec."""

    def __init__(self, folder: str, threads: int) -> None:
        bundle = read_bundle(Path(folder))
        self._manifest = bundle.manifest
        self._codec, self._layout = codec_of(bundle.manifest, CodecLimits()), Layout(bundle.manifest)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._embed, self._step = (
            onnxruntime.InferenceSession(bundle.folder / graph, options, ["CPUExecutionProvider"])
            for graph in (EMBED_ONNX, STEP_ONNX)
        )
        self._inputs = [spec.name for spec in self._step.get_inputs()]
        self._context = len(bundle.manifest.context)

    def answers(self, contents: Sequence[Content]) -> list[Content]:
        """One batch."""
        rows = [self._layout.row(self._codec.encode(each["input"], "input")) for each in contents]
        longest = max(row.bucket for row in rows)
        stacked = self._layout.stack([replace(row, bucket=longest) for row in rows])
        names = [spec.name for spec in self._embed.get_inputs()]
        carried = self._embed.run(None, dict(zip(names, stacked, strict=True)))
        context, carried = carried[: self._context], carried[self._context :]
        budgets = [each["max_steps"] for each in contents]
        found: list[Content] = [{}] * len(rows)
        for step in range(1, max(budgets) + 1):
            feeds = dict(zip(self._inputs, [*context, *carried], strict=False))
            if len(self._inputs) > len(feeds):
                feeds[self._inputs[-1]] = np.full(len(rows), step - 1, np.int64)
            shown = self._step.run(None, feeds)
            carried, logits = shown[: len(carried)], shown[len(carried)]
            for place, budget in enumerate(budgets):
                if budget == step:
                    answer = answer_of(self._manifest, logits[place])
                    shares = {"label": answer.label, "probabilities": answer.probabilities}
                    found[place] = {"answer": answer.answer, "steps": step, **shares}
        return found


if find_spec("litserve"):  # its workers are processes, which find the class here
    from litserve import LitAPI, LitServer

    class Api(LitAPI):
        """The model with LitServe's own batching."""

        bundle, threads = "", 1

        def setup(self, device: str) -> None:  # noqa: ARG002
            self.model = StepModel(self.bundle, self.threads)

        def batch(self, inputs: list[Content]) -> list[Content]:
            return inputs

        def predict(self, inputs: Any) -> Any:
            return self.model.answers(inputs) if isinstance(inputs, list) else self.model.answers([inputs])[0]

        def unbatch(self, output: list[Content]) -> list[Content]:
            return output


def serve_litserve(asked: argparse.Namespace) -> None:
    api = Api(max_batch_size=asked.batch, batch_timeout=WAIT)
    api.bundle, api.threads = asked.bundle, asked.threads
    server = LitServer(api, accelerator="cpu", workers_per_device=asked.workers)
    server.run("127.0.0.1", asked.port, log_level="error", generate_client_file=False)


def serve_ray(asked: argparse.Namespace) -> None:
    import ray
    from ray import serve
    from starlette.requests import Request

    @serve.deployment(
        num_replicas=asked.workers, max_ongoing_requests=256, ray_actor_options={"num_cpus": 0.5}
    )
    class Model:
        def __init__(self) -> None:
            self.model = StepModel(asked.bundle, asked.threads)

        @serve.batch(max_batch_size=asked.batch, batch_wait_timeout_s=WAIT)
        async def answers(self, contents: list[Content]) -> list[Content]:
            return self.model.answers(contents)

        async def __call__(self, request: Request) -> Content:
            return await self.answers(await request.json())

    os.environ["PYTHONPATH"] = str(ROOT)  # its processes import what the model needs
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": asked.port})
    serve.run(Model.bind(), route_prefix="/")
    while True:
        time.sleep(60)


def serve_bentoml(asked: argparse.Namespace) -> None:
    for name in ("bundle", "batch", "workers", "threads"):
        os.environ[f"PEER_{name.upper()}"] = str(getattr(asked, name))
    own = Path(__file__).parent
    command = [sys.executable, "-m", "bentoml", "serve", "peer_bentoml:Model", "--working-dir", str(own)]
    os.execv(sys.executable, [*command, "--host", "127.0.0.1", "--port", str(asked.port)])


def serve_fastapi(asked: argparse.Namespace) -> None:
    import uvicorn
    from fastapi import FastAPI

    app, model = FastAPI(), StepModel(asked.bundle, asked.threads)

    @app.post("/predict")
    def predict(content: Content) -> Content:
        return model.answers([content])[0]

    uvicorn.run(app, host="127.0.0.1", port=asked.port, log_level="error")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("peer", choices=PATHS)
    parser.add_argument("--bundle", default="bundles/graph/1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    asked.bundle = str(Path(asked.bundle).resolve())
    served = {
        "litserve": serve_litserve,
        "ray": serve_ray,
        "bentoml": serve_bentoml,
        "fastapi": serve_fastapi,
    }
    served[asked.peer](asked)


if __name__ == "__main__":
    main()
