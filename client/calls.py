"""What is sent: a method, a path, headers and a body, worked out and checked before there is a connection."""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import numpy as np

from client.errors import Invalid
from client.frames import FRAMES
from client.tensors import as_json, sendable
from client.terms import checked


@dataclass(frozen=True)
class Call:
    """One request; sending it again asks for the same."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


def infer(model: str | None, problem: Any, terms: Mapping[str, Any]) -> Call:
    """POST /v1/infer, answered whole.

    Raises Invalid where no server would take it, TypeError where a term is none.
    """
    return _infer(model, problem, checked(terms), "application/json")


def stream(model: str | None, problem: Any, terms: Mapping[str, Any]) -> Call:
    """POST /v1/infer, answered in frames; it has an id from the beginning, so that it can be cancelled.

    Raises as infer does.
    """
    terms = {"request_id": f"req_{secrets.token_hex(12)}", **checked(terms)}
    return _infer(model, problem, {**terms, "stream": True}, FRAMES)


def models() -> Call:
    """GET /v1/models."""
    return Call("GET", "/v1/models")


def model(name: str) -> Call:
    """GET /v1/models/{name}."""
    return Call("GET", f"/v1/models/{quote(name, safe='@')}")


def cancel(id_: str) -> Call:
    """DELETE /v1/requests/{id}."""
    return Call("DELETE", f"/v1/requests/{quote(_sane(id_), safe='')}")


def _infer(model: str | None, problem: Any, terms: dict[str, Any], accept: str) -> Call:
    if model is not None and not isinstance(model, str):
        raise Invalid("model must be a string, or None where one model is served", field="model")
    if (problem is None) == ("continue_from" not in terms):
        raise Invalid("give either a problem, or continue_from without one", field="input")
    headers = {"accept": accept, "content-type": "application/json"}
    if "request_id" in terms:
        headers["x-request-id"] = _sane(terms.pop("request_id"))
    named = {} if model is None else {"model": model}
    asked = {} if problem is None else {"input": sendable(problem)}
    return Call("POST", "/v1/infer", headers, _json({**named, **asked, **terms}))


def _sane(id_: str) -> str:
    if not 0 < len(id_) <= 128 or not id_.isascii() or not id_.isprintable() or id_ != id_.strip():
        raise Invalid("an id has 1 to 128 printable ASCII characters", field="request_id")
    return id_


def _json(body: Mapping[str, Any]) -> bytes:
    """Raises Invalid with the place of the first value that JSON has not."""
    try:
        return json.dumps(body, allow_nan=False, separators=(",", ":"), default=as_json).encode()
    except (ValueError, TypeError, RecursionError) as error:
        try:
            fault = _explained(body, "") or Invalid(f"the request cannot be JSON: {error}")
        except RecursionError:
            fault = Invalid("is nested too deeply, or contains itself", field="input")
        raise fault from None


def _explained(value: Any, place: str) -> Invalid | None:
    """The first fault in a value, depth first."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    match value:
        case None | str() | bool() | int() | np.integer() | np.bool_():
            return None
        case float() | np.floating():
            return None if math.isfinite(value) else Invalid(f"{value} is no number in JSON", field=place)
        case Mapping():
            inner = list(value.items())
        case list() | tuple():
            inner = list(enumerate(value))
        case _:
            return Invalid(f"{type(value).__name__} is nothing that JSON has", field=place)
    for name, item in inner:
        if fault := _explained(item, f"{place}.{name}".strip(".")):
            return fault
    return None
