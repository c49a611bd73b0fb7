"""Exports that nothing can run: a line that names the file, and no traceback."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from model.bundle import EMBED_ONNX, STEP_ONNX, TORCHSCRIPT, Bundle, read_bundle
from service.errors import StartupError
from service.runners.open import BackendChoice, open_runner

BUNDLE = Path("bundles/graph/1")
SOUND = (BUNDLE / TORCHSCRIPT).read_bytes()


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A bundle that was vouched for as it is: what is broken was broken when it was exported."""
    shutil.copytree(BUNDLE, tmp_path, dirs_exist_ok=True)
    return dataclasses.replace(read_bundle(BUNDLE), folder=tmp_path)


@pytest.mark.parametrize(
    ("file", "backend"), [(EMBED_ONNX, "onnx"), (STEP_ONNX, "onnx"), (TORCHSCRIPT, "torchscript")]
)
@pytest.mark.parametrize(
    "content",
    [b"", b"garbage" * 100, b"\x08\x09", SOUND[: len(SOUND) // 2], SOUND.replace(b"class", b"cl(ss")],
)
def test_an_export_that_cannot_be_read_is_one_line(
    bundle: Bundle, file: str, backend: BackendChoice, content: bytes
) -> None:
    (bundle.folder / file).write_bytes(content)
    with pytest.raises(StartupError, match="cannot load it") as refusal:
        open_runner(bundle, "cpu", backend)
    assert refusal.value.message.startswith(str(bundle.folder / file))
    assert "\n" not in refusal.value.message
