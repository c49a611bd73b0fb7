"""The server's metrics as the load test reads them."""

import sys
from types import SimpleNamespace

import pytest

from loadtest.drive.scrape import Gpu, read_page, reading

PAGE = """\
# TYPE fathom_steps_total counter
fathom_steps_total{model="graph"} 500.0
fathom_steps_total{model="logic"} 7.0
fathom_running{model="graph"} 3.0
fathom_step_seconds_bucket{le="0.1",model="graph"} 9.0
fathom_step_seconds_sum{model="graph"} 2.0
fathom_step_seconds_count{model="graph"} 100.0
process_resident_memory_bytes 1.048576e+08
"""


def test_a_page_is_read_for_one_model_and_the_process() -> None:
    assert read_page(PAGE, "graph") == {
        "steps": 500, "running": 3, "step_s": 2, "batches": 100, "memory": 104857600,
    }  # fmt: skip


def test_a_reading_is_what_happened_between_two_pages() -> None:
    before = read_page(PAGE, "graph")
    after = {**before, "steps": 700.0, "batches": 140.0, "step_s": 2.5, "running": 5.0}
    found = reading((10.0, before), (12.0, after), gpu=(0.5, 800.0))
    assert (found.at_s, found.running, found.steps_per_s, found.rows_per_batch) == (12.0, 5.0, 100.0, 5.0)
    assert found.row_step_ms == pytest.approx(2.5)
    assert (found.memory_mb, found.gpu_share, found.gpu_memory_mb) == (100.0, 0.5, 800.0)
    assert (found.waiting, found.queue_ms, found.cpu_share) == (None, None, None)


def test_counters_that_began_anew_say_nothing() -> None:
    before = read_page(PAGE, "graph")
    assert reading((10.0, before), (12.0, {**before, "steps": 3.0})).steps_per_s is None


def test_a_gpu_is_read_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda place: place,
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(used=3 * 2**30),
        nvmlDeviceGetUtilizationRates=lambda handle: SimpleNamespace(gpu=40),
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert Gpu().read() == (0.4, 3072.0)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert Gpu().read() == (None, None)
