"""A client of a running server, for the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx

PATIENCE = httpx.Timeout(10.0, read=None)  # connecting may fail; thinking may take as long as it takes


class RemoteError(Exception):
    """What the server said, or that there is none. exit_code 2: the caller's mistake; 1: anything else."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def connect(url: str, api_key: str | None) -> httpx.Client:
    """A connection to the server at url. Raises RemoteError where that is no address."""
    headers = {b"authorization": f"Bearer {api_key}".encode()} if api_key else {}  # UTF-8, not only ASCII
    try:
        return httpx.Client(base_url=url, headers=headers, timeout=PATIENCE)
    except httpx.InvalidURL as error:
        raise RemoteError(f"{url!r} is not a server's address: {error}", exit_code=2) from None


def request_body(model: str, problem: str, max_steps: int | None, stream: bool) -> dict[str, Any]:
    """The body of POST /v1/infer. Raises RemoteError where the problem is not JSON."""
    try:
        content = json.loads(problem)
    except ValueError as error:
        raise RemoteError(f"the problem is not JSON: {error}", exit_code=2) from None
    body: dict[str, Any] = {"model": model, "input": content, "stream": stream}
    return body if max_steps is None else {**body, "max_steps": max_steps}


def ask(server: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    """The whole answer. Raises RemoteError."""
    answer: dict[str, Any] = _checked(
        _send(server, server.build_request("POST", "/v1/infer", json=body))
    ).json()
    return answer


def stream(server: httpx.Client, body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(event, data) pairs as they come, `done` last. Raises RemoteError, also where the stream breaks off."""
    response = _send(server, server.build_request("POST", "/v1/infer", json=body), stream=True)
    try:
        if response.is_error:
            response.read()
        event = ""
        for line in _checked(response).iter_lines():
            name, _, value = line.partition(": ")
            if name == "event":
                event = value
            elif name == "data":
                data = json.loads(value)
                if event == "error":
                    raise RemoteError(_sentence(data))
                yield event, data
        if event != "done":
            raise RemoteError("the stream broke off before its end")
    except httpx.HTTPError as error:
        raise RemoteError(f"the stream broke off: {error}") from None
    finally:
        response.close()


def models(server: httpx.Client) -> list[dict[str, Any]]:
    """The models that the server lists. Raises RemoteError."""
    listed: list[dict[str, Any]] = _checked(_send(server, server.build_request("GET", "/v1/models"))).json()[
        "models"
    ]
    return listed


def _send(server: httpx.Client, request: httpx.Request, stream: bool = False) -> httpx.Response:
    try:
        return server.send(request, stream=stream)
    except httpx.HTTPError as error:
        where = server.base_url
        raise RemoteError(f"no server answers at {where} ({error}); start one with: fathom serve") from None


def _checked(response: httpx.Response) -> httpx.Response:
    if response.is_success:
        return response
    try:
        message = _sentence(response.json())
    except (ValueError, KeyError, TypeError):
        message = f"{response.url} answered {response.status_code}; is it a Fathom server?"
    raise RemoteError(message, exit_code=2 if response.is_client_error else 1)


def _sentence(body: dict[str, Any]) -> str:
    error = body["error"]
    return f"{error['field']}: {error['message']}" if error.get("field") else str(error["message"])
