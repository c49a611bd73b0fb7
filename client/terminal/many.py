"""Many problems: sent in lists, a few lists at once, answered in their order."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from client.aio import AsyncClient
from client.answers import Answer, Model, Result
from client.errors import Invalid, Overloaded, Unavailable
from client.terminal.lines import Asked, Line

MOST_PROBLEMS = 256  # of one request, unless the server takes fewer
AT_ONCE = 4  # requests under way
PAUSE = 1.0  # seconds, where it does not say
MOST_WAITS = 20  # of one request, for a server that has no room
TOO_LARGE = 413  # a status


class Sender:
    """Sends lists of problems to one model, some at once."""

    def __init__(self, client: AsyncClient, model: Model, terms: Mapping[str, Any]) -> None:
        self._client, self._terms = client, terms
        self._model = f"{model.name}@{model.version}"
        most = min(MOST_PROBLEMS, model.more.get("limits", {}).get("max_problems", MOST_PROBLEMS))
        thoughts = (terms.get("samples") or {}).get("count", 2 if terms.get("paired") else 1)
        self._size = max(1, most // thoughts)  # of a list: the server counts thoughts
        self._ended = asyncio.Event()  # of whichever request ends next

    async def answers(self, problems: Iterable[Asked]) -> AsyncIterator[list[Line]]:
        """A line for each problem, in their order, a list at a time.

        A problem that the server refuses has a line that says why; what it says against all is raised.
        """
        left = iter(problems)
        under_way: deque[asyncio.Task[list[Line]]] = deque()
        try:
            while chunk := list(islice(left, self._size)):
                under_way.append(asyncio.create_task(self._lines(chunk)))
                if len(under_way) == AT_ONCE:
                    yield await under_way.popleft()
            while under_way:
                yield await under_way.popleft()
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _lines(self, chunk: Sequence[Asked]) -> list[Line]:
        """One request; again without each problem that is refused, and in halves where it is too large."""
        lines: dict[int, Line] = {}
        left = list(range(len(chunk)))
        while left:
            try:
                answer = await self._answer([chunk[place].problem for place in left])
            except Invalid as error:
                if error.status == TOO_LARGE and len(left) > 1:
                    half = len(left) // 2
                    halves = [[chunk[place] for place in part] for part in (left[:half], left[half:])]
                    found = [line for part in halves for line in await self._lines(part)]
                    lines |= dict(zip(left, found, strict=True))
                    break
                place, field = _place(error.field, len(left))
                if place is None:
                    raise
                refused = {"model": self._model, "error": error.message, "field": field}
                lines[left[place]] = _scored(refused, chunk[left[place]].label, None)
                del left[place]
                continue
            for place, result in zip(left, answer.results, strict=True):
                line = {"model": self._model, **result.as_dict()}
                lines[place] = _scored(line, chunk[place].label, result)
            break
        return [lines[place] for place in range(len(chunk))]

    async def _answer(self, problems: Sequence[Any]) -> Answer:
        """Where the server is full, again when it says, or as soon as another request from here has ended."""
        waits = 0
        while True:
            try:
                answer = await self._client.infer(self._model, problems, **self._terms)
            except (Overloaded, Unavailable) as error:
                if waits == MOST_WAITS:
                    raise
                pause = PAUSE if error.retry_after is None else error.retry_after
            else:
                ended, self._ended = self._ended, asyncio.Event()
                ended.set()
                return answer
            try:
                async with asyncio.timeout(pause):
                    await self._ended.wait()
            except TimeoutError:
                waits += 1


def _place(field: str | None, count: int) -> tuple[int | None, str]:
    """Which problem of a list a field is in, and where in it: input.3.edges.1 -> 3, "edges.1"."""
    _, _, place = (field or "").partition("input.")
    number, _, rest = place.partition(".")
    return (int(number), rest) if number.isdecimal() and int(number) < count else (None, "")


def _scored(line: Line, label: Any, result: Result | None) -> Line:
    """With what was expected, and whether that is the answer or its label: 1 is not true."""
    if label is None:
        return line
    given = () if result is None else (result.answer, result.label)
    return {**line, "expected": label, "right": json.dumps(label) in map(json.dumps, given)}
