"""`fathom` with a backend whose first step fails; run as a module by a test."""

from __future__ import annotations

import fathom
from model.row import Arrays
from service.runners.onnx import OnnxRunner


def failing_step(self: OnnxRunner, inputs: Arrays) -> Arrays:
    raise RuntimeError("this graph cannot run")


OnnxRunner._run_step = failing_step  # type: ignore[method-assign]

if __name__ == "__main__":
    fathom.main()
