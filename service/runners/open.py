"""Which runner serves a bundle: the device and the backend that were asked for, or a clear no."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata, util
from typing import Literal

from model.bundle import EMBED_ONNX, STEP_ONNX, TORCHSCRIPT, Bundle
from service.errors import StartupError
from service.runners.runner import Device, Runner

DeviceChoice = Literal["auto", "cpu", "cuda"]
BackendChoice = Literal["auto", "onnx", "torchscript"]


def check_environment() -> None:
    """Refuse an environment with both builds of ONNX Runtime. Raises StartupError."""
    both = ("onnxruntime", "onnxruntime-gpu")
    if all(_is_installed(name) for name in both):
        raise StartupError(
            "onnxruntime and onnxruntime-gpu are both installed and break each other: "
            "uninstall both, then install the extra `cpu` or the extra `gpu`"
        )


def open_runner(
    bundle: Bundle, device: DeviceChoice, backend: BackendChoice, slots: int = 64, cpu_threads: int = 0
) -> Runner:
    """A runner for the bundle. Never falls back to the CPU where cuda was asked for.

    `auto` as backend prefers ONNX; `auto` as device takes cuda where the backend has it. On a CPU all
    runners share `cpu_threads` threads; 0: as many as there are cores for this process. Raises
    StartupError where the bundle has no such export, the backend is not installed or the device
    is not there.
    """
    has_onnx = bundle.has(EMBED_ONNX) and bundle.has(STEP_ONNX)
    if backend == "auto":
        backend = "onnx" if has_onnx and util.find_spec("onnxruntime") else "torchscript"
    if backend == "onnx":
        if not has_onnx:
            raise StartupError(f"{bundle.folder}: has no ONNX export; choose backend torchscript")
        return _open_onnx(bundle, device, slots, cpu_threads)
    if not bundle.has(TORCHSCRIPT):
        raise StartupError(
            f"{bundle.folder}: has no {TORCHSCRIPT}; choose backend onnx (extra `cpu` or `gpu`)"
        )
    return _open_torchscript(bundle, device, slots, cpu_threads)


def _open_onnx(bundle: Bundle, device: DeviceChoice, slots: int, cpu_threads: int) -> Runner:
    if not util.find_spec("onnxruntime"):
        raise StartupError("backend onnx needs ONNX Runtime: install the extra `cpu` or the extra `gpu`")
    from service.runners.onnx import OnnxRunner, has_cuda

    remedy = "ONNX Runtime finds none: check the driver and install the extra `gpu` instead of `cpu`"
    return OnnxRunner(bundle, _chosen(device, has_cuda, remedy), slots, cpu_threads)


def _open_torchscript(bundle: Bundle, device: DeviceChoice, slots: int, cpu_threads: int) -> Runner:
    if not util.find_spec("torch"):
        raise StartupError("backend torchscript needs torch: install the extra `torch`")
    from service.runners.torchscript import TorchScriptRunner, has_cuda

    chosen = _chosen(device, has_cuda, "torch finds none: check the driver")
    return TorchScriptRunner(bundle, chosen, slots, cpu_threads)


def _chosen(asked: DeviceChoice, has_cuda: Callable[[], bool], remedy: str) -> Device:
    """The device that was asked for, or a clear no; never the CPU in place of cuda."""
    if asked == "cpu":
        return "cpu"
    if has_cuda():
        return "cuda"
    if asked == "cuda":
        raise StartupError(f"device cuda was asked for, but {remedy}, or choose device cpu")
    return "cpu"


def _is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
