"""What a setting may be: bounds, lists written with commas, and what its flag's help shows for a value."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from service.bundles.reference import reference_of


@dataclass(frozen=True)
class Shown:
    """What stands for the value behind a flag."""

    metavar: str


def _split(value: object) -> object:
    """A comma-separated text -> its parts; anything else is left to validation."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _keys(value: object) -> object:
    """As _split; but a text that is not empty and holds no key is a mistake, not an open door."""
    keys = _split(value)
    if isinstance(value, str) and value and not keys:
        raise ValueError("there is no key between the commas; give one, or leave it empty for none")
    return keys


def _ascending(bounds: tuple[float, ...]) -> tuple[float, ...]:
    if not bounds or any(low >= high for low, high in itertools.pairwise(bounds)):
        raise ValueError("give at least one bound, in ascending order, separated by commas")
    return bounds


def _origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    for origin in origins:
        if origin != "*" and not re.fullmatch(r"https?://[^/\s?#@]+", origin):
            raise ValueError(f"{origin!r} is not an origin; write https://HOST or https://HOST:PORT, or *")
    return origins


def _hosts(hosts: tuple[str, ...]) -> tuple[str, ...]:
    for host in hosts:
        if host != "*" and not re.fullmatch(r"(\*\.)?[A-Za-z0-9._-]+|\[?[0-9A-Fa-f:.]+\]?", host):
            raise ValueError(f"{host!r} is not a name; write HOST without a port, *.DOMAIN, or *")
    return hosts


def _pinned(references: tuple[str, ...]) -> tuple[str, ...]:
    for reference in references:
        reference_of(reference)
    return references


Count = Annotated[int, Field(ge=1, le=10**6), Shown("N")]
CountOrAny = Annotated[int, Field(ge=0, le=10**6), Shown("N")]
Large = Annotated[int, Field(ge=1, le=10**12), Shown("BYTES")]
Seconds = Annotated[float, Field(gt=0, le=10**6, allow_inf_nan=False), Shown("SECONDS")]
SecondsOrNone = Annotated[float, Field(ge=0, le=10**6, allow_inf_nan=False), Shown("SECONDS")]
Milliseconds = Annotated[float, Field(gt=0, le=10**6, allow_inf_nan=False), Shown("MS")]
Rate = Annotated[float, Field(ge=0, le=10**9, allow_inf_nan=False), Shown("N")]  # a second; 0: any
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False), Shown("SHARE")]
Folder = Annotated[Path, Shown("DIR")]
File = Annotated[str, Shown("FILE")]  # empty: none

Bound = Annotated[float, Field(ge=0, le=10**12, allow_inf_nan=False)]
Buckets = Annotated[
    tuple[Bound, ...], NoDecode, BeforeValidator(_split), AfterValidator(_ascending), Shown("BOUND,...")
]
Name = Annotated[str, Field(max_length=128)]
Names = Annotated[tuple[Name, ...], NoDecode, BeforeValidator(_split), Shown("NAME,...")]
Origins = Annotated[
    tuple[Name, ...], NoDecode, BeforeValidator(_split), AfterValidator(_origins), Shown("ORIGIN,...")
]
Hosts = Annotated[
    tuple[Name, ...], NoDecode, BeforeValidator(_split), AfterValidator(_hosts), Shown("NAME,...")
]
Place = Annotated[str, Field(max_length=1024)]
Places = Annotated[
    tuple[Place, ...],
    NoDecode,
    BeforeValidator(_split),
    AfterValidator(_pinned),
    Shown("PLACE#sha256=HASH,..."),
]
Keys = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_keys), Shown("KEY,...")]
