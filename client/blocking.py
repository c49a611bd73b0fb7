"""The client for ordinary code: every call waits for its answer."""

from __future__ import annotations

import random
import time
from collections.abc import Generator, Iterator
from types import TracebackType
from typing import Any, Self, Unpack

import httpx

from client import calls
from client.answers import Answer, Model, Step, content_of, part_of
from client.calls import Call
from client.connection import SECONDS, URL, broken, not_frames, options, refused, unanswered
from client.errors import FathomError
from client.events import Events
from client.retries import Retries
from client.terms import Terms


class Stream(Iterator[Step]):
    """The steps of a request as they are taken; then `answer` is there.

    The request is sent when the first step is asked for. Closing a stream, or letting go of it, frees what
    it holds on the server. `id` is that of the request, for `Client.cancel`.
    """

    def __init__(self, id_: str, events: Generator[Step | Answer]) -> None:
        self.id = id_
        self.answer: Answer | None = None
        self._events = events

    def __next__(self) -> Step:
        """Raises ApiError where the server refuses or fails, BrokenStream where the stream has no end."""
        for event in self._events:
            if isinstance(event, Step):
                return event
            self.answer = event
        raise StopIteration

    def close(self) -> None:
        """End the request, wherever it is."""
        self._events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()


class Client:
    """A server, over connections that are kept open. Threads may share one.

    timeout: seconds without a word from the server, None for ever. retries: how often a request is sent
    again that no server has begun to work on. Raises Invalid for an address or a key that is none.
    """

    def __init__(
        self, url: str = URL, api_key: str | None = None, timeout: float | None = SECONDS, retries: int = 2
    ) -> None:
        self._http = httpx.Client(**options(url, api_key, timeout))
        self._retries = Retries(retries)

    def infer(self, model: str | None, problem: Any = None, **terms: Unpack[Terms]) -> Answer:
        """The answer to one problem, or to a list of them.

        Raises Invalid and TypeError before anything is sent where that is certain, and every FathomError.
        """
        return Answer.read(self._content(calls.infer(model, problem, terms)))

    def stream(self, model: str | None, problem: Any = None, **terms: Unpack[Terms]) -> Stream:
        """The same as an iterator of steps, with arrays for latents."""
        call = calls.stream(model, problem, terms)
        return Stream(call.headers["x-request-id"], self._events(call))

    def models(self) -> list[Model]:
        """Every version of every model."""
        return [Model.read(model) for model in part_of(self._content(calls.models()), "models")]

    def model(self, name: str) -> Model:
        """All that is known of `name` or `name@version`. Raises NotFound."""
        return Model.read(self._content(calls.model(name)))

    def cancel(self, id_: str) -> int:
        """End a running request with its best answers so far; how many of its problems that ended.

        Raises NotFound where no such request runs.
        """
        return part_of(self._content(calls.cancel(id_)), "cancelled")

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._http.base_url)!r})"

    def _content(self, call: Call) -> Any:
        """The JSON of a whole answer."""
        return content_of(self._read(self._response(call)))

    def _events(self, call: Call) -> Generator[Step | Answer]:
        response = self._response(call)
        events = Events()
        try:
            if fault := not_frames(response, self._http.base_url):
                raise fault
            for piece in response.iter_bytes():
                yield from events.feed(piece)
        except httpx.HTTPError as error:
            if events.answer is None:
                raise broken(error) from None
        finally:
            response.close()
        yield events.end()

    def _response(self, call: Call) -> httpx.Response:
        """An answer that has begun, and is no error."""
        request = self._http.build_request(call.method, call.path, content=call.body, headers=call.headers)
        failures = 0
        while True:
            try:
                return self._sent(request)
            except FathomError as error:
                failures += 1
                pause = self._retries.pause(failures, error, random.random())
                if pause is None:
                    raise
            time.sleep(pause)

    def _sent(self, request: httpx.Request) -> httpx.Response:
        """One try. Raises FathomError."""
        try:
            response = self._http.send(request, stream=True)
        except httpx.HTTPError as error:
            raise unanswered(error, self._http.base_url) from None
        if response.is_success:
            return response
        self._read(response)
        raise refused(response, self._http.base_url)

    def _read(self, response: httpx.Response) -> bytes:
        """The whole body. Raises ConnectionFailed where it does not come whole."""
        try:
            return response.read()
        except httpx.HTTPError as error:
            raise unanswered(error, self._http.base_url) from None
        finally:
            response.close()
