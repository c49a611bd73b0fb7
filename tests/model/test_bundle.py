"""Bundles: whole or refused, and the refusal names the file."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from model.bounds import MOST_LEVELS
from model.bundle import MANIFEST, MANIFEST_LIMIT, find_bundles, read_bundle, version_order, write_manifest
from model.errors import BundleError
from model.halting import MOST_STEPS

FACTS: dict[str, Any] = {
    "name": "toy",
    "version": "1",
    "task": "toy",
    "codec": {"name": "tensors"},
    "inputs": [{"name": "x", "dtype": "float32", "shape": ["B", "N"]}],
    "state": [{"name": "state", "dtype": "float32", "shape": ["B", "N", 4]}],
    "logits": {"name": "logits", "dtype": "float32", "shape": ["B", 2]},
    "classes": [{"label": "no", "answer": False}, {"label": "yes", "answer": True}],
    "scores": ["kl"],
    "axes": {"N": {"max": 8}},
    "steps": {"default": 4, "limit": 8},
    "halting": {"criterion": "kl", "threshold": 0.1},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "toy" / "1"
    place.mkdir(parents=True)
    (place / "weights.bin").write_bytes(b"held")
    write_manifest(place, FACTS, ["weights.bin"])
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
    assert bundle.path("weights.bin").read_bytes() == b"held"
    with pytest.raises(BundleError, match=r"has no model\.ts"):
        bundle.path("model.ts")


@pytest.mark.parametrize("content", [b"hold", b"holds"])
def test_a_tampered_file_is_named(folder: Path, content: bytes) -> None:
    (folder / "weights.bin").write_bytes(content)
    with pytest.raises(BundleError, match=r"weights\.bin: differs from what manifest\.json vouches for"):
        read_bundle(folder)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "weights.bin").unlink()
    with pytest.raises(BundleError, match=r"weights\.bin: missing"):
        read_bundle(folder)


@pytest.mark.parametrize("name", ["../weights.bin", "/etc/passwd", "sub/weights.bin", ".hidden"])
def test_a_path_out_of_the_folder_is_refused(folder: Path, name: str) -> None:
    entry = json.loads((folder / MANIFEST).read_text())["files"]["weights.bin"]
    rewrite(folder, files={name: entry})
    with pytest.raises(BundleError, match=r"manifest\.json: .* would leave the bundle's folder"):
        read_bundle(folder)


def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (folder / "weights.bin").rename(outside)
    (folder / "weights.bin").symlink_to(outside)
    with pytest.raises(BundleError, match=r"weights\.bin: leads out of the bundle's folder"):
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
        ({"steps": {"default": 10**25, "limit": 10**25}}, rf"steps\.default: .* equal to {MOST_STEPS}"),
        ({"steps": {"default": 4, "limit": MOST_STEPS + 1}}, r"steps\.limit: "),
        ({"halting": {"criterion": "kl", "threshold": 0.1, "patience": 2**63}}, r"halting\.patience: "),
        ({"halting": {"criterion": "kl", "threshold": 0.1, "min_steps": 2**63}}, r"halting\.min_steps: "),
        ({"halting": {"criterion": "kl", "threshold": 1e300}}, r"halting\.threshold: "),
        ({"halting": {"criterion": "kl", "threshold": float("nan")}}, "NaN is not a JSON number"),
        ({"axes": {"N": {"max": 10**25}}}, r"axes\.N\.max: "),
        ({"axes": {"N" * 200: {"max": 8}}}, "at most 128 characters"),
        ({"state": [{"name": "s", "dtype": "bool", "shape": ["B", 10**25]}]}, r"state\.0\.shape\.1"),
        ({"state": [{"name": "s", "dtype": "bool", "shape": ["B", 2**20, 2**20]}]}, "values"),
        ({"state": [{"name": "s", "dtype": "bool", "shape": ["B", *[1] * 99]}]}, r"state\.0\.shape: "),
        ({"codec": {"name": "text", "vocabulary": {"a": 2**63}}}, r"codec\.vocabulary\.a: "),
        ({"classes": [{"label": "a", "answer": 10**25}]}, r"classes\.0\.answer: .* over 64 bits"),
        ({"classes": [{"label": "a" * 200, "answer": 1}]}, r"classes\.0\.label: "),
        ({"task": "a" * 200}, "task: "),
        ({"training": {"seed": 10**25}}, "training: .* over 64 bits"),
        ({"training": {"text": "\ud800"}}, "training: "),
        ({"calibration": {"problems": 1, "max_steps": 1, "confidence": 2.0}}, r"calibration\.confidence: "),
    ],
)
def test_a_manifest_that_does_not_hang_together_is_refused(
    folder: Path, changes: dict[str, Any], words: str
) -> None:
    rewrite(folder, **changes)
    with pytest.raises(BundleError, match=words):
        read_bundle(folder)


@pytest.mark.parametrize("number", ["1e999", "-1e999"])
def test_a_number_without_an_end_is_refused(folder: Path, number: str) -> None:
    content = (folder / MANIFEST).read_text().replace('"threshold": 0.1', f'"threshold": {number}')
    (folder / MANIFEST).write_text(content)
    with pytest.raises(BundleError, match=r"halting\.threshold: "):
        read_bundle(folder)


@pytest.mark.parametrize("levels", [MOST_LEVELS + 2, 900, 100_000])
def test_a_manifest_that_is_nested_deeply_is_refused_in_a_line(folder: Path, levels: int) -> None:
    content = (folder / MANIFEST).read_text().replace('"files"', f'"training": {nested(levels)}, "files"')
    (folder / MANIFEST).write_text(content.replace('"training": {},', ""))
    with pytest.raises(BundleError, match="nested") as refusal:
        read_bundle(folder)
    assert "\n" not in refusal.value.message


def nested(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


def test_a_refusal_quotes_no_megabyte(folder: Path) -> None:
    for changes in ({"x" * 10**6: 1}, {"format_version": "x" * 10**6}, {"scores": ["x" * 10**6]}):
        rewrite(folder, **changes)
        with pytest.raises(BundleError) as refusal:
            read_bundle(folder)
        assert len(refusal.value.message) < 1000


@pytest.mark.parametrize("name", [MANIFEST, "weights.bin"])
def test_what_is_no_plain_file_is_named_and_nobody_waits_for_it(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(BundleError, match=f"{name}: is no file"):
        read_bundle(folder)


@pytest.mark.parametrize("name", [MANIFEST, "weights.bin"])
def test_a_file_that_is_a_link_to_itself_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).symlink_to(name)
    with pytest.raises(BundleError, match=f"{name}: cannot be read"):
        list(find_bundles(folder.parent.parent))


@pytest.mark.parametrize("target", ["broken", "nowhere"])
@pytest.mark.parametrize("place", ["broken", "toy/broken"])
def test_a_folder_that_cannot_be_read_is_named_and_nothing_is_served(
    folder: Path, place: str, target: str
) -> None:
    broken = folder.parent.parent / place
    broken.symlink_to(target)
    with pytest.raises(BundleError, match="broken: cannot be read"):
        list(find_bundles(folder.parent.parent))


@pytest.mark.parametrize("place", ["locked", "toy/2"])
def test_a_folder_that_may_not_be_read_is_named(
    folder: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked, lstat, iterdir = folder.parent.parent / place, Path.lstat, Path.iterdir
    locked.mkdir()

    def refusing(path: Path) -> Any:
        if path in (locked, locked / MANIFEST):
            raise PermissionError(13, "Permission denied")
        return iterdir(path) if path.is_dir() else lstat(path)

    monkeypatch.setattr(Path, "iterdir", refusing)
    monkeypatch.setattr(Path, "lstat", refusing)
    with pytest.raises(BundleError, match=f"{place}: cannot be read"):
        list(find_bundles(folder.parent.parent))


def test_a_repository_in_a_folder_that_may_not_be_searched_is_not_called_empty(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(path: Path, **_: object) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refusing)
    with pytest.raises(BundleError, match=r"cannot be read \(Permission denied\)"):
        list(find_bundles(folder.parent.parent))


def test_what_lies_beside_the_models_does_not_matter(folder: Path) -> None:
    repository = folder.parent.parent
    for name in (".git", "lost+found", "toy/notes"):
        (repository / name).mkdir()
    (repository / "README.md").write_text("three models")
    assert [bundle.folder for bundle in find_bundles(repository)] == [folder]


def version(folder: Path, name: str) -> None:
    shutil.copytree(folder, folder.with_name(name))
    rewrite(folder.with_name(name), version=name)


def test_a_version_written_in_two_ways_is_refused(folder: Path) -> None:
    version(folder, "01")
    with pytest.raises(BundleError, match="one version, written in two ways") as refusal:
        list(find_bundles(folder.parent.parent))
    assert str(folder) in refusal.value.message
    assert str(folder.with_name("01")) in refusal.value.message


def test_bundles_come_in_the_order_of_their_versions(folder: Path) -> None:
    for name in ("10", "9", "1.10", "1.9"):
        version(folder, name)
    found = [bundle.manifest.version for bundle in find_bundles(folder.parent.parent)]
    assert found == ["1", "1.9", "1.10", "9", "10"]
    assert sorted(["2\u00b2", "2\u0662", "2"], key=version_order)[-1] == "2", "the others are no versions"


def test_a_bundle_in_the_wrong_folder_is_refused(folder: Path) -> None:
    rewrite(folder, version="2")
    with pytest.raises(BundleError, match="says toy/2, but lies in another folder"):
        list(find_bundles(folder.parent.parent))
