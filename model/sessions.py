"""An exported graph in ONNX Runtime: one way of opening it, for those who serve and those who measure.

ONNX Runtime is loaded with the first graph, so that whoever serves TorchScript does without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from model.errors import BundleError, first_line
from model.row import Arrays


class OnnxGraph:
    """A graph on one thread: small batches are fastest so, and several of them run side by side."""

    def __init__(
        self,
        path: Path,
        inputs: Sequence[str],
        outputs: Sequence[str],
        device: Literal["cpu", "cuda"] = "cpu",
    ) -> None:
        """Raises BundleError where it cannot be loaded, not on this device, or has other names."""
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # errors only; the graph is ours and its hash was checked
        provider = "CUDAExecutionProvider" if device == "cuda" else "CPUExecutionProvider"
        if device == "cuda":
            ort.preload_dlls()  # the CUDA libraries of the extra `gpu` lie where no loader looks
        try:
            self._session = ort.InferenceSession(str(path), options, providers=[provider])
        except Exception as error:  # ONNX Runtime's own exceptions share no base but this one
            raise BundleError(f"{path}: ONNX Runtime cannot load it ({first_line(error)})") from error
        if self._session.get_providers()[0] != provider:  # it falls back to the CPU without a word
            raise BundleError(
                f"device cuda was asked for, but ONNX Runtime could not start it for {path.name}: check the "
                "driver and the CUDA libraries (install the extra `gpu`), or choose device cpu"
            )
        have_in = {value.name for value in self._session.get_inputs()}
        have_out = {value.name for value in self._session.get_outputs()}
        if have_in != set(inputs) or not set(outputs) <= have_out:
            raise BundleError(
                f"{path.name} and manifest.json disagree about tensor names: the graph has inputs "
                f"{sorted(have_in)} and outputs {sorted(have_out)}; export the bundle again"
            )
        self._inputs, self._outputs = tuple(inputs), list(outputs)

    def run(self, inputs: Arrays) -> Arrays:
        """Arrays in the order of the input names -> arrays in the order of the output names."""
        return list(self._session.run(self._outputs, dict(zip(self._inputs, inputs, strict=True))))
