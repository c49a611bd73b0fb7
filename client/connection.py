"""How a server is reached, and what it means when that fails: the same for both clients."""

from __future__ import annotations

from typing import Any

import httpx

from client.errors import ApiError, BrokenStream, ConnectionFailed, FathomError, Invalid, refusal
from client.frames import FRAMES

URL = "http://127.0.0.1:8000"
SECONDS = 300.0  # without a word from the server
CONNECT_SECONDS = 10.0
CONNECTIONS = 100
IDLE_SECONDS = 4.0  # less than servers keep connections open, so that none is closed as it is used again
NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


def options(url: str, api_key: str | None, timeout: float | None) -> dict[str, Any]:
    """For httpx.Client and httpx.AsyncClient. Raises Invalid for what is no address and no key."""
    first = CONNECT_SECONDS if timeout is None else min(CONNECT_SECONDS, timeout)
    return {
        "base_url": _address(url),
        "headers": {b"authorization": _bearer(api_key)} if api_key else {},
        "timeout": httpx.Timeout(timeout, connect=first),
        "limits": httpx.Limits(
            max_connections=CONNECTIONS,
            max_keepalive_connections=CONNECTIONS,
            keepalive_expiry=IDLE_SECONDS,
        ),
    }


def unanswered(error: httpx.HTTPError, url: httpx.URL) -> ConnectionFailed:
    """What a failure of the connection means for a request that has no answer."""
    was_sent = not isinstance(error, NOT_SENT)
    match error:
        case httpx.ConnectTimeout() | httpx.ConnectError():
            message = f"no server answers at {url} ({error}); start one with: fathom serve"
        case httpx.PoolTimeout():
            message = f"all {CONNECTIONS} connections to {url} were busy for too long; ask for less at once"
        case httpx.TimeoutException():
            message = f"{url} has not answered in time; give a deadline_ms, or the client a longer timeout"
        case _:
            message = f"{url} broke off before it had answered ({error})"
    return ConnectionFailed(message, was_sent=was_sent)


def refused(response: httpx.Response, url: httpx.URL) -> ApiError:
    """What an answer other than 2xx means, once it has been read."""
    return refusal(response.status_code, response.headers, response.content, str(url))


def broken(error: httpx.HTTPError) -> BrokenStream:
    """What a failure of the connection means for a stream that has begun."""
    return BrokenStream(f"the stream broke off before its end ({str(error) or type(error).__name__})")


def not_frames(response: httpx.Response, url: httpx.URL) -> FathomError | None:
    """What is wrong with an answer that should be a stream."""
    kind = response.headers.get("content-type", "")
    return (
        None if kind == FRAMES else BrokenStream(f"{url} answered with {kind or 'nothing'}, not with frames")
    )


def _address(url: str) -> httpx.URL:
    try:
        address = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise Invalid(f"{url!r} is not a server's address: {error}", field="url") from None
    if address.userinfo:
        raise Invalid("an address has no user and password; give a key as api_key", field="url")
    if address.scheme not in ("http", "https") or not address.host or address.query or address.fragment:
        raise Invalid(f"{url!r} is not a server's address: that is http://HOST:PORT", field="url")
    return address


def _bearer(api_key: str) -> bytes:
    """The header's value, in UTF-8. What no header can hold is refused here, where it is not quoted."""
    if not isinstance(api_key, str) or api_key != api_key.strip() or any(map(_is_control, api_key)):
        raise Invalid("a key is a string without line breaks and without blanks around it", field="api_key")
    return b"Bearer " + api_key.encode("utf-8", "surrogateescape")


def _is_control(character: str) -> bool:
    return ord(character) < 32 or ord(character) == 127
