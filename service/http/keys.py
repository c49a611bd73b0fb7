"""API keys: named, hashed at rest, expiring, some of them for administration, with limits of their own.

They come from two settings of plain keys and from a file of hashes (keys_file.py).
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from model.errors import FathomError
from service.errors import Forbidden, Unauthorized
from service.http.keys_file import Allowance, read_keys, stamp_of
from service.settings import Settings

log = logging.getLogger("fathom")
LOOK_SECONDS = 1.0  # a key that is taken out of the file opens nothing after this long


USUAL = Allowance()


@dataclass(frozen=True)
class Caller:
    """Who sends a request: a key by its name, or everybody who needs none."""

    name: str = ""  # on whose account it thinks, and what logs show
    admin: bool = False
    allowance: Allowance = USUAL


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
            self._stamp, self._filed = stamp_of(file), _filed(file)

    @property
    def any(self) -> bool:
        """Whether a header can say anything about its sender."""
        return self._file is not None or bool(self._plain)

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
            stamp = stamp_of(self._file)
            if stamp == self._stamp:
                return
            self._stamp = stamp
            self._filed = _filed(self._file)
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


def _entry(name: str, key: str, admin: bool) -> _Entry:
    return _Entry(_digest(key.encode()), Caller(name, admin))


def _filed(file: Path) -> list[_Entry]:
    return [
        _Entry(line.digest, Caller(line.name, line.admin, line.allowance), line.expires_at)
        for line in read_keys(file)
    ]


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


bearer = HTTPBearer(auto_error=False, description="One of the server's keys.")


async def check_key(request: Request, _: Annotated[object, Depends(bearer)]) -> None:
    """A dependency of routes: as `enter`, with a place in the API's description."""
    enter(request)


def enter(request: Request) -> None:
    """Lets in who has a key, or anybody where none is wanted, and counts the request.

    Leaves the Caller in scope["state"]["caller"]. Raises Unauthorized, or Overloaded past the caller's
    requests per second.
    """
    keys: Keys = request.app.state.keys
    state = request.scope["state"]
    caller = _caller(request, keys) if keys.any else None
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


def first_of(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> bytes:
    """A header of an ASGI scope, as it was sent; empty where there is none."""
    for name, value in headers:
        if name == wanted:
            return value
    return b""


def _caller(request: Request, keys: Keys) -> Caller | None:
    # The bytes as they were sent: a key need not be ASCII.
    return keys.caller(first_of(request.scope["headers"], b"authorization"))
