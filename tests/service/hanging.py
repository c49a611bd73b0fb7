"""`fathom` with a backend whose second step never returns; run as a module by a test."""

from __future__ import annotations

import threading

import fathom
from service.runners.layout import Arrays
from service.runners.onnx import OnnxRunner

sound_step = OnnxRunner._run_step
steps = 0


def hanging_step(self: OnnxRunner, inputs: Arrays) -> Arrays:
    global steps
    steps += 1
    if steps > 1:  # the first is the probe that makes the server ready
        threading.Event().wait()
    return sound_step(self, inputs)


OnnxRunner._run_step = hanging_step  # type: ignore[method-assign]

if __name__ == "__main__":
    fathom.main()
