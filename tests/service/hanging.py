"""`fathom` with a backend whose steps never return after the probe's; run as a module by a test."""

from __future__ import annotations

import threading
from collections import Counter

import fathom
from model.row import Arrays
from service.engine.served_model import PROBE_STEPS
from service.runners.onnx import OnnxRunner

sound_step = OnnxRunner._run_step
probed: Counter[int] = Counter()  # steps of each model


def hanging_step(self: OnnxRunner, inputs: Arrays) -> Arrays:
    if probed[id(self)] == PROBE_STEPS:
        threading.Event().wait()
    probed[id(self)] += 1
    return sound_step(self, inputs)


OnnxRunner._run_step = hanging_step  # type: ignore[method-assign]

if __name__ == "__main__":
    fathom.main()
