"""Runs a bundle's ONNX graphs with ONNX Runtime."""

from __future__ import annotations

import ctypes
from pathlib import Path

import onnxruntime as ort

from model.bundle import EMBED_ONNX, STEP_ONNX, Bundle
from model.errors import first_line
from model.row import Arrays
from service.errors import StartupError
from service.runners.host import HostRunner
from service.runners.runner import Device


class OnnxRunner(HostRunner):
    """embed.onnx and step.onnx in one session each, one thread inside a session, many around it."""

    backend = "onnx"

    def __init__(self, bundle: Bundle, device: Device, slots: int) -> None:
        manifest = bundle.manifest
        super().__init__(manifest, device, slots)
        self._embed = _open(bundle.path(EMBED_ONNX), device)
        self._step = _open(bundle.path(STEP_ONNX), device)
        self._embed_names = [spec.name for spec in manifest.inputs]
        self._step_names = list(manifest.step_inputs)
        _check_names(self._embed, self._embed_names, manifest.embed_outputs, EMBED_ONNX)
        _check_names(self._step, self._step_names, manifest.step_outputs, STEP_ONNX)
        self._embed_outputs = list(manifest.embed_outputs)
        self._step_outputs = list(manifest.step_outputs)

    def _run_embed(self, inputs: Arrays) -> Arrays:
        feed = dict(zip(self._embed_names, inputs, strict=True))
        return list(self._embed.run(self._embed_outputs, feed))

    def _run_step(self, inputs: Arrays) -> Arrays:
        feed = dict(zip(self._step_names, inputs, strict=True))
        return list(self._step.run(self._step_outputs, feed))


def has_cuda() -> bool:
    """Whether this ONNX Runtime was built with CUDA and this machine has a device."""
    return "CUDAExecutionProvider" in ort.get_available_providers() and _driver_finds_a_device()


def _driver_finds_a_device() -> bool:
    """Asks the driver itself: the build says nothing about the machine it runs on."""
    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
    except OSError:
        return False


def _open(path: Path, device: Device) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors only; the graph is ours and its hash was checked
    provider = "CUDAExecutionProvider" if device == "cuda" else "CPUExecutionProvider"
    if device == "cuda":
        ort.preload_dlls()  # the CUDA libraries of the extra `gpu` lie where no loader looks
    try:
        session = ort.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:  # ONNX Runtime's own exceptions share no base but this one
        raise StartupError(f"{path}: ONNX Runtime cannot load it ({first_line(error)})") from error
    if session.get_providers()[0] != provider:  # it falls back to the CPU without a word
        raise StartupError(
            f"device cuda was asked for, but ONNX Runtime could not start it for {path.name}: check the "
            "driver and the CUDA libraries (install the extra `gpu`), or choose device cpu"
        )
    return session


def _check_names(
    session: ort.InferenceSession, inputs: list[str], outputs: tuple[str, ...], file: str
) -> None:
    have_in = {value.name for value in session.get_inputs()}
    have_out = {value.name for value in session.get_outputs()}
    if have_in != set(inputs) or not set(outputs) <= have_out:
        raise StartupError(
            f"{file} and manifest.json disagree about tensor names: the graph has inputs {sorted(have_in)} "
            f"and outputs {sorted(have_out)}; export the bundle again"
        )
