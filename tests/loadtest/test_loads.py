"""Loads beyond a steady rate: probes, replays, callers who leave, bounds; and the server's own figures."""

import json
from pathlib import Path

import pytest

from loadtest.plan import make_plan
from tests.loadtest.running import loaded, measured, samples
from tests.loadtest.scripts import constant, linear
from tests.loadtest.stub import Stub


def test_requests_whose_client_goes_away_are_cancelled_and_count_against_nobody() -> None:
    stub = Stub(constant(60.0))
    findings = measured(
        stub,
        depths=(2,),
        rate=(20.0,),
        duration_s=0.5,
        warmup_s=0.0,
        cancel=1.0,
        cancel_after_s=0.1,
        trial=False,
    )
    row = loaded(findings, 2)
    assert row.outcomes["cancelled"] == row.requests > 0
    assert row.error_rate == 0
    assert row.errors == {}
    assert stub.left.wait(10), "the server sees its client go"


def test_no_more_are_in_flight_than_allowed_and_what_waits_counts_it() -> None:
    stub = Stub(constant(0.1))
    findings = measured(stub, depths=(2,), rate=(50.0,), duration_s=0.5, warmup_s=0.0, max_in_flight=3)
    assert stub.most_at_once <= 3
    assert max(s.wait_ms for s in samples(findings)) > 100


def test_what_a_server_captured_is_sent_again_when_and_as_deep_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "captured.jsonl"
    lines = [
        {"input": {"edges": []}, "model": "stub", "max_steps": steps, "at": 100 + at, "min_steps": 2}
        for at, steps in ((0.0, 3), (0.4, 7), (2.0, 5))
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    stub = Stub(constant(0.001))
    plan = make_plan("http://127.0.0.1:1", {"replay": file, "speed": 4.0})
    changes = {name: getattr(plan, name) for name in ("replay", "speed", "mix")}
    findings = measured(stub, **changes, depths=(4, 8), processes=1)
    assert stub.asked == [3, 7, 5]
    assert [body["min_steps"] for body in stub.bodies] == [2, 2, 2]
    assert [s.due_s for s in samples(findings)] == pytest.approx([0, 0.1, 0.5])
    assert findings.cells[0].cell.level == pytest.approx(4.0)  # a mean gap of 0.25 s


def test_the_servers_own_figures_are_read_while_it_works() -> None:
    stub = Stub(linear(0.01, 0.001))
    findings = measured(stub, depths=(4,), concurrency=(2,), duration_s=1.0, scrape_s=0.05)
    steps = [reading.steps_per_s for reading in findings.server if reading.steps_per_s is not None]
    assert len(steps) > 2
    assert max(steps) > 0
    assert all(reading.at_s > 0 for reading in findings.server)


def test_deep_load_shows_in_the_probe_when_a_server_makes_the_shallow_wait() -> None:
    """One slot: a depth-1 request waits for whole deep ones."""
    findings = measured(
        Stub(linear(0.0, 0.005), slots=1),
        depths=(1, 30),
        concurrency=(2,),
        duration_s=0.3,
        warmup_s=0.1,
        alone_s=0.4,
        probe_s=1.4,
    )
    assert findings.probe is not None
    assert findings.probe.added_ms is not None
    assert findings.probe.added_ms > 100
    assert findings.probe.blocks
    times = [
        [s.due_s for s in cell.samples if s.probe]
        for cell in findings.cells
        if cell.cell.phase in ("control", "probe")
    ]
    assert times[0] == pytest.approx(times[1], abs=1e-6)


def test_the_probe_accuses_nobody_who_does_not_make_the_shallow_wait() -> None:
    """Latencies that are long against the client's own wake-ups, and the same whoever is beside."""
    findings = measured(
        Stub(constant(0.1)), depths=(1, 30), concurrency=(2,),
        duration_s=0.3, warmup_s=0.1, probe_s=1.4,
    )  # fmt: skip
    assert findings.probe is not None
    assert findings.probe.added_ms is not None
    assert findings.probe.added_server_ms is not None
    assert findings.probe.added_ms < 50
