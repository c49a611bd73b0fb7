"""Clients of every kind at once, and an account of what became of every request that they made."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from tests.service.servers import Body
from tests.service.wire import Answer, next_answer, post

PATIENCE = 60  # seconds until an answer that is owed counts as lost
Good = Callable[[random.Random], tuple[Body, Callable[[Body], bool]]]
"""Draws a request, and whether an answer to it is right."""


class Client:
    """One connection, and the account of what was asked and answered on it: one answer each, in order."""

    def __init__(self, name: str, connection: socket.socket, good: Good) -> None:
        self.name = name
        self.draw = random.Random(name)
        self.socket = connection
        self.asked = 0
        self.answered = Counter[int]()
        self._file = connection.makefile("rb")
        self._good = good
        self._owed: list[str] = []

    def good(self) -> tuple[Body, Callable[[Body], bool]]:
        return self._good(self.draw)

    def request(self, body: object, path: str = "/v1/infer", more: str = "") -> bytes:
        """A request with an id of its own, to which an answer will be owed."""
        self.asked += 1
        self._owed.append(f"{self.name}-{self.asked}")
        return post(body, path, f"x-request-id: {self._owed[-1]}\r\n{more}")

    @property
    def newest(self) -> str:
        """The id of the last request."""
        return self._owed[-1]

    def answer(self) -> Answer:
        """The answer to the oldest request that has none."""
        answer = next_answer(self._file)
        expected = self._owed.pop(0)
        assert answer.headers["x-request-id"] == expected, f"{answer} for {expected}"
        self.answered[answer.status] += 1
        return answer

    def ask(self, body: object, path: str = "/v1/infer", more: str = "") -> Answer:
        self.socket.sendall(self.request(body, path, more))
        return self.answer()

    def events(self) -> list[tuple[str, Body]]:
        """The events of a stream that was asked for on a connection of its own: up to the end of it."""
        head, _, content = self._file.read().partition(b"\r\n\r\n")
        assert f"x-request-id: {self._owed.pop(0)}".encode() in head.lower(), head
        self.answered[int(head.split()[1])] += 1
        lines = [line for line in content.splitlines() if line.startswith((b"event: ", b"data: "))]
        names = [line.removeprefix(b"event: ").decode() for line in lines[::2]]
        return list(
            zip(names, (json.loads(line.removeprefix(b"data: ")) for line in lines[1::2]), strict=True)
        )

    def leave(self) -> None:
        """Nothing is owed any more, and nothing comes that nobody asked for."""
        assert not self._owed
        self.socket.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            assert self._file.read() == b"", "an answer too many"


@dataclass
class Report:
    """What happened: how often each kind of client came, how it was answered, and what went wrong."""

    came: Counter[str] = field(default_factory=Counter)
    asked: int = 0  # requests of those who waited for their answers
    answered: Counter[int] = field(default_factory=Counter)  # by status
    wrong: list[str] = field(default_factory=list)


Kind = Callable[[Client], None]


def chaos(
    address: tuple[str, int],
    good: Good,
    kinds: Sequence[Kind],
    seconds: float,
    clients: int = 12,
    seed: int = 0,
) -> Report:
    """Let clients come and go for so long, so many at a time.

    good: requests that the server can answer. kinds: what clients do, each as often as it is there.
    """
    report, until, lock = Report(), time.monotonic() + seconds, threading.Lock()

    def come_and_go(place: int) -> None:
        turn = 0
        while time.monotonic() < until:
            name = f"{seed}.{place}.{turn}"
            turn += 1
            fault = ""
            try:
                with socket.create_connection(address, timeout=PATIENCE) as connection:
                    client = Client(name, connection, good)
                    kind = client.draw.choice(kinds)
                    try:
                        kind(client)
                    except AssertionError as error:
                        fault = f"{kind.__name__}: {error}"
                    except (OSError, ValueError, IndexError, KeyError) as error:
                        fault = f"{kind.__name__}: {error!r}"
            except OSError as error:
                report.wrong.append(f"nobody was let in: {error!r}")
                continue
            with lock:
                report.came[kind.__name__] += 1
                report.asked += client.asked
                report.answered += client.answered
                report.wrong += [fault] if fault else []

    threads = [threading.Thread(target=come_and_go, args=(place,)) for place in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return report
