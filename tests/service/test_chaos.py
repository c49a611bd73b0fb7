"""Twelve clients at a time, many of them no good, for fifteen seconds: nobody notices, nothing is left.

`make soak` does it for a minute.
"""

from __future__ import annotations

import gc
import logging
import os
import random
from collections.abc import Callable

import pytest

from service.http.protocol import Connection
from tests.service.chaos import KINDS, chaos
from tests.service.servers import Body, chain, eventually, serving

SECONDS = float(os.environ.get("CHAOS_SECONDS", "15"))
SHORT = {"head_seconds": 1, "body_seconds": 1, "keep_alive_seconds": 1, "send_seconds": 1}


def counted(draw: random.Random) -> tuple[Body, Callable[[Body], bool]]:
    """A chain, or several; the counting model says yes after as many steps as it has edges."""
    depths = [draw.randint(2, 30) for _ in range(draw.choice([1, 1, 1, 5]))]

    def is_right(answer: Body) -> bool:
        return [result["steps"] for result in answer["results"]] == depths

    return {"input": [chain(depth) for depth in depths], "max_steps": 40}, is_right


def test_chaos_leaves_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with serving(**SHORT) as server:
        url = server.client.base_url
        report = chaos((url.host, url.port or 0), counted, SECONDS)
        assert not report.wrong, report.wrong[:5]
        assert set(report.came) == {kind.__name__ for kind in KINDS}, "each came at least once"
        eventually(lambda: server.client.get("/health/ready").status_code == 200)
        eventually(lambda: server.worker.running == server.worker.waiting == 0)
        server.runner.wait_until(taken=0)
        server.client.close()
        eventually(lambda: not connections())
    assert not caplog.records, [record.getMessage() for record in caplog.records]


def connections() -> list[Connection]:
    gc.collect()
    return [thing for thing in gc.get_objects() if type(thing) is Connection]
