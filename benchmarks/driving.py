"""Clients that cost little: raw HTTP/1.1 over sockets of one thread, for closed and for open loops."""

from __future__ import annotations

import heapq
import json
import os
import re
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

START_SECONDS = 180
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
LAST_CHUNK = b"0\r\n\r\n"


def post(path: str, content: object, accept: str = "*/*") -> bytes:
    """A request with a JSON body, as it is sent."""
    body = json.dumps(content).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: {accept}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@dataclass(eq=False)
class Exchange:
    """One connection, and what has come back on it."""

    connection: socket.socket
    began: float = 0.0
    came: bytearray = field(default_factory=bytearray)

    def read(self) -> bool:
        """Take in what is there; True once the answer is whole. Raises RuntimeError where it is not a 200."""
        got = self.connection.recv(2**20)
        if not got:
            raise RuntimeError("the server closed a connection")
        self.came += got
        end = self.came.find(b"\r\n\r\n")
        if end < 0:
            return False
        if self.came[9:12] != b"200":
            raise RuntimeError(f"the server answered {bytes(self.came[:500])!r}")
        length = LENGTH.search(self.came, 0, end + 2)
        return (
            self.came.endswith(LAST_CHUNK) if length is None else len(self.came) >= end + 4 + int(length[1])
        )


def ask(port: int, request: bytes) -> Any:
    """The JSON that answers a request."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(request)
        with HTTPResponse(connection) as response:
            response.begin()
            return json.loads(response.read())


def first_event(port: int, request: bytes, events: int) -> float:
    """How long a stream's first event takes after its head, over what each of the others takes after it.

    The head says that the problem has been admitted. events: how many there are in all.
    """
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(request)
        came, times = bytearray(), dict[str, float]()
        while not came.endswith(LAST_CHUNK):
            came += connection.recv(2**20)
            now = time.perf_counter()
            times.setdefault("head", now)
            if not came.endswith(b"\r\n\r\n"):
                times.setdefault("first", now)
        return (times["first"] - times["head"]) / ((now - times["first"]) / (events - 1))


def drive(port: int, requests: Sequence[bytes], connections: int) -> float:
    """Seconds for all requests, each connection sending the next one as soon as it is answered."""
    left = iter(requests)
    began, answered = time.perf_counter(), 0
    with _pool(port, min(connections, len(requests))) as (selector, pool):
        for exchange in pool:
            exchange.connection.sendall(next(left))
        while answered < len(requests):
            for key, _ in selector.select():
                exchange = key.data
                if exchange.read():
                    answered += 1
                    exchange.came.clear()
                    if (request := next(left, None)) is not None:
                        exchange.connection.sendall(request)
    return time.perf_counter() - began


def offer(port: int, requests: Sequence[bytes], times: Sequence[float], connections: int) -> list[float]:
    """Send each request at its time, in seconds from now; latencies from those times, in ascending order.

    A request that finds no free connection opens one; where there are as many as may be, it waits, and its
    waiting counts.
    """
    latencies: list[float] = []
    due = [(at, place) for place, at in enumerate(times)]
    heapq.heapify(due)
    with _pool(port, 0) as (selector, pool):
        idle: list[Exchange] = []
        began = time.perf_counter()
        while len(latencies) < len(requests):
            now = time.perf_counter() - began
            while due and due[0][0] <= now and (idle or len(pool) < connections):
                at, place = heapq.heappop(due)
                exchange = idle.pop() if idle else _connected(port, selector, pool)
                exchange.began = at
                exchange.connection.sendall(requests[place])
            wait = max(0.0, due[0][0] - now) if due and (idle or len(pool) < connections) else None
            for key, _ in selector.select(wait):
                exchange = key.data
                if exchange in idle:  # the server has no patience with it
                    idle.remove(exchange)
                    pool.remove(exchange)
                    selector.unregister(exchange.connection)
                    exchange.connection.close()
                elif exchange.read():
                    latencies.append(time.perf_counter() - began - exchange.began)
                    exchange.came.clear()
                    idle.append(exchange)
    return sorted(latencies)


@contextmanager
def _pool(port: int, size: int) -> Iterator[tuple[selectors.BaseSelector, list[Exchange]]]:
    with selectors.DefaultSelector() as selector:
        pool: list[Exchange] = []
        try:
            for _ in range(size):
                _connected(port, selector, pool)
            yield selector, pool
        finally:
            for exchange in pool:
                exchange.connection.close()


def _connected(port: int, selector: selectors.BaseSelector, pool: list[Exchange]) -> Exchange:
    exchange = Exchange(socket.create_connection(("127.0.0.1", port)))
    exchange.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    selector.register(exchange.connection, selectors.EVENT_READ, exchange)
    pool.append(exchange)
    return exchange


@dataclass(frozen=True)
class Process:
    """A server of ours that runs."""

    pid: int
    port: int

    def cpu(self) -> float:
        """Processor time so far of all threads of all its processes, in seconds (Linux).

        Of those that run: what a process has used goes with its end.
        """
        used = 0.0
        for pid in self.all():
            with suppress(OSError):
                used += time.clock_gettime((~pid << 3) | 2)  # its clock, by its number
        return used

    def all(self) -> set[int]:
        """The processes of its session, and those that they have started in sessions of their own."""
        parents: dict[int, int] = {}
        found = {self.pid}
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                pid = int(folder.name)
                after_name = (folder / "stat").read_text().rpartition(")")[2].split()
                parents[pid] = int(after_name[1])
                if os.getsid(pid) == self.pid:
                    found.add(pid)
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        return found


@contextmanager
def running(command: Sequence[str], port: int, probe: bytes, folder: Path | None = None) -> Iterator[Process]:
    """A server that answers `probe` by now; ended when the block ends. Raises RuntimeError."""
    quiet = subprocess.DEVNULL
    server = subprocess.Popen(command, cwd=folder, stdout=quiet, stderr=quiet, start_new_session=True)
    try:
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                drive(port, [probe], 1)
                break
            except (OSError, RuntimeError):
                if server.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"the server did not start: {' '.join(command)}") from None
                time.sleep(0.2)
        yield Process(server.pid, port)
    finally:
        started = Process(server.pid, port).all() - {server.pid}
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait()
        for pid in started:  # in groups of their own, and not ended by their parent
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)


def free_port() -> int:
    """One that nobody listens on at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
