"""Bundles from elsewhere: pinned, bounded, checked, and fetched once."""

from __future__ import annotations

import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from model.bundle import MANIFEST, read_bundle, sha256
from model.errors import BundleError
from service.bundles.opening import bundles_of, places_of
from service.bundles.reference import reference_of
from service.bundles.remote import bundles_in_cache, fetch_bundles
from service.errors import StartupError
from service.settings import Settings, read_settings
from tests.service.tensor_bundles import tokens_bundle

PIN = "#sha256=" + "0" * 64


class Elsewhere:
    """A bundle at an address, and the requests that came for it."""

    def __init__(self, folder: Path, address: str, asked: list[str]) -> None:
        self.folder = folder
        self.address = address
        self.asked = asked

    @property
    def reference(self) -> str:
        return f"{self.address}#sha256={sha256(self.folder / MANIFEST)}"


@pytest.fixture(params=["file", "http"])
def elsewhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Elsewhere]:
    root = tmp_path / "elsewhere"
    folder = tokens_bundle(root).folder
    asked: list[str] = []
    if request.param == "file":
        yield Elsewhere(folder, f"file://{folder}", asked)
        return

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the library's name for it
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=root)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield Elsewhere(folder, f"http://127.0.0.1:{server.server_address[1]}/cells/1", asked)
        server.shutdown()
        thread.join()


def settings_of(tmp_path: Path, *references: str, **given: Any) -> Settings:
    nowhere = {"repository": tmp_path / "none", "bundle_cache": tmp_path / "cache"}
    return read_settings({**nowhere, "remote_bundles": ",".join(references), **given})


def left(settings: Settings) -> list[str]:
    """What lies in the cache."""
    return sorted(path.name for path in settings.bundle_cache.rglob("*") if path.is_file())


def test_a_pinned_bundle_is_fetched_once_and_served(elsewhere: Elsewhere, tmp_path: Path) -> None:
    settings = settings_of(tmp_path, elsewhere.reference)
    fetch_bundles(settings)
    (bundle,) = bundles_of(settings)
    assert bundle.manifest == read_bundle(elsewhere.folder).manifest
    assert [bundle.folder] == bundles_in_cache(settings) == places_of(settings)
    assert left(settings) == sorted([MANIFEST, *bundle.manifest.files])
    shutil.rmtree(elsewhere.folder)
    fetch_bundles(settings)  # from the cache
    assert next(bundles_of(settings)).manifest == bundle.manifest


def test_what_is_damaged_in_the_cache_is_fetched_again(elsewhere: Elsewhere, tmp_path: Path) -> None:
    settings = settings_of(tmp_path, elsewhere.reference)
    fetch_bundles(settings)
    (folder,) = bundles_in_cache(settings)
    (folder / "step.onnx").write_bytes(b"other")
    fetch_bundles(settings)
    assert read_bundle(folder)


def test_another_manifest_than_the_pinned_one_is_refused(elsewhere: Elsewhere, tmp_path: Path) -> None:
    settings = settings_of(tmp_path, elsewhere.reference)
    manifest = elsewhere.folder / MANIFEST
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "description": "other"}))
    with pytest.raises(BundleError, match=r"its manifest has the SHA-256 .* not the pinned one"):
        fetch_bundles(settings)
    assert left(settings) == []


@pytest.mark.parametrize("content", [b"other", b"", b"\0" * 10**6])
def test_another_file_than_the_manifest_vouches_for_is_refused(
    elsewhere: Elsewhere, tmp_path: Path, content: bytes
) -> None:
    settings = settings_of(tmp_path, elsewhere.reference)
    (elsewhere.folder / "step.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=r"step.onnx: (differs|has over \d+ bytes)"):
        fetch_bundles(settings)
    assert left(settings) == []


def test_what_is_not_there_or_too_large_is_refused_by_its_place(elsewhere: Elsewhere, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"cells/1: has .* bytes, over the 100 of max_bundle_bytes"):
        fetch_bundles(settings_of(tmp_path, elsewhere.reference, max_bundle_bytes=100))
    gone = elsewhere.reference.replace("cells/1", "cells/2")
    with pytest.raises(BundleError, match="cells/2: cannot be fetched"):
        fetch_bundles(settings_of(tmp_path, gone))


def test_a_bundle_under_another_name_is_refused(elsewhere: Elsewhere, tmp_path: Path) -> None:
    settings = settings_of(tmp_path, elsewhere.reference.replace("cells/1", "other/1"))
    shutil.copytree(elsewhere.folder, elsewhere.folder.parent.parent / "other" / "1")
    with pytest.raises(BundleError, match="says cells/1, but lies in another folder"):
        fetch_bundles(settings)


def test_a_version_that_is_in_the_repository_too_is_refused(elsewhere: Elsewhere, tmp_path: Path) -> None:
    settings = settings_of(tmp_path, elsewhere.reference, repository=elsewhere.folder.parent.parent)
    with pytest.raises(BundleError, match="this version is there twice"):
        places_of(settings)


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        ("s3://bucket/graph/1", "is not pinned: add #sha256="),
        ("s3://bucket/graph/1#sha256=abc", "is not pinned"),
        ("s3://bucket/graph/1#md5=" + "0" * 64, "is not pinned"),
        ("bundles/graph/1" + PIN, "is no bundle's place"),
        ("ftp://host/graph/1" + PIN, "is no bundle's place"),
        ("s3://graph" + PIN, "is no bundle's place"),
        ("s3://bucket/graph/../1" + PIN, "is no bundle's place"),
        ("https://me:secret@host/graph/1" + PIN, "is no bundle's place"),
        ("https://host/graph/1?token=x" + PIN, "is no bundle's place"),
        ("file://a::s3://bucket/graph/1" + PIN, "is no bundle's place"),
    ],
)
def test_a_reference_that_does_not_pin_or_is_no_place_is_refused_by_its_setting(
    reference: str, why: str
) -> None:
    with pytest.raises(StartupError) as refusal:
        read_settings({"remote_bundles": reference})
    assert refusal.value.message.startswith("remote_bundles (--remote-bundles, FATHOM_REMOTE_BUNDLES): ")
    assert why in refusal.value.message


@pytest.mark.parametrize("place", ["s3://bucket/deep/graph/1", "hf://owner/repo@main/graph/2.1"])
def test_a_reference_says_which_model_it_is(place: str) -> None:
    reference = reference_of(place + PIN)
    assert (reference.place, reference.name) == (place, "graph")
    folder = reference.folder(Path("cache"))
    assert folder == Path("cache", "0" * 64, "graph", place.rpartition("/")[2])


def test_what_a_scheme_needs_is_said_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(BundleError, match="install the extra `remote` and, for s3, s3fs"):
        fetch_bundles(settings_of(tmp_path, "s3://bucket/graph/1" + PIN))
