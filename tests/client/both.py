"""One way to test both clients: the asynchronous one, run step by step until each call has its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Self

from client import Answer, AsyncClient, AsyncStream, Client, Model, Step, Stream


class Awaited:
    """An AsyncClient with the calls of a Client."""

    def __init__(self, *words: Any, **named: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncClient(*words, **named)

    def infer(self, model: str | None, problem: Any = None, **terms: Any) -> Answer:
        return self._runner.run(self._client.infer(model, problem, **terms))

    def stream(self, model: str | None, problem: Any = None, **terms: Any) -> AwaitedStream:
        return AwaitedStream(self._runner, self._client.stream(model, problem, **terms))

    def models(self) -> list[Model]:
        return self._runner.run(self._client.models())

    def model(self, name: str) -> Model:
        return self._runner.run(self._client.model(name))

    def cancel(self, id_: str) -> int:
        return self._runner.run(self._client.cancel(id_))

    def __repr__(self) -> str:
        return repr(self._client)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()


class AwaitedStream(Iterator[Step]):
    """An AsyncStream with the calls of a Stream."""

    def __init__(self, runner: asyncio.Runner, stream: AsyncStream) -> None:
        self._runner = runner
        self._stream = stream
        self.id = stream.id

    @property
    def answer(self) -> Answer | None:
        return self._stream.answer

    def __next__(self) -> Step:
        try:
            return self._runner.run(self._next())
        except StopAsyncIteration:
            raise StopIteration from None

    async def _next(self) -> Step:
        return await anext(self._stream)

    def close(self) -> None:
        self._runner.run(self._stream.aclose())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


BOTH = [Client, Awaited]
AnyClient = Client | Awaited
AnyStream = Stream | AwaitedStream
