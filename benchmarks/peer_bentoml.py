"""The step graph as a BentoML service, for the command of its own that serves it (peer_servers.py runs that).

A method that is batchable takes a list: BentoML puts together what requests bring, and parts the answers.
"""

from __future__ import annotations

import os
from typing import Any

import bentoml
from peer_servers import StepModel

BUNDLE, BATCH, WORKERS, THREADS = (
    os.environ[f"PEER_{name}"] for name in ("BUNDLE", "BATCH", "WORKERS", "THREADS")
)
LATENCY_MS = 60_000  # it refuses what it expects to take longer, and nobody is to be refused


@bentoml.service(
    workers=int(WORKERS),
    traffic={"timeout": 120},
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
)
class Model:
    """Bodies: {"contents": [{"input": a problem, "max_steps": 12}]}, answered by a list of as many."""

    def __init__(self) -> None:
        self.model = StepModel(BUNDLE, int(THREADS))

    @bentoml.api(batchable=True, max_batch_size=int(BATCH), max_latency_ms=LATENCY_MS)
    def predict(self, contents: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return self.model.answers(contents)
