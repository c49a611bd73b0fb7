"""What the engine reports is counted as it is meant."""

from __future__ import annotations

from service.settings import Settings
from service.telemetry.metrics import Metrics, ModelMetrics


def test_steps_that_were_taken_in_one_launch_count_one_by_one() -> None:
    metrics = Metrics(Settings())
    model = ModelMetrics(metrics, "graph", 8)
    model.stepped(3, 0.25)
    model.stepped(12, 0.5, steps=4)
    found = {
        name: metrics.registry.get_sample_value(name, {"model": "graph"})
        for name in ("fathom_steps_total", "fathom_step_seconds_count", "fathom_step_seconds_sum")
    }
    assert list(found.values()) == [15, 5, 2.25]
