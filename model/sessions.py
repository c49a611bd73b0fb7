"""An exported graph in ONNX Runtime: one way of opening it, for those who serve and those who measure.

ONNX Runtime is loaded with the first graph, so that whoever serves TorchScript does without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, Literal

import numpy as np

from model.errors import BundleError, first_line
from model.row import Arrays

_TYPES = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16"}
_TYPES |= {f"tensor({name})": name for name in ("int64", "int32", "bool")}
# What reckons with shapes: ONNX Runtime does that on the CPU whatever it is asked, for it is needed there.
_OF_SHAPES = {"Add", "Cast", "Concat", "ConstantOfShape", "Div", "Equal", "Expand", "Gather", "Identity"}
_OF_SHAPES |= {"Mul", "Range", "ReduceProd", "Reshape", "Shape", "Size", "Slice", "Squeeze", "Sub"}
_OF_SHAPES |= {"Unsqueeze", "Where"}


@dataclass(frozen=True)
class Placed:
    """A tensor that lies somewhere already: contiguous, in the memory of the graph's device."""

    address: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class OnnxGraph:
    """A graph on one thread: small batches are fastest so, and several of them run side by side."""

    def __init__(
        self,
        path: Path,
        inputs: Sequence[str],
        outputs: Sequence[str],
        device: Literal["cpu", "cuda"] = "cpu",
        tf32: bool = False,
        stream: int | None = None,
    ) -> None:
        """tf32: on a GPU, for matrix products; otherwise all is IEEE float32. stream: the address of the CUDA
        stream on which it is to compute; without one it has its own.

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
            if stream is not None:
                settings["user_compute_stream"] = str(stream)
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
        self._device = device

    def signature(self) -> dict[str, tuple[str, list[int | str]]]:
        """What the graph says of its inputs and outputs: by name the type, and sizes and names of axes."""
        values = [*self._session.get_inputs(), *self._session.get_outputs()]
        return {value.name: (_TYPES.get(value.type, value.type), list(value.shape)) for value in values}

    def run(self, inputs: Arrays) -> Arrays:
        """Arrays in the order of the input names -> arrays in the order of the output names."""
        return list(self._session.run(self._outputs, dict(zip(self._inputs, inputs, strict=True))))

    def in_place(
        self, inputs: Sequence[Placed], outputs: Sequence[Placed], device_id: int = 0
    ) -> Callable[[], None]:
        """What computes from where the inputs lie to where the outputs are to be, in order of their names.

        On a GPU it only asks for it, on the stream that was given: whoever works on that comes after it.
        None of the outputs may lie where an input does.
        """
        import onnxruntime as ort

        binding = self._session.io_binding()
        for bind, names, tensors in (
            (binding.bind_input, self._inputs, inputs),
            (binding.bind_output, self._outputs, outputs),
        ):
            for name, tensor in zip(names, tensors, strict=True):
                bind(name, self._device, device_id, tensor.dtype, tensor.shape, tensor.address)
        options = ort.RunOptions()
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        return partial(self._session.run_with_iobinding, binding, options)

    def repeated(self, inputs: Arrays, outputs: Arrays, carried: slice) -> Callable[[], Arrays]:
        """On a CPU, what runs the graph on its own outputs, again and again, with no new memory.

        outputs are what it made of these inputs; the first of them are the inputs `carried` of the next run.
        Every run leaves them where the run before it had its own, and what is not carried where it was.
        Inputs that are not carried may be changed in between, in place.
        """
        import onnxruntime as ort

        values = [
            [ort.OrtValue.ortvalue_from_numpy(array) for array in arrays] for arrays in (inputs, outputs)
        ]
        number = carried.stop - carried.start
        (given, made), ways = values, []
        for ins, outs, left in (
            (
                [*given[: carried.start], *made[:number], *given[carried.stop :]],
                given[carried],
                inputs[carried],
            ),
            (given, made[:number], outputs[:number]),
        ):
            binding = self._session.io_binding()
            for name, value in zip(self._inputs, ins, strict=True):
                binding.bind_ortvalue_input(name, value)
            for name, value in zip(self._outputs, [*outs, *made[number:]], strict=True):
                binding.bind_ortvalue_output(name, value)
            ways.append((binding, [*left, *outputs[number:]]))
        turns = cycle(ways)

        def again() -> Arrays:
            binding, left = next(turns)
            self._session.run_with_iobinding(binding)
            return left

        return again


def astray(session: Any) -> list[str]:
    """The operators of a session that compute on the CPU and are not about shapes.

    The session must have been made with session.record_ep_graph_assignment_info. Its other option,
    session.disable_cpu_ep_fallback, refuses every graph with dynamic axes, because of their shapes.
    """
    there = session.get_provider_graph_assignment_info()
    nodes = [node for part in there if part.ep_name == "CPUExecutionProvider" for node in part.get_nodes()]
    return sorted({node.op_type for node in nodes} - _OF_SHAPES)
