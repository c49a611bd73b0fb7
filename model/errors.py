"""The error tree that the whole project raises from.

    FathomError                 something a caller, an operator or a bundle did wrong
    |-- RequestError            a request that can never succeed; names the offending field
    `-- BundleError             a bundle that must not be served; names the file

The service adds its own branches (service/errors.py) and maps the whole tree to HTTP in one table.
Our own bugs are assertions, not errors of this tree.
"""

from __future__ import annotations


class FathomError(Exception):
    """Base of everything this project raises on purpose.

    message says what is wrong and what to do; field names the place in the request, in dotted form
    ("input.edges.3"), or is None where the error is not about one field.
    """

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class RequestError(FathomError):
    """The request is malformed or asks for something out of range."""


class BundleError(FathomError):
    """A bundle is corrupt, tampered with, of an unknown format or incomplete."""


def first_line(error: Exception) -> str:
    """What a library's exception says, without the pages that some append."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
