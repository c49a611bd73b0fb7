"""Which runner serves a bundle: the device and the backend that were asked for, or a clear no."""

from __future__ import annotations

from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from model.bundle import EMBED_ONNX, STEP_ONNX, TORCHSCRIPT, Bundle
from model.row import Row
from service.errors import StartupError
from service.runners.computing import IEEE, Numerics
from service.runners.driver import finds_a_device
from service.runners.runner import Runner

if TYPE_CHECKING:  # it loads torch
    from service.runners.device.program import Program

DeviceChoice = Literal["auto", "cpu", "cuda"]
BackendChoice = Literal["auto", "onnx", "torchscript", "torch", "inductor", "fused"]
ON_A_GPU = ("torch", "inductor", "fused")  # backends that a CPU does not have
KERNELS = Path("~/.cache/fathom/kernels")


def check_environment() -> None:
    """Refuse an environment with both builds of ONNX Runtime. Raises StartupError."""
    both = ("onnxruntime", "onnxruntime-gpu")
    if all(_is_installed(name) for name in both):
        raise StartupError(
            "onnxruntime and onnxruntime-gpu are both installed and break each other: "
            "uninstall both, then install the extra `cpu` or the extra `gpu`"
        )


def open_runner(
    bundle: Bundle,
    device: DeviceChoice,
    backend: BackendChoice,
    slots: int = 64,
    cpu_threads: int = 0,
    numerics: Numerics = IEEE,
    example: Row | None = None,
    kernels: Path = KERNELS,
) -> Runner:
    """A runner for the bundle. Never falls back to the CPU where cuda was asked for.

    `auto` as backend prefers ONNX on a CPU, and on a GPU TorchScript, whose rows stay on the device.
    `auto` as device takes cuda where a driver is there and a backend can use it; without a driver
    nothing is loaded to find out. On a CPU all runners share `cpu_threads` threads; 0: as many as there
    are cores for this process. example: a problem on which a precision is held against IEEE float32.
    kernels: the folder of those that were compiled ahead, for backend fused.

    Raises StartupError where the bundle has no such export, the backend is not installed, the device is
    not there or cannot have these numerics.
    """
    if device == "cuda" or (device == "auto" and finds_a_device()):
        found = _on_cuda(bundle, backend, slots, numerics, example, kernels)
        if not isinstance(found, str):
            return found
        if device == "cuda":
            raise StartupError(f"device cuda was asked for, but {found}; or choose device cpu")
    if numerics != IEEE:
        asked = "deterministic" if numerics.deterministic else f"precision {numerics.precision}"
        raise StartupError(
            f"{asked} is about a GPU's arithmetic, and {bundle.manifest.name} would run on the CPU, where "
            "all is IEEE float32: leave it out, or choose device cuda"
        )
    return _on_cpu(bundle, backend, slots, cpu_threads)


def _on_cpu(bundle: Bundle, backend: BackendChoice, slots: int, cpu_threads: int) -> Runner:
    if backend in ON_A_GPU:
        raise StartupError(
            f"backend {backend} needs a GPU: choose device cuda, or backend onnx or torchscript"
        )
    if backend == "auto":
        backend = "onnx" if _has_onnx(bundle) and util.find_spec("onnxruntime") else "torchscript"
    if backend == "onnx":
        if not _has_onnx(bundle):
            raise StartupError(f"{bundle.folder}: has no ONNX export; choose backend torchscript")
        if not util.find_spec("onnxruntime"):
            raise StartupError("backend onnx needs ONNX Runtime: install the extra `cpu` or the extra `gpu`")
        from service.runners.onnx import OnnxRunner

        return OnnxRunner(bundle, "cpu", slots, cpu_threads)
    if not bundle.has(TORCHSCRIPT):
        raise StartupError(
            f"{bundle.folder}: has no {TORCHSCRIPT}; choose backend onnx (extra `cpu` or `gpu`)"
        )
    if not util.find_spec("torch"):
        raise StartupError("backend torchscript needs torch: install the extra `torch`")
    from service.runners.torchscript import TorchScriptRunner

    return TorchScriptRunner(bundle, slots, cpu_threads)


def _on_cuda(
    bundle: Bundle, backend: BackendChoice, slots: int, numerics: Numerics, example: Row | None, kernels: Path
) -> Runner | str:
    """A runner on the GPU, or what stands in the way of every backend that may be used."""
    torchless = _without_torch()
    obstacles = []
    for choice in ("torchscript", "onnx") if backend == "auto" else (backend,):
        if choice == "onnx":
            obstacle = _without_onnx(bundle, numerics)
        elif choice in ("torchscript", "fused") and not bundle.has(TORCHSCRIPT):
            obstacle = f"{bundle.folder} has no {TORCHSCRIPT}"
        else:
            obstacle = torchless
        if obstacle is not None:
            obstacles.append(obstacle)
        elif torchless is not None:
            from service.runners.onnx import OnnxRunner

            return OnnxRunner(bundle, "cuda", slots, 1, tf32=numerics.precision == "tf32")
        else:
            from service.runners.device.runner import DeviceRunner

            program = _program(choice, numerics, kernels)
            ahead = not program.bursts  # who takes several steps at once need not look ahead
            return DeviceRunner(bundle, "cuda", slots, ahead, numerics, example, program)
    return ", and ".join(obstacles)


def _program(backend: BackendChoice, numerics: Numerics, kernels: Path) -> Program:
    """What computes with rows that stay on the device. Raises StartupError where it has no such numerics."""
    if backend == "onnx":
        from service.runners.device.bound import BOUND

        return BOUND
    if backend == "fused":
        if numerics.precision != "ieee":
            raise StartupError(
                f"backend fused computes in IEEE float32: leave precision {numerics.precision} out, "
                "or choose backend torchscript"
            )
        from service.runners.fused.program import fused

        return fused(kernels)
    if backend in ("torch", "inductor"):
        if not util.find_spec("safetensors"):
            raise StartupError(f"backend {backend} needs safetensors: install the extra `gpu`")
        from service.runners.device.built import BUILT, COMPILED

        return BUILT if backend == "torch" else COMPILED
    from service.runners.device.program import SCRIPTED

    return SCRIPTED


def _without_torch() -> str | None:
    """Why nothing can run with torch on a GPU; None where it can."""
    if not util.find_spec("torch"):
        return "torch is not installed (extra `gpu`)"
    from service.runners.torchscript import has_cuda

    return None if has_cuda() else "torch finds none: check the driver, and that torch is a build for CUDA"


def _without_onnx(bundle: Bundle, numerics: Numerics) -> str | None:
    """Why the bundle cannot run with ONNX Runtime on a GPU; None where it can."""
    if not _has_onnx(bundle):
        return f"{bundle.folder} has no ONNX export"
    if not util.find_spec("onnxruntime"):
        return "ONNX Runtime is not installed (extra `gpu`)"
    if numerics.deterministic or numerics.precision == "bf16":
        return "with ONNX Runtime there is neither precision bf16 nor deterministic"
    from service.runners.onnx import has_cuda

    if has_cuda():
        return None
    return "ONNX Runtime finds none: check the driver and install the extra `gpu` instead of `cpu`"


def _has_onnx(bundle: Bundle) -> bool:
    return bundle.has(EMBED_ONNX) and bundle.has(STEP_ONNX)


def _is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
