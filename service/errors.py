"""The service's branches of the error tree, and the one table that maps the tree to HTTP.

FathomError
|-- RequestError            422 invalid              (model/errors.py)
|-- BadRequest              400 bad_request          this is not HTTP/1
|-- InvalidJson             400 invalid_json         the body is not JSON
|-- Unauthorized            401 unauthorized         no API key, or an unknown one
|-- Forbidden               403 forbidden            the key is not for administration, or there is none
|-- UnknownModel            404 unknown_model        no such model or version
|-- NotLoaded               409 not_loaded           a bundle on disk cannot be served; the message says why
|-- UnknownRequest          404 unknown_request      no such request runs, or was kept
|-- TooSlow                 408 too_slow             the head or the body did not arrive in time
|-- TooLarge                413 too_large            the body is over the limit
|-- TargetTooLong           414 target_too_long      path and query are over the limit
|-- UnknownEncoding         415 unknown_encoding     the body is compressed in a way that is not read
|-- Overloaded              429 overloaded           the server is full; carries Retry-After
|-- HeadTooLarge            431 head_too_large       the headers are over a limit
|-- ModelFailed             500 model_failed         the model broke down on this request
|-- Unavailable             503 unavailable          not ready, draining, or the engine has failed
|-- BundleError             at start, exit code 2    (model/errors.py)
`-- StartupError            at start, exit code 2    a setting, device or backend cannot be had
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from model.errors import FathomError, RequestError

LONGEST_MESSAGE = 500  # characters; a message may quote the caller, who may have sent a megabyte
LONGEST_FIELD = 200


class BadRequest(FathomError):
    """What came over the connection is not an HTTP/1 request."""


class InvalidJson(FathomError):
    """The body cannot be parsed as JSON."""


class Unauthorized(FathomError):
    """The server asks for an API key and did not get a right one."""


class Forbidden(FathomError):
    """The caller may not do this, or nobody may as the server is set up."""


class UnknownModel(FathomError):
    """No model of this name, or no such version of it, is served."""


class NotLoaded(FathomError):
    """A model cannot be loaded as it lies on disk; what was served before is still served."""


class UnknownRequest(FathomError):
    """No request of this id runs or is kept, or it is another key's."""


class TooSlow(FathomError):
    """The request did not arrive in time."""


class TooLarge(FathomError):
    """The request's body is larger than this server reads."""


class TargetTooLong(FathomError):
    """The request's path and query are longer than this server reads."""


class UnknownEncoding(FathomError):
    """The body has a Content-Encoding that this server does not read."""


class HeadTooLarge(FathomError):
    """The request's headers are larger, or more, than this server reads."""


class Overloaded(FathomError):
    """The server is full. retry_after says in how many seconds it is worth trying again."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ModelFailed(FathomError):
    """The model failed on a sound request; others are not affected."""


class Unavailable(FathomError):
    """Not ready, draining, or the engine has failed: another server, or another time."""


class StartupError(FathomError):
    """The service cannot start as it is configured."""


@dataclass(frozen=True)
class Reply:
    """How an error appears on the wire: its HTTP status and its `code`."""

    status: int
    code: str


REPLIES: dict[type[FathomError], Reply] = {
    BadRequest: Reply(400, "bad_request"),
    InvalidJson: Reply(400, "invalid_json"),
    Unauthorized: Reply(401, "unauthorized"),
    Forbidden: Reply(403, "forbidden"),
    UnknownModel: Reply(404, "unknown_model"),
    NotLoaded: Reply(409, "not_loaded"),
    UnknownRequest: Reply(404, "unknown_request"),
    TooSlow: Reply(408, "too_slow"),
    TooLarge: Reply(413, "too_large"),
    TargetTooLong: Reply(414, "target_too_long"),
    UnknownEncoding: Reply(415, "unknown_encoding"),
    RequestError: Reply(422, "invalid"),
    Overloaded: Reply(429, "overloaded"),
    HeadTooLarge: Reply(431, "head_too_large"),
    ModelFailed: Reply(500, "model_failed"),
    FathomError: Reply(500, "internal"),
    Unavailable: Reply(503, "unavailable"),
}


def reply_to(error: FathomError) -> Reply:
    """The table's row for an error, or for its nearest ancestor in the tree."""
    return next(REPLIES[kind] for kind in type(error).__mro__ if kind in REPLIES)


def error_body(code: str, message: str, field: str | None = None) -> dict[str, Any]:
    """The one shape of every error: {"error": {"code", "message", "field"}}."""
    field = field if field is None else _clipped(field, LONGEST_FIELD)
    return {"error": {"code": code, "message": _clipped(message, LONGEST_MESSAGE), "field": field}}


def body_of(error: FathomError) -> dict[str, Any]:
    """The error shape of an error of the tree."""
    return error_body(reply_to(error).code, error.message, error.field)


def headers_of(error: FathomError) -> dict[str, str]:
    """The headers that go with an error of the tree."""
    match error:
        case Overloaded():
            return {"retry-after": str(max(1, math.ceil(error.retry_after)))}
        case Unauthorized():
            return {"www-authenticate": "Bearer"}
        case UnknownEncoding():
            return {"accept-encoding": "gzip"}
        case TooSlow() | TooLarge():  # nobody waits for what is still to come of this request
            return {"connection": "close"}
    return {}


def _clipped(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
