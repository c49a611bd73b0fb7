"""The client for asyncio: the same calls, to be awaited."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator
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


class AsyncStream(AsyncIterator[Step]):
    """The steps of a request as they are taken; then `answer` is there. See client.blocking.Stream.

    Leave it early with `async with` or `aclose`; one that is merely let go of ends when the loop finds it.
    """

    def __init__(self, id_: str, events: AsyncGenerator[Step | Answer]) -> None:
        self.id = id_
        self.answer: Answer | None = None
        self._events = events

    async def __anext__(self) -> Step:
        """Raises ApiError where the server refuses or fails, BrokenStream where the stream has no end."""
        async for event in self._events:
            if isinstance(event, Step):
                return event
            self.answer = event
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End the request, wherever it is."""
        await self._events.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self.aclose()


class AsyncClient:
    """A server, over connections that are kept open. See client.blocking.Client, whose arguments it has."""

    def __init__(
        self, url: str = URL, api_key: str | None = None, timeout: float | None = SECONDS, retries: int = 2
    ) -> None:
        self._http = httpx.AsyncClient(**options(url, api_key, timeout))
        self._retries = Retries(retries)

    async def infer(self, model: str | None, problem: Any = None, **terms: Unpack[Terms]) -> Answer:
        """The answer to one problem, or to a list of them. Cancelling the task frees what it holds."""
        return Answer.read(await self._content(calls.infer(model, problem, terms)))

    def stream(self, model: str | None, problem: Any = None, **terms: Unpack[Terms]) -> AsyncStream:
        """The same as an asynchronous iterator of steps, with arrays for latents."""
        call = calls.stream(model, problem, terms)
        return AsyncStream(call.headers["x-request-id"], self._events(call))

    async def models(self) -> list[Model]:
        """Every version of every model."""
        return [Model.read(model) for model in part_of(await self._content(calls.models()), "models")]

    async def model(self, name: str) -> Model:
        """All that is known of `name` or `name@version`. Raises NotFound."""
        return Model.read(await self._content(calls.model(name)))

    async def cancel(self, id_: str) -> int:
        """End a running request with its best answers so far; how many of its problems that ended.

        Raises NotFound where no such request runs.
        """
        return part_of(await self._content(calls.cancel(id_)), "cancelled")

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._http.base_url)!r})"

    async def _content(self, call: Call) -> Any:
        """The JSON of a whole answer."""
        return content_of(await self._read(await self._response(call)))

    async def _events(self, call: Call) -> AsyncGenerator[Step | Answer]:
        response = await self._response(call)
        events = Events()
        try:
            if fault := not_frames(response, self._http.base_url):
                raise fault
            async for piece in response.aiter_bytes():
                for step in events.feed(piece):
                    yield step
        except httpx.HTTPError as error:
            if events.answer is None:
                raise broken(error) from None
        finally:
            await response.aclose()
        yield events.end()

    async def _response(self, call: Call) -> httpx.Response:
        """An answer that has begun, and is no error."""
        request = self._http.build_request(call.method, call.path, content=call.body, headers=call.headers)
        failures = 0
        while True:
            try:
                return await self._sent(request)
            except FathomError as error:
                failures += 1
                pause = self._retries.pause(failures, error, random.random())
                if pause is None:
                    raise
            await asyncio.sleep(pause)

    async def _sent(self, request: httpx.Request) -> httpx.Response:
        """One try. Raises FathomError."""
        try:
            response = await self._http.send(request, stream=True)
        except httpx.HTTPError as error:
            raise unanswered(error, self._http.base_url) from None
        if response.is_success:
            return response
        await self._read(response)
        raise refused(response, self._http.base_url)

    async def _read(self, response: httpx.Response) -> bytes:
        """The whole body. Raises ConnectionFailed where it does not come whole."""
        try:
            return await response.aread()
        except httpx.HTTPError as error:
            raise unanswered(error, self._http.base_url) from None
        finally:
            await response.aclose()
