"""Bundles from elsewhere: fetched at the start into a cache folder, and checked there like any bundle."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

from model.bundle import DRAFT, MANIFEST, MANIFEST_LIMIT, read_in_place, read_manifest
from model.errors import BundleError
from service.bundles.reference import SCHEMES, Reference, reference_of
from service.settings import Settings

log = logging.getLogger("fathom")
PIECE = 2**20  # bytes that are read at a time


def bundles_in_cache(settings: Settings) -> list[Path]:
    """The folders of all bundles from elsewhere, in the order in which they are named."""
    return [reference_of(text).folder(settings.bundle_cache) for text in settings.remote_bundles]


def fetch_bundles(settings: Settings) -> None:
    """Fetch what is not in the cache, or is damaged there. Raises BundleError that names the reference."""
    for text in settings.remote_bundles:
        reference = reference_of(text)
        folder = reference.folder(settings.bundle_cache)
        if _is_whole(folder, reference):
            continue
        try:
            _fetch(reference, folder, settings.max_bundle_bytes)
        except BundleError:
            raise
        except ImportError as error:
            raise BundleError(
                f"{reference.place}: {error}; install the extra `remote` and, for {reference.scheme}, "
                f"{SCHEMES[reference.scheme]}"
            ) from error
        except Exception as error:  # whatever a file system of somebody else's raises
            what = f"{type(error).__name__}: {error}"
            raise BundleError(f"{reference.place}: cannot be fetched ({what})") from error
        log.info("fetched %s", reference.place)


def _is_whole(folder: Path, reference: Reference) -> bool:
    try:
        return _digest(folder / MANIFEST) == reference.sha256 and bool(read_in_place(folder))
    except (OSError, BundleError):
        return False


def _fetch(reference: Reference, folder: Path, most: int) -> None:
    """Write a bundle beside its folder, check it, and put it in its place with one rename."""
    from fsspec.core import url_to_fs

    files, root = url_to_fs(reference.place)
    shelf = folder.parent.with_name(f"{reference.name}.{secrets.token_hex(4)}{DRAFT}")
    draft = shelf / reference.name / reference.version
    try:
        draft.mkdir(parents=True)
        manifest = draft / MANIFEST
        _copy(files, f"{root}/{MANIFEST}", manifest, MANIFEST_LIMIT)
        if (found := _digest(manifest)) != reference.sha256:
            raise BundleError(
                f"{reference.place}: its manifest has the SHA-256 {found}, which is not the pinned one"
            )
        entries = read_manifest(manifest).files
        total = sum(entry.bytes for entry in entries.values())
        if total > most:
            raise BundleError(f"{reference.place}: has {total} bytes, over the {most} of max_bundle_bytes")
        for name, entry in entries.items():
            _copy(files, f"{root}/{name}", draft / name, entry.bytes)
        read_in_place(draft)
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        os.replace(draft, folder)
    finally:
        shutil.rmtree(shelf, ignore_errors=True)


def _copy(files: Any, source: str, target: Path, most: int) -> None:
    """Raises BundleError where there is more than there may be."""
    left = most
    with closing(files.open(source, "rb")) as coming, target.open("xb") as going:
        while piece := coming.read(min(PIECE, left + 1)):
            left -= len(piece)
            if left < 0:
                raise BundleError(f"{source}: has over {most} bytes, more than its bundle says")
            going.write(piece)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
