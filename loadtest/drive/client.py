"""Requests sent and timed over connections that are kept, without a task or a future for each."""

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from loadtest.drive.cases import Case, Label
from loadtest.drive.connection import Connection, Exchange
from loadtest.drive.dialects import BadResponse, Dialect, Response, error_code
from loadtest.drive.samples import Outcome, Sample

KEEPALIVE_S = 4.0  # under the five seconds after which uvicorn closes: what is used again must not be dying
REFUSALS = (429, 503)
PREPARED = 20_000  # requests kept ready; a run has a few hundred problems at a few depths


@dataclass(frozen=True, slots=True)
class Shot:
    """One request before it is sent. `due` is on the clock of `time.monotonic`, which all processes share.

    Its client goes away `cancel_s` after that, unless None.
    """

    number: int
    problem: int
    depth: int
    due: float
    measured: bool
    probe: bool = False
    cancel_s: float | None = None


class Client:
    """Sends requests to one server, with at most `limit` of them in flight. Belongs to one event loop."""

    def __init__(
        self,
        url: str,
        headers: dict[str, str],
        dialect: Dialect,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        parts = urlsplit(url.rstrip("/") + dialect.path)
        tls = parts.scheme == "https"
        assert parts.hostname, "the plan has checked the address"
        self._host, self._port = parts.hostname, parts.port or (443 if tls else 80)
        self._ssl = ssl.create_default_context() if tls else None
        lines = {"Host": parts.netloc.rpartition("@")[2], **headers}
        self._head = f"POST {parts.path} HTTP/1.1\r\n" + "".join(
            f"{name}: {value}\r\n" for name, value in lines.items()
        )
        self._dialect, self._timeout_s, self._clock = dialect, timeout_s, clock
        self._prepared: dict[tuple[int, int], bytes] = {}
        self._idle: list[Connection] = []
        self._waiting: deque[Exchange] = deque()
        self._flying: set[int] = set()
        self._exchanges: dict[int, Exchange] = {}
        self._connecting: set[asyncio.Task[None]] = set()
        self.limit = 1

    def prepare(self, problem: int, case: Case, depth: int) -> bytes:
        """The bytes of a request. Kept, and made ahead, so that making it is not part of the latency."""
        key = (problem, depth)
        ready = self._prepared.get(key)
        if ready is None:
            body = self._dialect.encode(case, depth)
            ready = f"{self._head}Content-Length: {len(body)}\r\n\r\n".encode("latin-1") + body
            if len(self._prepared) < PREPARED:
                self._prepared[key] = ready
        return ready

    def send(
        self, shot: Shot, request: bytes, start: float, label: Label | None, tell: Callable[[Sample], None]
    ) -> None:
        """Sends `request` now, or as soon as one of those in flight has ended; `tell` hears how it went.

        `start` is the cell's start. Latencies count from `shot.due`; the time-out counts from now.
        """
        loop = asyncio.get_running_loop()
        exchange = Exchange(
            shot, request, start, label, self._clock(), self._answered, tell, self._dialect.streams
        )
        self._exchanges[id(exchange)] = exchange
        exchange.timers.append(loop.call_later(self._timeout_s, self._time_out, exchange))
        if shot.cancel_s is not None:
            moment = max(0.0, shot.due + shot.cancel_s - exchange.begun)
            exchange.timers.append(loop.call_later(moment, self._cancel, exchange))
        if len(self._flying) < self.limit:
            self._fly(exchange)
        else:
            self._waiting.append(exchange)

    @property
    def open(self) -> int:
        """Requests that have not ended, in flight or waiting."""
        return len(self._exchanges)

    def abandon(self) -> int:
        """Gives up all that has not ended, without a word of it; returns how many those were."""
        left = list(self._exchanges.values())
        self._waiting.clear()
        for exchange in left:
            self._let_go(exchange)
            if exchange.connection is not None:
                exchange.connection.close()
        return len(left)

    def close(self) -> None:
        """Closes every connection."""
        self.abandon()
        for connection in self._idle:
            connection.close()
        for task in self._connecting:
            task.cancel()

    # --- on the way ---

    def _fly(self, exchange: Exchange) -> None:
        self._flying.add(id(exchange))
        fresh = self._clock() - KEEPALIVE_S
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and connection.idle_since > fresh:
                connection.start(exchange)
                return
            connection.close()
        task = asyncio.get_running_loop().create_task(self._connect(exchange))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, exchange: Exchange) -> None:
        loop = asyncio.get_running_loop()
        sent = self._clock()
        try:
            _, connection = await loop.create_connection(
                lambda: Connection(self._clock), self._host, self._port, ssl=self._ssl
            )
        except OSError as error:
            if not exchange.over:
                exchange.now, exchange.error = self._clock(), f"{type(error).__name__}: {error}"
                self._answered(exchange)
            return
        if exchange.over:  # given up meanwhile
            connection.close()
            return
        connection.start(exchange)
        exchange.sent = sent  # connecting is part of what the server takes, not of waiting for a turn

    def _time_out(self, exchange: Exchange) -> None:
        exchange.now = self._clock()
        self._end(exchange, "timed_out", f"no answer in {self._timeout_s:g} s", Response())

    def _cancel(self, exchange: Exchange) -> None:
        exchange.now = self._clock()
        self._end(exchange, "cancelled", "", Response())

    def _answered(self, exchange: Exchange) -> None:
        """Everything has come that will."""
        if exchange.over:
            return
        outcome: Outcome = "failed"
        error, response = exchange.error, Response()
        body = b"".join(exchange.body)
        if not error and exchange.status == 200:
            try:
                outcome, response = "ok", self._dialect.decode(body)
            except BadResponse as bad:
                outcome, error = "failed", str(bad)
        elif not error:
            error = error_code(body, exchange.status)
            outcome = "refused" if exchange.status in REFUSALS else "failed"
        self._end(exchange, outcome, error, response)

    def _let_go(self, exchange: Exchange) -> None:
        """The exchange is over, whatever becomes of it."""
        exchange.over = True
        for timer in exchange.timers:
            timer.cancel()
        del self._exchanges[id(exchange)]
        self._flying.discard(id(exchange))

    def _end(self, exchange: Exchange, outcome: Outcome, error: str, response: Response) -> None:
        self._let_go(exchange)
        connection = exchange.connection
        if connection is not None and outcome in ("timed_out", "cancelled"):
            connection.close()  # what may still come on it belongs to nobody
        elif connection is not None and connection.usable:
            self._idle.append(connection)
        while self._waiting and len(self._flying) < self.limit:
            following = self._waiting.popleft()
            if not following.over:
                self._fly(following)
        shot = exchange.shot
        sent = exchange.now if exchange.sent is None else exchange.sent
        exchange.tell(
            Sample(
                number=shot.number,
                problem=shot.problem,
                asked=shot.depth,
                probe=shot.probe,
                measured=shot.measured,
                due_s=shot.due - exchange.start,
                late_ms=max(0.0, exchange.begun - shot.due) * 1e3,
                wait_ms=(sent - exchange.begun) * 1e3,
                latency_ms=(exchange.now - shot.due) * 1e3,
                outcome=outcome,
                status=exchange.status,
                error=error,
                steps=response.steps,
                halt_reason=response.halt_reason,
                queue_ms=response.queue_ms,
                compute_ms=response.compute_ms,
                server_ms=response.total_ms,
                first_step_ms=None if exchange.first_step is None else (exchange.first_step - shot.due) * 1e3,
                gaps_ms=tuple(exchange.gaps_ms),
                correct=response.correct(exchange.label) if outcome == "ok" else None,
            )
        )
