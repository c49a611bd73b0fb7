"""Twelve clients at a time, many of them no good, for fifteen seconds: nobody notices, nothing is left.

`make soak` does it for a minute.
"""

from __future__ import annotations

import gc
import logging
import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from service.engine.messages import Submission
from service.engine.served_model import ServedModel
from service.engine.ticket import Ticket
from service.http.protocol import Connection
from tests.service.bundles.test_repository import Shelf, serving
from tests.service.chaos import chaos
from tests.service.crowd import FAILING_NODES, KINDS, NAN_NODES
from tests.service.servers import Body, Running, chain, eventually

SECONDS = float(os.environ.get("CHAOS_SECONDS", "15"))
SETTINGS = {
    "head_seconds": 3,
    "body_seconds": 3,
    "keep_alive_seconds": 3,
    "send_seconds": 3,
    "queue_seconds": 10**6,
    "allowed_hosts": "*",
}


def counted(draw: random.Random) -> tuple[Body, Callable[[Body], bool]]:
    """A chain, or several; the counting model says yes after as many steps as it has edges."""
    depths = [draw.randint(2, 30) for _ in range(draw.choice([1, 1, 1, 5]))]

    def is_right(answer: Body) -> bool:
        return [result["steps"] for result in answer["results"]] == depths

    return {"input": [chain(depth) for depth in depths], "max_steps": 40}, is_right


def test_chaos_leaves_nothing_behind_and_every_request_is_answered_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    shelf = Shelf(tmp_path / "bundles", nan_nodes=NAN_NODES, failing_nodes=FAILING_NODES)
    shelf.put("reachable")
    shelf.patch(monkeypatch)
    submitted = Counter[str]()
    submit = ServedModel.submit

    def counting(served: ServedModel, submission: Submission, *more: float) -> Ticket:
        ticket = submit(served, submission, *more)
        submitted["problems"] += len(submission.trajectories)
        return ticket

    monkeypatch.setattr(ServedModel, "submit", counting)
    with serving(shelf, **SETTINGS) as server:
        url, first = server.client.base_url, server.served
        open_files = files()
        report = chaos((url.host, url.port or 0), counted, KINDS, SECONDS)
        assert not report.wrong, report.wrong[:5]
        if missing := {kind.__name__ for kind in KINDS} - set(report.came):
            assert sum(report.came.values()) < 10 * len(KINDS), f"{missing} never came"
        assert report.asked == report.answered.total(), "each is answered once"
        eventually(lambda: server.client.get("/health/ready").status_code == 200)
        eventually(lambda: server.served.running == server.served.waiting == 0)
        server.runner.wait_until(taken=0)
        eventually(lambda: ends(server) == submitted["problems"])
        assert server.served is first, "an equal bundle is no other"
        service = server.app.state.service
        eventually(lambda: service.fleet.budget.used == service.bodies.held == 0)
        eventually(lambda: service.kept.used == sum(kept.nbytes for kept in service.kept.requests.values()))
        server.client.close()
        eventually(lambda: not connections())
        eventually(lambda: files() <= open_files)
    assert not caplog.records, [record.getMessage() for record in caplog.records]


def ends(server: Running) -> float:
    """How many problems have ended, however they did."""
    reasons = ("halted", "budget", "deadline", "cancelled", "error")
    return sum(server.metric("fathom_halt_total", model="graph", reason=reason) for reason in reasons)


def connections() -> list[Connection]:
    gc.collect()
    return [thing for thing in gc.get_objects() if type(thing) is Connection]


def files() -> int:
    """How many descriptors this process has open, where the system tells."""
    place = Path("/proc/self/fd")
    return len(list(place.iterdir())) if place.is_dir() else 0
