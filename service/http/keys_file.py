"""The file of keys: a line of JSON for each, with its hash, its end, and limits of its own.

`fathom key NAME` makes them. A key is 32 random bytes, so a plain SHA-256 of it cannot be guessed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from service.errors import StartupError
from service.setting_types import Count, CountOrAny, Large, Rate, Seconds

LARGEST_FILE = 2**22  # bytes
PREFIX = "fathom_"  # so that scanners for secrets find keys that were published by mistake
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
NAMES_OF_PLAIN_KEYS = re.compile(r"(api|admin)-key-\d+")


class Allowance(BaseModel):
    """How much a caller may ask for; None: what the settings say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps_per_second: Rate | None = None
    requests_per_second: Rate | None = None
    max_streams: CountOrAny | None = None
    max_problems: Count | None = None
    max_body_bytes: Large | None = None
    queue_seconds: Seconds | None = None


class KeyLine(Allowance):
    """A line of the file of keys."""

    name: str = Field(pattern=f"^{NAME}$")
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    expires: datetime | None = None  # from then on it opens nothing; UTC unless it says otherwise
    admin: bool = False

    @model_validator(mode="after")
    def _is_ours_to_name(self) -> KeyLine:
        if NAMES_OF_PLAIN_KEYS.fullmatch(self.name):
            raise ValueError("this name is taken by the keys of the settings; choose another one")
        return self

    @property
    def digest(self) -> bytes:
        return bytes.fromhex(self.sha256)

    @property
    def expires_at(self) -> float | None:
        """Seconds of time.time()."""
        if self.expires is None:
            return None
        return (self.expires if self.expires.tzinfo else self.expires.replace(tzinfo=UTC)).timestamp()

    @property
    def allowance(self) -> Allowance:
        return Allowance.model_validate(self.model_dump(include=set(Allowance.model_fields)))


def new_key(name: str, **more: Any) -> tuple[str, str]:
    """A new key and its line for the file. Raises StartupError where a field cannot be."""
    key = PREFIX + secrets.token_urlsafe(32)
    fields = {"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest(), **more}
    fields = {field: value for field, value in fields.items() if value is not None}
    line = _checked(fields, "this key")
    if line.expires_at is not None and line.expires_at <= time.time():
        raise StartupError(f"expires: {fields['expires']} has passed")
    limits = line.allowance.model_dump(exclude_none=True)  # numbers, where a command gave texts
    return key, json.dumps({**fields, **limits})


def stamp_of(file: Path) -> object:
    """What differs when a file has changed."""
    try:
        seen = os.stat(file)
    except OSError as error:
        raise StartupError(f"keys_file: {file}: {error.strerror or error}") from None
    return seen.st_mtime_ns, seen.st_size, seen.st_ino


def read_keys(file: Path) -> list[KeyLine]:
    """Every key of a file. Raises StartupError that names file and line; never what stands there."""
    try:
        with file.open("rb") as lines:
            text = lines.read(LARGEST_FILE + 1).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise StartupError(f"keys_file: {file}: {reason}") from None
    if len(text) > LARGEST_FILE:
        raise StartupError(f"keys_file: {file} is over {LARGEST_FILE} bytes")
    found: dict[str, KeyLine] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        where = f"keys_file: {file}:{number}"
        try:
            fields = json.loads(line)
        except ValueError:
            raise StartupError(f"{where}: this is not JSON; `fathom key NAME` prints lines for it") from None
        key = _checked(fields, where)
        if key.name in found:
            raise StartupError(f"{where}: there is a key {key.name!r} above; names are for one key each")
        found[key.name] = key
    return list(found.values())


def _checked(fields: object, where: str) -> KeyLine:
    try:
        return KeyLine.model_validate(fields)
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        name = ".".join(str(part) for part in fault["loc"]) or "the line"
        raise StartupError(f"{where}: {name}: {fault['msg'].removeprefix('Value error, ')}") from None
