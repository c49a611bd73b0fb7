"""How much each caller may ask for: requests and steps per second, streams, sizes, and a place in the queue.

Rates are token buckets. A request costs a token before anything of it is read. Steps are charged when they
have been taken, so nobody pays for what he only might have needed; a caller whose bucket is in debt waits
until it is paid back, which is what Retry-After says.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from service.engine.messages import Finished, Submission
from service.engine.served_model import ServedModel
from service.engine.ticket import Ticket
from service.errors import Overloaded
from service.http.keys import USUAL, Caller
from service.http.keys_file import Allowance
from service.settings import Settings

BURST_SECONDS = 2.0  # of its rate that a bucket holds


class Bucket:
    """Tokens that come back at a rate, up to what the bucket holds; it may owe some."""

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self.size = max(1.0, BURST_SECONDS * rate)
        self._level, self._at = self.size, now

    def level(self, now: float) -> float:
        self._level = min(self.size, self._level + (now - self._at) * self.rate)
        self._at = now
        return self._level

    def take(self, tokens: float, now: float) -> None:
        self._level = self.level(now) - tokens

    def seconds_until(self, tokens: float, now: float) -> float:
        """How long until it holds so many."""
        return max(0.0, tokens - self.level(now)) / self.rate


@dataclass
class Account:
    """What a caller has used."""

    requests: Bucket | None
    steps: Bucket | None
    streams: int = 0


@dataclass(frozen=True)
class Bounds:
    """What holds for one caller: its own limits, or else those of the settings. 0: no limit."""

    steps_per_second: float
    requests_per_second: float
    max_streams: int
    max_problems: int
    max_body_bytes: int
    queue_seconds: float


class Limits:
    """Every caller's bounds and accounts; used on the event loop only."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._accounts: dict[str, Account] = {}
        self._usual = self._bounds(USUAL)

    def of(self, caller: Caller) -> Bounds:
        """What a caller may ask for."""
        own = caller.allowance
        return self._usual if own is USUAL else self._bounds(own)

    def _bounds(self, own: Allowance) -> Bounds:
        return Bounds(
            **{
                name: getattr(self._settings, name) if getattr(own, name) is None else getattr(own, name)
                for name in Bounds.__dataclass_fields__
            }
        )

    def count_request(self, caller: Caller) -> None:
        """Raises Overloaded past a caller's requests per second."""
        bucket = self._account(caller).requests
        if bucket is None:
            return
        now = self._clock()
        if bucket.level(now) < 1:
            raise Overloaded(
                f"{_whose(caller)} may send {bucket.rate:g} requests a second; try again later",
                retry_after=bucket.seconds_until(1, now),
            )
        bucket.take(1, now)

    def check_steps(self, caller: Caller, served: ServedModel | None = None) -> None:
        """Raises Overloaded while a caller owes steps: those charged, and those under way on a model."""
        bucket = self._account(caller).steps
        if bucket is None:
            return
        now, taken = self._clock(), 0 if served is None else served.steps_under_way(caller.name)
        if bucket.level(now) < taken:
            raise Overloaded(
                f"{_whose(caller)} may take {bucket.rate:g} steps a second, and more were taken; ask for "
                "fewer steps, or try again later",
                retry_after=bucket.seconds_until(taken, now),
            )

    def admit(
        self,
        caller: Caller,
        served: ServedModel,
        submission: Submission,
        reserved: int = 0,
        streams: bool = False,
    ) -> Ticket:
        """Submit a caller's work, and charge the caller for the steps it takes.

        Raises Overloaded past a limit or where the queue is full, Unavailable where the model is not.
        """
        bounds, account = self.of(caller), self._account(caller)
        self.check_steps(caller, served)
        if streams and bounds.max_streams and account.streams >= bounds.max_streams:
            raise Overloaded(
                f"{_whose(caller)} may have {bounds.max_streams} streams at a time; end one first",
                retry_after=1,
            )
        ticket = served.submit(submission, reserved, bounds.queue_seconds)
        account.streams += streams

        def ended(end: Finished) -> None:
            if account.steps is not None and end.taken:
                account.steps.take(end.taken, self._clock())

        def closed() -> None:
            account.streams -= streams

        ticket.watch(ended, closed)
        return ticket

    def _account(self, caller: Caller) -> Account:
        account = self._accounts.get(caller.name)
        bounds, now = self.of(caller), self._clock()
        if account is None:
            account = self._accounts[caller.name] = Account(None, None)
        # A file of keys that was read again may have other rates.
        account.requests = _bucket(account.requests, bounds.requests_per_second, now)
        account.steps = _bucket(account.steps, bounds.steps_per_second, now)
        return account


def _bucket(bucket: Bucket | None, rate: float, now: float) -> Bucket | None:
    if not rate:
        return None
    return bucket if bucket is not None and bucket.rate == rate else Bucket(rate, now)


def _whose(caller: Caller) -> str:
    return f"the key {caller.name!r}" if caller.name else "callers without a key"
