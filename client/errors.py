"""What can go wrong between a caller and a server.

FathomError
|-- ApiError            the server refused or failed: status, code, message, field, retry_after
|   |-- Invalid         the request must be changed; also what is found wrong before anything is sent
|   |-- Unauthorized    an API key is missing, unknown, or not allowed to do this
|   |-- NotFound        no such model, version or request
|   |-- Overloaded      the server is full, or this key has had its share: come back later
|   `-- Unavailable     not ready, draining, or its engine has failed
|-- ConnectionFailed    no server answers, or not within the timeout
`-- BrokenStream        a stream broke off before its end
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

CLIENT_ERRORS = range(400, 500)


class FathomError(Exception):
    """Base of everything that this client raises on purpose. None of them ever holds the API key."""


class ApiError(FathomError):
    """What the server said, in its own words.

    status is that of HTTP, or None where there was none: nothing was sent, or a stream had begun. field is
    the place in the request, in dotted form; retry_after is in seconds; request_id finds it in the logs.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str = "",
        field: str | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.message = message
        self.status = status
        self.code = code
        self.field = field
        self.retry_after = retry_after
        self.request_id = request_id


class Invalid(ApiError):
    """The request can never succeed as it is; field and message say what to change."""

    def __init__(self, message: str, *, code: str = "invalid", **known: Any) -> None:
        super().__init__(message, code=code, **known)


class Unauthorized(ApiError):
    """The API key is missing, unknown, expired, or not allowed to do this."""


class NotFound(ApiError):
    """No such model, version or request; nothing at this path."""


class Overloaded(ApiError):
    """The server is full, or this key has had its share; retry_after says when to come back."""


class Unavailable(ApiError):
    """Not ready, draining, or the engine has failed: another server, or another time."""


class ConnectionFailed(FathomError):
    """No server answers, or not within the timeout. was_sent: whether it may have begun to work on it."""

    def __init__(self, message: str, *, was_sent: bool) -> None:
        super().__init__(message)
        self.was_sent = was_sent


class BrokenStream(FathomError):
    """A stream ended before its last event, or is none: what came until then is sound, but not the whole."""


BY_STATUS: dict[int, type[ApiError]] = {
    400: Invalid,
    401: Unauthorized,
    403: Unauthorized,
    404: NotFound,
    413: Invalid,
    414: Invalid,
    415: Invalid,
    422: Invalid,
    429: Overloaded,
    431: Invalid,
    503: Unavailable,
}
BY_CODE: dict[str, type[ApiError]] = {  # of an error in mid-stream, which has no status
    "overloaded": Overloaded,
    "unavailable": Unavailable,
}


def refusal(status: int, headers: Mapping[str, str], body: bytes, url: str) -> ApiError:
    """The error that an answer other than 2xx is. Header names are compared without their case."""
    kind = BY_STATUS.get(status, ApiError)
    known: dict[str, Any] = {
        "status": status,
        "retry_after": seconds_until(headers.get("retry-after", ""), datetime.now(UTC)),
        "request_id": headers.get("x-request-id"),
    }
    try:
        return kind(**known, **_said(json.loads(body)))
    except (ValueError, TypeError, KeyError):
        return kind(f"{url} answered {status}; is it a Fathom server?", code="", **known)


def failure_in_stream(data: Mapping[str, Any]) -> FathomError:
    """The error that `event: error` tells of."""
    try:
        said = _said(data)
    except (TypeError, KeyError):
        return BrokenStream("the stream ended with an error that cannot be read")
    return BY_CODE.get(said["code"], ApiError)(**said)


def seconds_until(value: str, now: datetime) -> float | None:
    """What Retry-After says: seconds, or a date. None where it says nothing that can be read."""
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - now).total_seconds())
    except (ValueError, TypeError):  # no date; a date without a zone
        return None


def _said(body: Any) -> dict[str, Any]:
    """The parts of the one error shape. Raises KeyError or TypeError where it is another."""
    error = body["error"]
    return {"message": str(error["message"]), "code": str(error["code"]), "field": error["field"]}
