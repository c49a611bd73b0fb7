"""Runs a bundle's ONNX graphs with ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable

import onnxruntime as ort

from model.bundle import EMBED_ONNX, LEAN_ONNX, STEP_ONNX, Bundle
from model.errors import BundleError
from model.row import Arrays
from model.sessions import OnnxGraph
from service.errors import StartupError
from service.runners.driver import finds_a_device
from service.runners.host import HostRunner
from service.runners.runner import Device

BINDING_PAYS = 8  # steps; binding a graph to its memory takes about as long as that saves in so many


class OnnxRunner(HostRunner):
    """embed.onnx and step.onnx, one thread inside each, many around them."""

    backend = "onnx"

    def __init__(
        self, bundle: Bundle, device: Device, slots: int, cpu_threads: int, tf32: bool = False
    ) -> None:
        manifest = bundle.manifest
        super().__init__(manifest, device, slots, cpu_threads)
        inputs = [spec.name for spec in manifest.inputs]
        try:
            self._embed = OnnxGraph(bundle.path(EMBED_ONNX), inputs, manifest.embed_outputs, device, tf32)
            self._step = OnnxGraph(
                bundle.path(STEP_ONNX), manifest.step_inputs, manifest.step_outputs, device, tf32
            )
            self.lean = manifest.lean is not None and bundle.has(LEAN_ONNX)
            if self.lean:
                path = bundle.path(LEAN_ONNX)
                self._lean = OnnxGraph(path, manifest.lean_inputs, manifest.lean_outputs, device, tf32)
        except BundleError as error:
            raise StartupError(error.message) from error

    def _run_embed(self, inputs: Arrays) -> Arrays:
        return self._embed.run(inputs)

    def _run_step(self, inputs: Arrays) -> Arrays:
        return self._step.run(inputs)

    def _repeated(self, lean: bool, inputs: Arrays, outputs: Arrays, steps: int) -> Callable[[], Arrays]:
        if steps < BINDING_PAYS or self.device != "cpu":
            return super()._repeated(lean, inputs, outputs, steps)
        manifest = self._manifest
        first, number = len(manifest.context), self._carries(lean)
        if manifest.takes_depth:
            inputs[-1] = inputs[-1].copy()  # not the table's own
        run = (self._lean if lean else self._step).repeated(inputs, outputs, slice(first, first + number))

        def again() -> Arrays:
            if manifest.takes_depth:
                inputs[-1] += 1
            return run()

        return again

    def _run_lean(self, inputs: Arrays) -> Arrays:
        return self._lean.run(inputs)


def has_cuda() -> bool:
    """Whether this ONNX Runtime was built with CUDA and this machine has a device."""
    return "CUDAExecutionProvider" in ort.get_available_providers() and finds_a_device()
