"""A bundle on disk: a folder of exported graphs and a manifest that vouches for every byte.

    bundles/<model>/<version>/
        manifest.json
        embed.onnx  step.onnx             what the ONNX runner serves
        model.ts                          TorchScript, the methods embed and step
        weights.safetensors  config.json  to load in torch again

Reading checks the format, every size and every hash, that no path leaves the folder and that no graph
keeps tensors elsewhere. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import reprlib
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from packaging.version import InvalidVersion, Version
from pydantic import ValidationError

from model.errors import BundleError
from model.external_data import has_external_data
from model.manifest import FORMAT_VERSION, FileEntry, Manifest

MANIFEST = "manifest.json"
MANIFEST_LIMIT = 4 * 2**20  # bytes; a manifest is a page of text, anything larger is not one
DRAFT, ASIDE = ".part", ".old"  # endings of folders that are being written, or being replaced
NO_MODELS = (".", "lost+found")  # beginnings of folders that are never a model's
EMBED_ONNX, STEP_ONNX, TORCHSCRIPT = "embed.onnx", "step.onnx", "model.ts"
LEAN_ONNX = "lean.onnx"
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


def version_order(version: str) -> tuple[bool, Version | list[tuple[int, int, str]]]:
    """A key that sorts 2 before 10, and 2-rc1 before 2 (PEP 440); 1, 01 and 1.0 are one version.

    What is no version by that rule (a name, a date with letters) comes before all that are, in the order of
    its numbers and letters: it is never what a caller gets who names no version.
    """
    try:
        return True, Version(version)
    except InvalidVersion:
        parts = enumerate(re.split(r"([0-9]+)", version))
        return False, [(1, int(part), "") if place % 2 else (0, 0, part) for place, part in parts]


def read_bundle(folder: Path) -> Bundle:
    """Read and verify one bundle. Raises BundleError that names the file and the fault."""
    manifest = read_manifest(folder / MANIFEST)
    for name, entry in manifest.files.items():
        try:
            _verify(folder / name, entry)
        except FileNotFoundError:
            raise BundleError(
                f"{folder / name}: missing, though {MANIFEST} lists it; restore the bundle"
            ) from None
        except OSError as error:
            raise _unreadable(folder / name, error) from error
    return Bundle(folder, manifest)


def find_bundles(repository: Path) -> Iterator[Bundle]:
    """Every bundle under repository/<model>/<version>/, by name, versions oldest first.

    Raises BundleError if there is no bundle or one is unsound: a repository is served whole or not at all.
    """
    found = bundle_folders(repository)
    if not found:
        raise no_bundle(repository)
    for folder in found:
        yield read_in_place(folder)


def no_bundle(repository: Path) -> BundleError:
    """What is wrong with a repository without a bundle."""
    return BundleError(f"{repository}: no bundle here; expected <model>/<version>/{MANIFEST} below it")


def bundle_folders(repository: Path) -> list[Path]:
    """Where bundles lie under repository/<model>/<version>/, by name, versions oldest first; maybe nowhere.

    Raises BundleError if a folder cannot be looked into, or if a version is there twice. What an export has
    not finished, or has set aside, is no bundle of the repository, nor is what hides behind a dot.
    """
    found = [
        folder
        for model in _folders(repository)
        for folder in sorted(_folders(model), key=lambda folder: version_order(folder.name))
        if _has_manifest(folder)
    ]
    for one, other in itertools.pairwise(found):
        if one.parent == other.parent and version_order(one.name) == version_order(other.name):
            raise BundleError(f"{one} and {other}: one version, written in two ways; remove one of them")
    return found


def read_in_place(folder: Path) -> Bundle:
    """As read_bundle; also raises BundleError if the folder's names are not those of its manifest."""
    bundle = read_bundle(folder)
    name, version = bundle.manifest.name, bundle.manifest.version
    if (folder.parent.name, folder.name) != (name, version):
        raise BundleError(f"{folder / MANIFEST}: says {name}/{version}, but lies in another folder")
    return bundle


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


def _folders(parent: Path) -> list[Path]:
    """The folders in a folder, by name; none where it is none. Raises BundleError where nobody can tell."""
    place, folders = parent, []
    try:
        entries = sorted(parent.iterdir()) if stat.S_ISDIR(parent.stat().st_mode) else []
        for place in entries:
            if place.name.startswith(NO_MODELS) or place.suffix in (DRAFT, ASIDE):
                continue
            if stat.S_ISDIR(place.stat().st_mode):
                folders.append(place)
    except OSError as error:
        if place == parent and isinstance(error, FileNotFoundError):
            return []
        raise _unreadable(place, error) from error
    return folders


def _has_manifest(folder: Path) -> bool:
    """Whether something lies in the manifest's place. Raises BundleError where that cannot be told."""
    try:
        (folder / MANIFEST).lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _unreadable(folder, error) from error
    return True


def _verify(path: Path, entry: FileEntry) -> None:
    if os.path.realpath(path.parent) != os.path.dirname(os.path.realpath(path)):
        raise BundleError(f"{path}: leads out of the bundle's folder; a bundle holds plain files only")
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise BundleError(f"{path}: is no file; a bundle holds plain files only")
    if found.st_size != entry.bytes or sha256(path) != entry.sha256:
        raise BundleError(f"{path}: differs from what {MANIFEST} vouches for; restore or export it again")
    if path.suffix == ".onnx":
        try:
            outside = has_external_data(path.read_bytes())
        except ValueError as error:
            raise BundleError(f"{path}: is no ONNX graph ({error}); export the bundle again") from error
        if outside:
            raise BundleError(
                f"{path}: keeps tensors in other files, which {MANIFEST} cannot vouch for; "
                "export it with its weights inside"
            )


def read_manifest(path: Path) -> Manifest:
    """What a manifest says, without a look at the files. Raises BundleError where it says nothing sound."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise BundleError(f"{path}: is no file")
        with path.open("rb") as file:
            text = file.read(MANIFEST_LIMIT + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(text) > MANIFEST_LIMIT:
        raise BundleError(f"{path}: over {MANIFEST_LIMIT} bytes, which no manifest is")
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise BundleError(f"{path}: is nested too deeply") from None
    except ValueError as error:
        raise BundleError(f"{path}: is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise BundleError(f"{path}: must be a JSON object")
    if content.get("format_version") != FORMAT_VERSION:
        raise BundleError(
            f"{path}: has format version {reprlib.repr(content.get('format_version'))}, but this Fathom "
            f"reads {FORMAT_VERSION}; export the model again"
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        raise BundleError(f"{path}: {_first_fault(error)}") from error


def _first_fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    place = ".".join(str(part)[:100] for part in fault["loc"]) or "manifest"
    return f"{place}: {fault['msg']}"


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _unreadable(path: Path, error: OSError) -> BundleError:
    return BundleError(f"{path}: cannot be read ({error.strerror})")
