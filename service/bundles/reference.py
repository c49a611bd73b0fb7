"""A reference to a bundle elsewhere that pins every byte: SCHEME://…/<model>/<version>#sha256=<manifest's>."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

SCHEMES = {  # and what fsspec needs for each
    "s3": "s3fs",
    "hf": "huggingface_hub",
    "gs": "gcsfs",
    "https": "aiohttp",
    "http": "aiohttp",
    "file": "nothing more",
}
REFERENCE = re.compile(
    rf"(?P<place>(?P<scheme>{'|'.join(SCHEMES)})://[^\s#?,]*/(?P<name>[a-z0-9][a-z0-9_-]*)"
    r"/(?P<version>[A-Za-z0-9][A-Za-z0-9_.-]*))#sha256=(?P<sha256>[0-9a-f]{64})"
)


@dataclass(frozen=True)
class Reference:
    """Where a bundle lies, and what its manifest must hash to; the manifest's own hashes cover the files."""

    place: str  # without the hash
    scheme: str
    name: str
    version: str
    sha256: str

    def folder(self, cache: Path) -> Path:
        """Where it lies once it has been fetched."""
        return cache.expanduser() / self.sha256 / self.name / self.version


def reference_of(text: str) -> Reference:
    """Raises ValueError where a text is no reference, or does not pin what it refers to."""
    found = REFERENCE.fullmatch(text)
    if found and "@" not in text.partition("://")[2].partition("/")[0] and "::" not in text:
        return Reference(**found.groupdict())
    place, _, pin = text.partition("#")
    if not re.fullmatch("sha256=[0-9a-f]{64}", pin):
        raise ValueError(
            f"{place!r} is not pinned: add #sha256= and the SHA-256 of its manifest.json in hexadecimal"
        )
    raise ValueError(
        f"{place!r} is no bundle's place: write SCHEME://…/<model>/<version> with one of "
        f"{', '.join(SCHEMES)}, and leave credentials to the environment"
    )
