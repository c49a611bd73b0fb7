"""API keys: named, hashed at rest, expiring, some of them for administration, with limits of their own.

They come from two settings of plain keys and from a file of hashes, a line of JSON for each key, which
`fathom key NAME` makes. A key is 32 random bytes, so a plain SHA-256 of it cannot be guessed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from model.errors import FathomError
from service.errors import Forbidden, StartupError, Unauthorized
from service.settings import Count, Large, Rate, Seconds, Settings

log = logging.getLogger("fathom")
LOOK_SECONDS = 1.0  # a key that is taken out of the file opens nothing after this long
LARGEST_FILE = 2**22  # bytes
PREFIX = "fathom_"  # so that scanners for secrets find keys that were published by mistake
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
NAMES_OF_PLAIN_KEYS = re.compile(r"(api|admin)-key-\d+")


class Allowance(BaseModel):
    """How much a caller may ask for; None: what the settings say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps_per_second: Rate | None = None
    requests_per_second: Rate | None = None
    max_streams: Annotated[int, Field(ge=0, le=10**6)] | None = None
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


@dataclass(frozen=True)
class Caller:
    """Who sends a request: a key by its name, or everybody who needs none."""

    name: str = ""  # on whose account it thinks, and what logs show
    admin: bool = False
    allowance: Allowance = field(default_factory=Allowance)


ANYBODY = Caller()


@dataclass(frozen=True)
class _Entry:
    digest: bytes
    caller: Caller
    expires: float | None = None  # seconds of time.time()


class Keys:
    """The keys of a server, as hashes of one length: comparing them tells nothing about them."""

    def __init__(
        self, plain: Iterable[str] = (), admin: Iterable[str] = (), file: Path | None = None
    ) -> None:
        """Raises StartupError where the file cannot be read."""
        self._plain = [
            *(_entry(f"api-key-{n}", key, admin=False) for n, key in enumerate(plain, 1)),
            *(_entry(f"admin-key-{n}", key, admin=True) for n, key in enumerate(admin, 1)),
        ]
        self._file = file
        self._stamp: object = None
        self._looked = time.monotonic()
        self._filed: list[_Entry] = []
        if file is not None:
            self._stamp, self._filed = _stamp(file), _read(file)

    @property
    def wanted(self) -> bool:
        """Whether a request needs a key: once there is one that is not for administration, or a file."""
        return self._file is not None or any(not entry.caller.admin for entry in self._plain)

    @property
    def any_admin(self) -> bool:
        """Whether there is a key for administration."""
        return any(entry.caller.admin for entry in (*self._plain, *self._filed))

    def caller(self, authorization: bytes) -> Caller | None:
        """Who a header's value speaks for; None where it holds no key, or a wrong one.

        Raises Unauthorized for a key that has expired.
        """
        self._look_again()
        scheme, _, offered = authorization.partition(b" ")
        given = _digest(offered.strip() if scheme.lower() == b"bearer" else b"")
        entries = (*self._plain, *self._filed)
        found = [entry for entry in entries if hmac.compare_digest(given, entry.digest)]  # asks every one
        if not found:
            return None
        entry = found[0]
        if entry.expires is not None and entry.expires <= time.time():
            raise Unauthorized(f"the key {entry.caller.name!r} has expired; ask for a new one")
        return entry.caller

    def _look_again(self) -> None:
        """Read the file again where it has changed; one that cannot be read changes nothing."""
        if self._file is None or time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        try:
            stamp = _stamp(self._file)
            if stamp == self._stamp:
                return
            self._stamp = stamp
            self._filed = _read(self._file)
        except FathomError as error:
            log.error("%s; the keys from before stay", error.message)
        else:
            log.info("read %d keys from %s", len(self._filed), self._file)


def keys_of(settings: Settings) -> Keys:
    """The keys that the settings name. Raises StartupError."""
    return Keys(
        (key.get_secret_value() for key in settings.api_keys),
        (key.get_secret_value() for key in settings.admin_keys),
        Path(settings.keys_file) if settings.keys_file else None,
    )


def new_key(name: str, **more: Any) -> tuple[str, str]:
    """A new key and its line for the file. Raises StartupError where a field cannot be."""
    key = PREFIX + secrets.token_urlsafe(32)
    fields = {"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest(), **more}
    fields = {field: value for field, value in fields.items() if value is not None}
    line = _checked(fields, "this key")
    if line.expires is not None and _seconds(line.expires) <= time.time():
        raise StartupError(f"expires: {fields['expires']} has passed")
    return key, json.dumps(fields)


def _entry(name: str, key: str, admin: bool) -> _Entry:
    return _Entry(_digest(key.encode()), Caller(name, admin))


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _seconds(moment: datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _stamp(file: Path) -> object:
    """What differs when a file has changed."""
    try:
        seen = os.stat(file)
    except OSError as error:
        raise StartupError(f"keys_file: {file}: {error.strerror or error}") from None
    return seen.st_mtime_ns, seen.st_size, seen.st_ino


def _read(file: Path) -> list[_Entry]:
    """Raises StartupError that names file and line; never what stands there."""
    try:
        with file.open("rb") as lines:
            text = lines.read(LARGEST_FILE + 1).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise StartupError(f"keys_file: {file}: {reason}") from None
    if len(text) > LARGEST_FILE:
        raise StartupError(f"keys_file: {file} is over {LARGEST_FILE} bytes")
    entries: dict[str, _Entry] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        where = f"keys_file: {file}:{number}"
        try:
            fields = json.loads(line)
        except ValueError:
            raise StartupError(f"{where}: this is not JSON; `fathom key NAME` prints lines for it") from None
        key = _checked(fields, where)
        if key.name in entries:
            raise StartupError(f"{where}: there is a key {key.name!r} above; names are for one key each")
        allowance = Allowance.model_validate(key.model_dump(include=set(Allowance.model_fields)))
        expires = None if key.expires is None else _seconds(key.expires)
        entries[key.name] = _Entry(bytes.fromhex(key.sha256), Caller(key.name, key.admin, allowance), expires)
    return list(entries.values())


def _checked(fields: object, where: str) -> KeyLine:
    try:
        return KeyLine.model_validate(fields)
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        name = ".".join(str(part) for part in fault["loc"]) or "the line"
        raise StartupError(f"{where}: {name}: {fault['msg'].removeprefix('Value error, ')}") from None


bearer = HTTPBearer(auto_error=False, description="One of the server's keys.")


async def check_key(request: Request, _: Annotated[object, Depends(bearer)]) -> None:
    """Lets in who has a key, or anybody where none is wanted, and counts the request.

    Leaves the Caller in scope["state"]["caller"]. Raises Unauthorized, or Overloaded past the caller's
    requests per second.
    """
    keys: Keys = request.app.state.keys
    state = request.scope["state"]
    caller = _caller(request, keys)
    if caller is None and keys.wanted:
        raise Unauthorized("this server wants an API key: send Authorization: Bearer KEY")
    state["caller"] = caller or ANYBODY
    request.app.state.limits.count_request(state["caller"])


async def check_admin(request: Request, _: Annotated[object, Depends(bearer)]) -> None:
    """Lets in who has a key for administration. Raises Forbidden, or Unauthorized without a known key."""
    keys: Keys = request.app.state.keys
    caller = _caller(request, keys)
    if not keys.any_admin:
        raise Forbidden(
            "this is closed on a server without a key for administration: set FATHOM_ADMIN_KEYS, or add one "
            "to the keys_file that `fathom key NAME --admin` made"
        )
    if caller is None:
        raise Unauthorized("this wants a key for administration: send Authorization: Bearer KEY")
    if not caller.admin:
        raise Forbidden(f"the key {caller.name!r} is not for administration")
    request.scope["state"]["caller"] = caller


def _caller(request: Request, keys: Keys) -> Caller | None:
    # The bytes as they were sent: a key need not be ASCII.
    header = next((value for name, value in request.scope["headers"] if name == b"authorization"), b"")
    return keys.caller(header)
