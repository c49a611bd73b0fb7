"""Bundles: whole or refused, and the refusal names the file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from model.bundle import MANIFEST, MANIFEST_LIMIT, find_bundles, read_bundle, write_manifest
from model.errors import BundleError

FACTS: dict[str, Any] = {
    "name": "toy",
    "version": "1",
    "task": "toy",
    "codec": {"name": "tensors"},
    "inputs": [{"name": "x", "dtype": "float32", "shape": ["B", "N"]}],
    "state": [{"name": "state", "dtype": "float32", "shape": ["B", "N", 4]}],
    "logits": {"name": "logits", "dtype": "float32", "shape": ["B", 2]},
    "scores": ["kl"],
    "axes": {"N": {"max": 8}},
    "steps": {"default": 4, "limit": 8},
    "halting": {"criterion": "kl", "threshold": 0.1},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "toy" / "1"
    place.mkdir(parents=True)
    (place / "step.onnx").write_bytes(b"step")
    write_manifest(place, FACTS, ["step.onnx"])
    return place


def test_what_an_export_has_not_finished_is_not_served(folder: Path) -> None:
    for ending in (".part", ".old"):
        shutil.copytree(folder, folder.with_name(f"1{ending}"))
    assert [bundle.folder for bundle in find_bundles(folder.parent.parent)] == [folder]


def rewrite(folder: Path, **changes: Any) -> None:
    content = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**content, **changes}))


def test_a_whole_bundle_is_found_and_read(folder: Path) -> None:
    (bundle,) = find_bundles(folder.parent.parent)
    assert bundle.manifest.name == "toy"
    assert bundle.path("step.onnx").read_bytes() == b"step"
    with pytest.raises(BundleError, match=r"has no model\.ts"):
        bundle.path("model.ts")


@pytest.mark.parametrize("content", [b"stop", b"steps"])
def test_a_tampered_file_is_named(folder: Path, content: bytes) -> None:
    (folder / "step.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=r"step\.onnx: differs from what manifest\.json vouches for"):
        read_bundle(folder)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "step.onnx").unlink()
    with pytest.raises(BundleError, match=r"step\.onnx: missing"):
        read_bundle(folder)


@pytest.mark.parametrize("name", ["../step.onnx", "/etc/passwd", "sub/step.onnx", ".hidden"])
def test_a_path_out_of_the_folder_is_refused(folder: Path, name: str) -> None:
    entry = json.loads((folder / MANIFEST).read_text())["files"]["step.onnx"]
    rewrite(folder, files={name: entry})
    with pytest.raises(BundleError, match=r"manifest\.json: .* would leave the bundle's folder"):
        read_bundle(folder)


def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (folder / "step.onnx").rename(outside)
    (folder / "step.onnx").symlink_to(outside)
    with pytest.raises(BundleError, match=r"step\.onnx: leads out of the bundle's folder"):
        read_bundle(folder)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_an_unknown_format_is_refused(folder: Path, version: object) -> None:
    rewrite(folder, format_version=version)
    with pytest.raises(BundleError, match=r"manifest\.json: has format version"):
        read_bundle(folder)


def test_a_huge_manifest_is_not_even_parsed(folder: Path) -> None:
    (folder / MANIFEST).write_bytes(b" " * (MANIFEST_LIMIT + 1))
    with pytest.raises(BundleError, match=r"manifest\.json: over .* bytes"):
        read_bundle(folder)


@pytest.mark.parametrize(("content", "words"), [(b"{", "is not JSON"), (b"[]", "must be a JSON object")])
def test_what_is_no_manifest_is_named(folder: Path, content: bytes, words: str) -> None:
    (folder / MANIFEST).write_bytes(content)
    with pytest.raises(BundleError, match=rf"manifest\.json: {words}"):
        read_bundle(folder)


def test_an_unreadable_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"manifest\.json: cannot be read"):
        read_bundle(tmp_path)
    with pytest.raises(BundleError, match="no bundle here"):
        list(find_bundles(tmp_path))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"surprise": 1}, "surprise"),
        ({"scores": ["mood"]}, "unknown score 'mood'"),
        ({"mask": "real"}, "mask names 'real'"),
        ({"axes": {}}, "has the axis 'N'"),
        ({"halting": {"criterion": "entropy", "threshold": 0.1}}, "'entropy' is not among the scores"),
        ({"steps": {"default": 9, "limit": 8}}, "over the limit"),
        ({"state": FACTS["inputs"]}, "named twice"),
    ],
)
def test_a_manifest_that_does_not_hang_together_is_refused(
    folder: Path, changes: dict[str, Any], words: str
) -> None:
    rewrite(folder, **changes)
    with pytest.raises(BundleError, match=words):
        read_bundle(folder)


def test_a_bundle_in_the_wrong_folder_is_refused(folder: Path) -> None:
    rewrite(folder, version="2")
    with pytest.raises(BundleError, match="says toy/2, but lies in another folder"):
        list(find_bundles(folder.parent.parent))
