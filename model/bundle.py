"""A bundle on disk: a folder of exported graphs and a manifest that vouches for every byte.

    bundles/<model>/<version>/
        manifest.json
        embed.onnx  step.onnx             what the ONNX runner serves
        model.ts                          TorchScript, the methods embed and step
        weights.safetensors  config.json  to load in torch again

Reading checks the format, every size and every hash, and that no path leaves the folder. Nothing is
ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from model.errors import BundleError
from model.manifest import FORMAT_VERSION, FileEntry, Manifest

MANIFEST = "manifest.json"
MANIFEST_LIMIT = 4 * 2**20  # bytes; a manifest is a page of text, anything larger is not one
DRAFT, ASIDE = ".part", ".old"  # endings of folders that are being written, or being replaced
EMBED_ONNX, STEP_ONNX, TORCHSCRIPT = "embed.onnx", "step.onnx", "model.ts"
WEIGHTS, CONFIG = "weights.safetensors", "config.json"


@dataclass(frozen=True)
class Bundle:
    """A bundle that has been read and found whole."""

    folder: Path
    manifest: Manifest

    def has(self, file: str) -> bool:
        """Whether the manifest vouches for this file."""
        return file in self.manifest.files

    def path(self, file: str) -> Path:
        """Where a vouched-for file lies. Raises BundleError for any other file."""
        if not self.has(file):
            raise BundleError(f"bundle {self.folder} has no {file}: export the model with it")
        return self.folder / file


def sha256(path: Path) -> str:
    """The file's SHA-256, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_bundle(folder: Path) -> Bundle:
    """Read and verify one bundle. Raises BundleError that names the file and the fault."""
    manifest = _read_manifest(folder / MANIFEST)
    root = folder.resolve()
    for name, entry in manifest.files.items():
        path = folder / name
        if path.resolve().parent != root:
            raise BundleError(f"{path}: leads out of the bundle's folder; a bundle holds plain files only")
        if not path.is_file():
            raise BundleError(f"{path}: missing, though {MANIFEST} lists it; restore the bundle")
        if path.stat().st_size != entry.bytes or sha256(path) != entry.sha256:
            raise BundleError(f"{path}: differs from what {MANIFEST} vouches for; restore or export it again")
    return Bundle(folder, manifest)


def find_bundles(repository: Path) -> Iterator[Bundle]:
    """Every bundle under repository/<model>/<version>/, in order of name and version.

    Raises BundleError if there is no bundle, if a folder's names are not its manifest's, or if any
    bundle is unsound: a repository is served whole or not at all. What an export has not finished, or
    has set aside, is no bundle of the repository.
    """
    found = sorted(repository.glob(f"*/*/{MANIFEST}"))
    manifests = [path for path in found if path.parent.suffix not in (DRAFT, ASIDE)]
    if not manifests:
        raise BundleError(f"{repository}: no bundle here; expected <model>/<version>/{MANIFEST} below it")
    for path in manifests:
        bundle = read_bundle(path.parent)
        name, version = bundle.manifest.name, bundle.manifest.version
        if (path.parent.parent.name, path.parent.name) != (name, version):
            raise BundleError(f"{path}: says {name}/{version}, but lies in another folder")
        yield bundle


def write_manifest(folder: Path, manifest: dict[str, Any], files: list[str]) -> Bundle:
    """Hash `files` of the folder, write the manifest last and atomically, and read it all back.

    manifest holds every field but format_version and files. Raises BundleError if the result would
    not be a sound bundle.
    """
    entries = {
        name: FileEntry(sha256=sha256(folder / name), bytes=(folder / name).stat().st_size) for name in files
    }
    try:
        whole = Manifest(**{**manifest, "format_version": FORMAT_VERSION, "files": entries})
    except ValidationError as error:
        raise BundleError(f"{folder / MANIFEST}: {_first_fault(error)}") from error
    draft = folder / f"{MANIFEST}.part"
    draft.write_text(whole.model_dump_json(indent=2, exclude_none=True) + "\n", encoding="utf-8")
    os.replace(draft, folder / MANIFEST)
    return read_bundle(folder)


def _read_manifest(path: Path) -> Manifest:
    try:
        if path.stat().st_size > MANIFEST_LIMIT:
            raise BundleError(f"{path}: over {MANIFEST_LIMIT} bytes, which no manifest is")
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise BundleError(f"{path}: is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise BundleError(f"{path}: must be a JSON object")
    if content.get("format_version") != FORMAT_VERSION:
        raise BundleError(
            f"{path}: has format version {content.get('format_version')!r}, but this Fathom reads "
            f"{FORMAT_VERSION}; export the model again"
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        raise BundleError(f"{path}: {_first_fault(error)}") from error


def _first_fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    place = ".".join(str(part) for part in fault["loc"]) or "manifest"
    return f"{place}: {fault['msg']}"
