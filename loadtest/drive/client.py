"""One request, sent and timed.

Every connection is an httpx transport of its own, kept on a stack. A shared httpx pool walks all its
connections for every request: with 32 requests in flight that alone cost five milliseconds each where this
costs two, and a load tester must not measure itself.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx

from loadtest.drive.protocol import Answer, BadAnswer, Dialect, EventReader, error_code
from loadtest.drive.samples import Outcome, Sample

KEEPALIVE_S = (
    4.0  # under the five seconds after which uvicorn closes: a reused connection must not be a dying one
)
REFUSALS = (429, 503)


@dataclass(frozen=True, slots=True)
class Shot:
    """One request before it is sent. `due` is on the clock of `time.monotonic`, which all processes share."""

    number: int
    problem: int
    depth: int
    due: float
    measured: bool
    probe: bool = False


@dataclass(slots=True)
class _Reply:
    """What has come back so far."""

    status: int = 0
    error: str = ""
    answer: Answer = field(default_factory=Answer)
    first_step: float | None = None
    last_step: float = 0.0
    gaps_ms: tuple[float, ...] = ()


class Client:
    """Sends requests to one server, with at most `connections` of them in flight."""

    def __init__(
        self, url: str, headers: dict[str, str], dialect: Dialect, connections: int, timeout_s: float
    ) -> None:
        self._url = httpx.URL(url.rstrip("/") + dialect.path)
        self._headers = list(httpx.Headers(headers).raw)
        self._dialect = dialect
        self._timeout_s = timeout_s
        self._verify: ssl.SSLContext | bool = (
            httpx.create_ssl_context() if self._url.scheme == "https" else False
        )
        self._idle: list[httpx.AsyncHTTPTransport] = []
        self._free = asyncio.Semaphore(connections)

    def request(self, body: bytes) -> httpx.Request:
        """A request ready to send. Made ahead of time, so that making it is not part of the latency."""
        return httpx.Request("POST", self._url, headers=self._headers, content=body)

    async def send(
        self, shot: Shot, request: httpx.Request, start: float, label: bool | int | str | None
    ) -> Sample:
        """Sends `request` and waits for its whole answer; never raises but when cancelled.

        `start` is the cell's start. Latencies count from `shot.due`; the time-out counts from now.
        """
        begun = time.monotonic()
        wait_ms = 0.0
        reply = _Reply()
        outcome: Outcome = "failed"
        try:
            async with asyncio.timeout(self._timeout_s), self._connection() as connection:
                wait_ms = (time.monotonic() - begun) * 1e3
                outcome = await self._exchange(connection, request, reply)
        except TimeoutError:
            outcome, reply.error = "timed_out", f"no answer in {self._timeout_s:g} s"
        except BadAnswer as error:
            reply.error = str(error)
        except (httpx.HTTPError, httpx.StreamError, OSError) as error:
            reply.error = f"{type(error).__name__}: {error}".rstrip(": ")
        done = time.monotonic()
        answer = reply.answer
        return Sample(
            number=shot.number,
            asked=shot.depth,
            probe=shot.probe,
            measured=shot.measured,
            due_s=shot.due - start,
            late_ms=max(0.0, begun - shot.due) * 1e3,
            wait_ms=wait_ms,
            latency_ms=(done - shot.due) * 1e3,
            outcome=outcome,
            status=reply.status,
            error=reply.error,
            steps=answer.steps,
            halt_reason=answer.halt_reason,
            queue_ms=answer.queue_ms,
            compute_ms=answer.compute_ms,
            server_ms=answer.total_ms,
            first_step_ms=None if reply.first_step is None else (reply.first_step - shot.due) * 1e3,
            gaps_ms=reply.gaps_ms,
            correct=answer.correct(label) if outcome == "ok" else None,
        )

    async def close(self) -> None:
        """Closes every idle connection."""
        while self._idle:
            await self._idle.pop().aclose()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[httpx.AsyncHTTPTransport]:
        async with self._free:
            connection = self._idle.pop() if self._idle else self._open()
            try:
                yield connection
            except BaseException:
                await connection.aclose()  # given up half-way: what is left on it belongs to nobody
                raise
            self._idle.append(connection)

    def _open(self) -> httpx.AsyncHTTPTransport:
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=KEEPALIVE_S)
        return httpx.AsyncHTTPTransport(verify=self._verify, limits=limits, trust_env=False)

    async def _exchange(
        self, connection: httpx.AsyncHTTPTransport, request: httpx.Request, reply: _Reply
    ) -> Outcome:
        response = await connection.handle_async_request(request)
        reply.status = response.status_code
        try:
            assert isinstance(response.stream, httpx.AsyncByteStream), (
                "an async transport gives an async stream"
            )
            if response.status_code == 200 and self._dialect.streams:
                return await self._follow(response.stream, reply)
            body = b"".join([chunk async for chunk in response.stream])
        finally:
            await response.aclose()
        if response.status_code == 200:
            reply.answer = self._dialect.decode(body)
            return "ok"
        reply.error = error_code(body, response.status_code)
        return "refused" if response.status_code in REFUSALS else "failed"

    async def _follow(self, stream: httpx.AsyncByteStream, reply: _Reply) -> Outcome:
        """Reads a stream of steps to its end; one that ends without `done` has failed, whatever its status
        was.
        """
        reader = EventReader()
        gaps: list[float] = []
        outcome: Outcome = "failed"
        reply.error = "the stream ended before its done event"
        async for chunk in stream:
            now = time.monotonic()
            for event, data in reader.feed(chunk):
                if event == "step":
                    if reply.first_step is None:
                        reply.first_step = now
                    else:
                        gaps.append((now - reply.last_step) * 1e3)
                    reply.last_step = now
                elif event == "done":
                    reply.answer = self._dialect.decode(data)
                    outcome, reply.error = "ok", ""
                elif event == "error":
                    outcome, reply.error = "failed", error_code(data, 200)
        reply.gaps_ms = tuple(gaps)
        return outcome
