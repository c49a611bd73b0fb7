"""An exported graph in ONNX Runtime: one way of opening it, for those who serve and those who measure.

ONNX Runtime is loaded with the first graph, so that whoever serves TorchScript does without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from model.errors import BundleError, first_line
from model.row import Arrays

_TYPES = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16"}
_TYPES |= {f"tensor({name})": name for name in ("int64", "int32", "bool")}
# What reckons with shapes: ONNX Runtime does that on the CPU whatever it is asked, for it is needed there.
_OF_SHAPES = {"Add", "Cast", "Concat", "ConstantOfShape", "Div", "Equal", "Expand", "Gather", "Identity"}
_OF_SHAPES |= {"Mul", "Range", "ReduceProd", "Reshape", "Shape", "Size", "Slice", "Squeeze", "Sub"}
_OF_SHAPES |= {"Unsqueeze", "Where"}


class OnnxGraph:
    """A graph on one thread: small batches are fastest so, and several of them run side by side."""

    def __init__(
        self,
        path: Path,
        inputs: Sequence[str],
        outputs: Sequence[str],
        device: Literal["cpu", "cuda"] = "cpu",
        tf32: bool = False,
    ) -> None:
        """tf32: on a GPU, for matrix products; otherwise all is IEEE float32.

        Raises BundleError where it cannot be loaded, not or not wholly on this device, or has other names.
        """
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # errors only; the graph is ours and its hash was checked
        provider, settings = "CPUExecutionProvider", {}
        if device == "cuda":
            ort.preload_dlls()  # the CUDA libraries of the extra `gpu` lie where no loader looks
            provider, settings = "CUDAExecutionProvider", {"use_tf32": str(int(tf32))}  # its default: on
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        try:
            self._session = ort.InferenceSession(str(path), options, providers=[(provider, settings)])
        except Exception as error:  # ONNX Runtime's own exceptions share no base but this one
            raise BundleError(f"{path}: ONNX Runtime cannot load it ({first_line(error)})") from error
        if self._session.get_providers()[0] != provider:  # it falls back to the CPU without a word
            raise BundleError(
                f"device cuda was asked for, but ONNX Runtime could not start it for {path.name}: check the "
                "driver and the CUDA libraries (install the extra `gpu`), or choose device cpu"
            )
        if device == "cuda" and (strays := astray(self._session)):
            raise BundleError(
                f"{path.name}: ONNX Runtime has no CUDA kernel for {', '.join(strays)} and would compute "
                "that on the CPU at every step: choose backend torchscript or device cpu"
            )
        have_in = {value.name for value in self._session.get_inputs()}
        have_out = {value.name for value in self._session.get_outputs()}
        if have_in != set(inputs) or not set(outputs) <= have_out:
            raise BundleError(
                f"{path.name} and manifest.json disagree about tensor names: the graph has inputs "
                f"{sorted(have_in)} and outputs {sorted(have_out)}; export the bundle again"
            )
        self._inputs, self._outputs = tuple(inputs), list(outputs)

    def signature(self) -> dict[str, tuple[str, list[int | str]]]:
        """What the graph says of its inputs and outputs: by name the type, and sizes and names of axes."""
        values = [*self._session.get_inputs(), *self._session.get_outputs()]
        return {value.name: (_TYPES.get(value.type, value.type), list(value.shape)) for value in values}

    def run(self, inputs: Arrays) -> Arrays:
        """Arrays in the order of the input names -> arrays in the order of the output names."""
        return list(self._session.run(self._outputs, dict(zip(self._inputs, inputs, strict=True))))


def astray(session: Any) -> list[str]:
    """The operators of a session that compute on the CPU and are not about shapes.

    The session must have been made with session.record_ep_graph_assignment_info. Its other option,
    session.disable_cpu_ep_fallback, refuses every graph with dynamic axes, because of their shapes.
    """
    there = session.get_provider_graph_assignment_info()
    nodes = [node for part in there if part.ep_name == "CPUExecutionProvider" for node in part.get_nodes()]
    return sorted({node.op_type for node in nodes} - _OF_SHAPES)
