"""What the service counts, for Prometheus. A registry per Metrics, so that an app can be made twice."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from model.halting import HaltReason
from service.settings import Settings

UNKNOWN = "unknown"  # the model of a request that named none that is served; never the caller's own words


class Metrics:
    """Every metric of docs/metrics.md. Labels only ever take names of bundles and HTTP statuses."""

    def __init__(self, settings: Settings) -> None:
        self.registry = CollectorRegistry()
        self._models: list[ModelMetrics] = []
        self.requests = Counter(
            "fathom_requests",
            "Requests to /v1/infer by HTTP status.",
            ["model", "code"],
            registry=self.registry,
        )
        self.steps = Counter(
            "fathom_steps", "Steps computed, over all problems.", ["model"], registry=self.registry
        )
        self.depth = Histogram(
            "fathom_request_depth",
            "Steps that a finished problem had taken.",
            ["model"],
            buckets=settings.depth_buckets,
            registry=self.registry,
        )
        self.halts = Counter(
            "fathom_halt",
            "Finished problems by the reason they stopped.",
            ["model", "reason"],
            registry=self.registry,
        )
        self.queue_seconds = Histogram(
            "fathom_queue_seconds",
            "From a problem's arrival until it had a slot.",
            buckets=settings.queue_buckets,
            registry=self.registry,
        )
        self.step_seconds = Histogram(
            "fathom_step_seconds",
            "One step of all running problems of a model.",
            buckets=settings.step_buckets,
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "fathom_request_seconds",
            "A request to /v1/infer, from its arrival to the last byte of its answer.",
            buckets=settings.request_buckets,
            registry=self.registry,
        )
        running = Gauge("fathom_running", "Problems in slots.", registry=self.registry)
        waiting = Gauge("fathom_waiting", "Problems waiting for a slot.", registry=self.registry)
        occupancy = Gauge(
            "fathom_slot_occupancy", "Share of all slots in use, 0 to 1.", registry=self.registry
        )
        running.set_function(lambda: float(sum(model.running for model in self._models)))
        waiting.set_function(lambda: float(sum(model.waiting for model in self._models)))
        occupancy.set_function(self._occupancy)

    def of_model(self, name: str, slots: int) -> ModelMetrics:
        """The observer of one engine."""
        model = ModelMetrics(self, name, slots)
        self._models.append(model)
        return model

    def forget(self, model: ModelMetrics) -> None:
        """An engine is closed: the gauges leave it out; its counters stay."""
        self._models.remove(model)

    def answered(self, model: str, code: int, seconds: float) -> None:
        """A request to /v1/infer is over."""
        self.requests.labels(model, str(code)).inc()
        self.request_seconds.observe(seconds)

    def page(self) -> bytes:
        """The exposition in Prometheus's text format."""
        return generate_latest(self.registry)

    def _occupancy(self) -> float:
        slots = sum(model.slots for model in self._models)
        return sum(model.running for model in self._models) / slots if slots else 0.0


class ModelMetrics:
    """An engine's Observer. Called from its thread on every step; the counters have locks of their own."""

    def __init__(self, metrics: Metrics, name: str, slots: int) -> None:
        self.running, self.waiting, self.slots = 0, 0, slots
        self._steps = metrics.steps.labels(name)
        self._depth = metrics.depth.labels(name)
        self._halts = {reason: metrics.halts.labels(name, reason.value) for reason in HaltReason}
        self._queue_seconds = metrics.queue_seconds
        self._step_seconds = metrics.step_seconds

    def stepped(self, rows: int, seconds: float) -> None:
        self._steps.inc(rows)
        self._step_seconds.observe(seconds)

    def queued(self, seconds: float) -> None:
        self._queue_seconds.observe(seconds)

    def finished(self, reason: HaltReason, steps: int) -> None:
        self._halts[reason].inc()
        self._depth.observe(steps)

    def load(self, running: int, waiting: int, slots: int) -> None:
        self.running, self.waiting, self.slots = running, waiting, slots
