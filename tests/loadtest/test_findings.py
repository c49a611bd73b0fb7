"""What is made of cells: what a slope is, whom the probe accuses, what is said, how many servers."""

import io
from typing import Any

import pytest
from rich.console import Console

from loadtest.analyse.capacity import capacity
from loadtest.analyse.findings import DepthSearch
from loadtest.analyse.sweep import Point, Search, search
from loadtest.analyse.verdict import judge
from loadtest.drive.cells import Cell
from loadtest.drive.pool import CellResult
from loadtest.plan import LoadPlan
from loadtest.show.tables import summary_table
from loadtest.show.words import capacity_words, fit_cells, headline, probe_words, sweep_words
from tests.loadtest.made import findings, load_cell, result


def plan(**changes: Any) -> LoadPlan:
    return LoadPlan(**{"url": "http://h", "depths": (1, 8, 16), "concurrency": (4,), **changes})


def line(first: int, cells: list[Cell], a: float, b: float, **more: Any) -> list[CellResult]:
    """Cells at three depths whose latency is a + b · steps, give or take a little."""
    return [
        result(first + place, cell, [a + b * (cell.depth or 0) + 0.01 * (i % 7) for i in range(60)], **more)
        for place, cell in enumerate(cells)
    ]


def cells(level: float, loop: str = "closed", phase: str = "load") -> list[Cell]:
    return [load_cell(level, depth, loop, phase) for depth in (1, 8, 16)]


ALONE = line(0, cells(1.0, phase="alone"), 2.0, 0.5)


def test_a_slope_under_load_that_is_the_one_alone_is_the_cost_of_a_step() -> None:
    found = findings(plan(), *ALONE, *line(3, cells(4.0), 3.0, 0.52))
    assert [fit.slope for fit in found.fits] == ["steps", "steps"]


def test_a_steeper_slope_under_load_is_that_of_steps_beside_others() -> None:
    found = findings(plan(), *ALONE, *line(3, cells(4.0), 3.0, 2.0))
    assert [fit.slope for fit in found.fits] == ["steps", "shared"]


def test_without_a_baseline_nobody_can_say_that_a_slope_under_load_is_a_steps_own() -> None:
    assert [fit.slope for fit in findings(plan(), *line(3, cells(4.0), 3.0, 0.5)).fits] == ["shared"]


def test_a_slope_that_grows_with_the_servers_queue_is_queueing_and_is_called_so() -> None:
    waiting = [
        result(3 + place, cell, [3.0 + 2.0 * cell.depth] * 60, queue_ms=1.5 * cell.depth)
        for place, cell in enumerate(cells(4.0))
        if cell.depth
    ]
    fit = findings(plan(), *ALONE, *waiting).fits[1]
    assert fit.slope == "queueing"
    assert fit_cells(fit)["b is"] == "waiting in a queue, not a step"


def test_a_slope_at_saturation_is_queueing_whether_or_not_the_server_says_so() -> None:
    growing = [
        result(3 + place, cell, [50.0 * i for i in range(60)], queue_ms=None)
        for place, cell in enumerate(cells(6.0, "open"))
    ]
    found = findings(plan(concurrency=(), rate=(6.0,)), *growing)
    assert [fit.slope for fit in found.fits] == ["queueing"]
    assert "a step" not in headline(found, "m")


def probed(control: list[float], among: list[float], server: float = 1.0) -> Any:
    probes = {"probe": True, "depth": 1}
    quiet = result(6, Cell("control", "open", 0.0, 1, 0, 0.0, 10.0, 10.0), control, **probes, server_ms=1.0)
    loud = result(7, Cell("probe", "closed", 4.0, 16, 0, 0.0, 10.0, 10.0), among, **probes, server_ms=server)
    deep = result(7, loud.cell, [30.0] * 60)
    both = CellResult(7, loud.cell, 70.0, [*loud.samples, *deep.samples], loud.health, False)
    return findings(plan(), *ALONE, quiet, both).probe


def test_the_probe_convicts_beyond_chance_only() -> None:
    noisy = [5.0 + (i * 7 % 11) for i in range(50)]
    acquitted = probed(noisy, [value + 0.2 for value in noisy])
    assert not acquitted.blocks
    assert "no blocking that can be told from noise" in probe_words(acquitted)
    convicted = probed(noisy, [value + 20 for value in noisy], server=20.0)
    assert convicted.blocks
    assert convicted.added_ms == pytest.approx(20)
    assert convicted.added_server_ms == pytest.approx(19)
    assert convicted.added_steps == pytest.approx(40, rel=0.01)
    low, high = convicted.added_interval95
    assert 15 < low < 20 < high < 25


def swept(capacity: float, slo_at: float = 1e9) -> DepthSearch:
    def measure(rate: float) -> Point:
        saturated = "the queue grew" if rate > capacity else None
        return Point(rate, saturated, "p99 was 90 ms" if rate > slo_at else None, None)

    return DepthSearch(8, search(measure, 10, 1000))


def test_a_sweep_is_told_by_what_stopped_the_rate_not_by_where_the_search_went() -> None:
    assert sweep_words(swept(500, slo_at=100)).startswith("Sweep, depth 8: 95.14 requests/s hold; ")
    assert sweep_words(swept(500, slo_at=100)).endswith("do not: p99 was 90 ms")
    assert sweep_words(swept(100)).endswith("do not: the queue grew")
    assert "the highest rate allowed" in sweep_words(swept(1e9))
    assert "no rate was found" in sweep_words(DepthSearch(None, Search((), None, 5.0, "it is slow")))


def test_servers_are_counted_at_sixty_per_cent_with_one_to_replace_and_one_to_lose() -> None:
    found = DepthSearch(None, Search((), 100.0, 109.0, "saturated"))
    needed = capacity(found, 2000.0)
    assert (needed.working, needed.servers, needed.least) == (34, 36, 20)
    assert "36 servers: 34 at 60 % use of the 100/s that one holds; 109 it does not" in capacity_words(needed)
    exact = capacity(DepthSearch(None, Search((), 100.0, None, "")), 120.0)
    assert exact.working == 2
    unknown = capacity(DepthSearch(8, Search((), None, 5.0, "slow")), 10.0)
    assert unknown.servers is None
    assert "unknown" in capacity_words(unknown)


def test_no_bound_is_claimed_that_was_not_asked_for() -> None:
    without = judge(findings(plan(), *ALONE))
    assert without.passed
    assert without.words == (
        "Kept: at most 1 % of the requests unanswered; no latency was asked for (--slo-p99-ms)."
    )
    asked = judge(findings(plan(slo_p99_ms=100.0), *ALONE))
    assert asked.words == "Kept: p99 within 100 ms, at most 1 % of the requests unanswered."
    missed = judge(findings(plan(slo_p99_ms=4.0), *line(3, cells(4.0), 3.0, 0.5)))
    assert (missed.passed, missed.exit_code, len(missed.reasons)) == (False, 1, 2)


def test_the_headline_is_the_deepest_answer_and_what_a_step_costs() -> None:
    found = findings(plan(), *ALONE, *line(3, cells(4.0), 3.0, 0.52))
    assert headline(found, "graph 1") == (
        "graph 1 answers depth 16 in 11.3 ms (p99 ~11.4) at 6.00 answers/s (closed, 4 users); "
        "alone, a request takes 2.03 ms and 0.5 ms a step."
    )
    swept_too = findings(plan(concurrency=(), sweep=True, slo_p99_ms=50.0), *ALONE, searches=(swept(100),))
    assert headline(swept_too, "graph 1").startswith(
        "graph 1 keeps up with 95.1 requests/s of depth 8 with 99 % within 50 ms; alone"
    )


def test_a_narrow_terminal_gets_fewer_columns_and_no_cut_figures() -> None:
    found = findings(plan(), *line(3, cells(4.0), 3.0, 0.52))
    texts = {}
    for width in (80, 190):
        console = Console(width=width, file=io.StringIO())
        console.print(summary_table("", found.summaries, width))
        texts[width] = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in texts[80]
    assert "p99" in texts[80]
    assert "achieved/s" in texts[80]
    assert "offered/s" in texts[190]
    assert "offered/s" not in texts[80]
