"""The proof that it measures right: real HTTP against a server whose latencies are scripted.

Scripted latencies are long against the jitter of a shared machine. Where a bound is tight, the truth is
what the server really did, for a sleeping server oversleeps on a busy machine too.
"""

from pathlib import Path

import numpy as np
import pytest

from loadtest.analyse.findings import Findings
from tests.loadtest.running import loaded, measured, samples
from tests.loadtest.scripts import constant, linear, listed, stall
from tests.loadtest.stub import Stub


def test_open_loop_percentiles_are_within_two_per_cent_over_two_client_processes() -> None:
    times = [float(t) for t in 0.3 + np.random.default_rng(0).gamma(2, 0.2, 400)]
    stub = Stub(listed(times))
    findings = measured(
        stub, depths=(4,), rate=(30.0,), arrivals="constant", duration_s=4, warmup_s=0.0, processes=2
    )
    row = loaded(findings, 4)
    assert row.latency_ms is not None
    assert row.outcomes["ok"] == len(stub.held_ms) == 120
    # On a machine that has no time for the client, two per cent more is the client's own delay, and it says
    # so.
    client = findings.client[0]
    allowance = 3 * (client.late_p99_ms + client.lag_p95_ms) if client.limit else 0.0
    for name, q in {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "max": 1.0}.items():
        truth = float(np.quantile(stub.held_ms, q))
        assert truth <= getattr(row.latency_ms, name) <= truth + max(0.02 * truth, allowance)
    assert row.rates.offered == pytest.approx(30, rel=0.01)
    assert sorted(s.number for s in samples(findings)) == list(range(120))
    assert findings.client[0].processes == 2


@pytest.fixture(scope="module")
def line() -> Findings:
    """Latency linear in depth: 100 ms + 20 ms a step."""
    return measured(Stub(linear(0.1, 0.02)), depths=(1, 8, 16), concurrency=(4,), duration_s=1.6)


def test_the_fit_recovers_a_and_b(line: Findings) -> None:
    fit = line.fits[0].fit
    held = {depth: loaded(line, depth).server_ms for depth in (1, 16)}
    assert held[1] is not None
    assert held[16] is not None
    assert held[1].p50 >= 120
    assert fit.b_ms == pytest.approx((held[16].p50 - held[1].p50) / 15, rel=0.08)
    assert fit.linear is True
    assert [residual.steps for residual in fit.residuals] == [1, 8, 16]


def test_closed_loop_keeps_exactly_the_users_it_was_given(line: Findings) -> None:
    for cell in line.cells:
        edges = sorted(
            [(s.due_s, 1) for s in cell.samples] + [(s.done_s, -1) for s in cell.samples],
            key=lambda edge: (edge[0], edge[1]),
        )
        assert max(np.cumsum([step for _, step in edges])) == 4


def test_server_times_are_held_against_the_clients_total(line: Findings) -> None:
    row = loaded(line, 16)
    assert row.latency_ms is not None
    assert row.compute_ms is not None
    assert row.outside_ms is not None
    assert row.compute_ms.p50 >= 420  # a sleeping server may oversleep, and says so
    assert 0 < row.outside_ms.p50 <= row.latency_ms.p50 - 420
    assert row.used_depths == {16: row.outcomes["ok"]}
    assert row.halt_reasons == {"budget": row.outcomes["ok"]}


def test_constant_latency_has_no_slope_and_no_growth_by_depth() -> None:
    findings = measured(Stub(constant(0.1)), depths=(1, 32), concurrency=(4,), duration_s=0.6)
    fit = findings.fits[0].fit
    assert fit.a_ms >= 100
    assert abs(fit.b_ms) < 0.1 * fit.a_ms / 31
    assert fit.linear is None  # two depths


def test_a_stall_shows_in_full_in_open_loop() -> None:
    """A second without answers at 50 requests a second: every request due in it is seen to wait for its
    end.
    """
    findings = measured(
        Stub(stall(0.01, 1.0, 2.0)),
        depths=(4,), rate=(50.0,), arrivals="constant", duration_s=2.5, warmup_s=0.0,
    )  # fmt: skip
    assert len(samples(findings)) == 125
    # The server's clock starts with the first request, a little after the cell: what is due from 1.1 s on
    # is stalled for certain, and cannot be answered before 2 s have passed.
    stalled = [s for s in samples(findings) if 1.11 <= s.due_s < 1.99]
    assert len(stalled) == 44
    assert all(s.latency_ms >= (2.0 - s.due_s) * 1e3 for s in stalled)
    assert max(s.latency_ms for s in stalled) >= 880


def test_a_closed_loop_hides_the_same_stall() -> None:
    """What open loop is for: the one user sends nothing while it waits."""
    findings = measured(
        Stub(stall(0.01, 1.0, 2.0)), depths=(4,), concurrency=(1,), duration_s=2.5, warmup_s=0.0
    )
    assert sum(s.latency_ms > 600 for s in samples(findings)) == 1
    row = loaded(findings, 4)
    assert row.latency_ms is not None
    assert row.latency_ms.p90 < 500
    assert (row.loop, row.load) == ("closed", "closed, 1 user")


def test_waiting_for_a_free_connection_counts_as_latency() -> None:
    """A client that has run out of connections must not make the server look fast."""
    findings = measured(
        Stub(constant(0.2)),
        depths=(4,), rate=(20.0,), arrivals="constant", duration_s=0.6, warmup_s=0.0, max_in_flight=2,
    )  # fmt: skip
    last = max(samples(findings), key=lambda s: s.due_s)
    assert last.latency_ms > 600  # twelve requests, two at a time, take 1.2 s; the last is due at 0.55 s
    assert last.wait_ms > 400
    assert "--max-in-flight" in (findings.client[0].full or "")


def test_streamed_steps_are_timed_one_by_one() -> None:
    findings = measured(Stub(linear(0.0, 0.04)), depths=(6,), concurrency=(2,), duration_s=1, stream=True)
    row = loaded(findings, 6)
    assert row.first_step_ms is not None
    assert row.between_steps_ms is not None
    assert row.between_steps_ms.count == 5 * row.outcomes["ok"]
    for sample in samples(findings):  # what the server cannot have done sooner; the rest is exact elsewhere
        assert sample.first_step_ms is not None
        assert sample.first_step_ms >= 40
        assert sample.latency_ms >= 240
        assert sample.first_step_ms + sum(sample.gaps_ms) <= sample.latency_ms


def test_a_stream_that_is_cut_short_has_failed() -> None:
    stub = Stub(constant(0.02), cut_streams=True)
    row = loaded(measured(stub, depths=(2,), concurrency=(1,), duration_s=0.5, stream=True), 2)
    assert row.outcomes["ok"] == 0
    assert list(row.errors) == ["the stream ended before its done event"]


def test_refused_failed_and_timed_out_are_told_apart() -> None:
    full = measured(
        Stub(constant(0.2), slots=1, queue_limit=1), depths=(2,), concurrency=(4,), duration_s=0.6
    )
    assert loaded(full, 2).outcomes["refused"] > 0
    assert loaded(full, 2).errors["overloaded"] == loaded(full, 2).outcomes["refused"]
    broken = loaded(measured(Stub(fail_with=500), depths=(2,), rate=(20.0,), duration_s=0.5, trial=False), 2)
    assert broken.outcomes["failed"] == broken.requests
    assert broken.error_rate == 1


def test_a_request_that_times_out_counts_with_the_time_it_was_given() -> None:
    slow = loaded(
        measured(Stub(constant(0.9)), depths=(2,), rate=(8.0,), duration_s=0.5, timeout_s=0.2, trial=False),
        2,
    )
    assert slow.outcomes["timed_out"] == slow.requests
    assert slow.latency_ms is not None
    assert slow.latency_ms.p50 >= 200
    assert not slow.keeps(1000)


def test_a_mix_is_grouped_halting_is_seen_and_labels_give_accuracy() -> None:
    stub = Stub(linear(0.005, 0.001), halt_at=3, answers=lambda _input: True)
    mix = "weighted:1=1,4=1,8=1"
    findings = measured(stub, depths=(1, 4, 8), mix=mix, concurrency=(6,), duration_s=1.2)
    rows = {row.depth: row for row in findings.summaries}
    assert set(rows) == {"1", "2-4", "5-8"}
    assert rows["1"].halt_reasons.keys() == {"budget"}
    assert rows["5-8"].halt_reasons.keys() == {"halted"}
    assert rows["5-8"].used_depths.keys() == {3}
    accuracy = rows["5-8"].accuracy
    assert accuracy is not None
    assert 0.2 < accuracy.share < 0.8  # half the problems are labelled true


def test_the_sweep_finds_what_one_slot_can_serve() -> None:
    """50 ms a request, one at a time: twenty a second, a little less with what HTTP adds."""
    findings = measured(
        Stub(constant(0.05), slots=1),
        depths=(4,), sweep=True, max_rate=40.0, arrivals="constant",
        duration_s=1.2, warmup_s=0.2, alone_s=0.4,
    )  # fmt: skip
    found = findings.searches[0].search
    assert found.best is not None
    assert found.broken is not None
    assert 12 <= found.best <= 23
    assert found.broken <= 30
    assert "saturated" in found.ended


def test_any_server_of_the_open_inference_protocol_can_be_measured(tmp_path: Path) -> None:
    file = tmp_path / "problems.jsonl"
    file.write_text('{"tensors": {"tokens": [[1, 2, 3, 4]]}, "label": 1}\n')
    stub = Stub(constant(0.02))
    findings = measured(
        stub, protocol="v2", problems=file, depths=(5,), concurrency=(1,), duration_s=0.5,
        halting={"criterion": "kl", "threshold": 0.01},
    )  # fmt: skip
    row = loaded(findings, 5)
    assert row.outcomes["ok"] == row.requests > 5
    assert row.used_depths.keys() == {5}
    assert row.accuracy is not None
    assert row.accuracy.share == 1
    tensor = {"name": "tokens", "shape": [1, 4], "datatype": "INT32", "data": [1, 2, 3, 4]}
    parameters = {"max_steps": 5, "halting_criterion": "kl", "halting_threshold": 0.01}
    assert stub.bodies[0] == {"inputs": [tensor], "parameters": parameters}
