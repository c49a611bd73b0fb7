"""What the service counts, for Prometheus. A registry per Metrics, so that an app can be made twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from model.halting import HaltReason
from service.settings import Settings

UNKNOWN = "unknown"  # the model of a request that named none that is served; never the caller's own words


class Metrics:
    """Every metric of docs/metrics.md. Labels only ever take names of bundles and HTTP statuses."""

    def __init__(self, settings: Settings) -> None:
        self.registry = CollectorRegistry()
        self._load = Load()
        self.registry.register(self._load)
        ProcessCollector(registry=self.registry)

        def counter(name: str, meaning: str, *labels: str) -> Counter:
            return Counter(name, meaning, ["model", *labels], registry=self.registry)

        def histogram(name: str, meaning: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, meaning, ["model"], buckets=buckets, registry=self.registry)

        self.requests = counter("fathom_requests", "Requests to infer, by HTTP status.", "code")
        self.steps = counter("fathom_steps", "Steps computed, over all problems.")
        self.halts = counter("fathom_halt", "Finished problems by the reason they stopped.", "reason")
        self.yields = counter("fathom_yields", "Times that a problem yielded its slot to one that waited.")
        self.restarts = counter("fathom_restarts", "Times that an engine was built anew after a failure.")
        self.dropped = counter("fathom_dropped_steps", "Steps dropped because a client read too slowly.")
        self.depth = histogram(
            "fathom_request_depth", "Steps that a finished problem had taken.", settings.depth_buckets
        )
        self.queue_seconds = histogram(
            "fathom_queue_seconds", "From a problem's arrival until its first slot.", settings.queue_buckets
        )
        self.step_seconds = histogram(
            "fathom_step_seconds", "One step of one batch of problems.", settings.step_buckets
        )
        self.request_seconds = histogram(
            "fathom_request_seconds",
            "A request to infer, from its arrival to the last byte of its answer.",
            settings.request_buckets,
        )
        self._held = Gauge(
            "fathom_held_bytes", "Bytes of steps held for clients, over all models.", registry=self.registry
        )
        self._build = Gauge(
            "fathom_build_info", "1, with the version that runs.", ["version"], registry=self.registry
        )

    def of_model(self, name: str, slots: int) -> ModelMetrics:
        """The observer of one engine."""
        model = ModelMetrics(self, name, slots)
        self._load.models.append(model)
        return model

    def forget(self, model: object) -> None:
        """An engine is closed: the gauges leave out this observer of it; its counters stay."""
        self._load.models = [other for other in self._load.models if other is not model]

    def of_server(
        self, version: str, held: Callable[[], float], ready: Callable[[], Mapping[str, bool]]
    ) -> None:
        """Ask `held` for the bytes that are held for clients, `ready` for each model whether it works."""
        self._build.labels(version).set(1)
        self._held.set_function(held)
        self._load.ready = ready

    def answered(self, model: str, code: int, seconds: float) -> None:
        """A request to infer is over."""
        self.requests.labels(model, str(code)).inc()
        self.request_seconds.labels(model).observe(seconds)

    def page(self) -> bytes:
        """The exposition in Prometheus's text format."""
        return generate_latest(self.registry)


class Load(Collector):
    """The gauges of the models that are open; versions of one model are added up."""

    def __init__(self) -> None:
        self.models: list[ModelMetrics] = []
        self.ready: Callable[[], Mapping[str, bool]] = dict

    def collect(self) -> Iterator[Metric]:
        running = GaugeMetricFamily("fathom_running", "Problems in slots.", labels=["model"])
        waiting = GaugeMetricFamily("fathom_waiting", "Problems waiting for a slot.", labels=["model"])
        occupancy = GaugeMetricFamily(
            "fathom_slot_occupancy", "Share of the slots in use, 0 to 1.", labels=["model"]
        )
        ready = GaugeMetricFamily(
            "fathom_ready", "Whether the model takes requests, 1 or 0.", labels=["model"]
        )
        for name, works in self.ready().items():
            ready.add_metric([name], works)
        models = list(self.models)
        for name in sorted({model.name for model in models}):
            versions = [model for model in models if model.name == name]
            in_slots = sum(model.running for model in versions)
            running.add_metric([name], in_slots)
            waiting.add_metric([name], sum(model.waiting for model in versions))
            occupancy.add_metric([name], in_slots / sum(model.slots for model in versions))
        return iter((ready, running, waiting, occupancy))


class ModelMetrics:
    """An engine's Observer. Called from its thread on every step; the counters have locks of their own."""

    def __init__(self, metrics: Metrics, name: str, slots: int) -> None:
        self.name = name
        self.running, self.waiting, self.slots = 0, 0, slots
        self._steps = metrics.steps.labels(name)
        self._depth = metrics.depth.labels(name)
        self._halts = {reason: metrics.halts.labels(name, reason.value) for reason in HaltReason}
        self._yields = metrics.yields.labels(name)
        self._restarts = metrics.restarts.labels(name)
        self._dropped = metrics.dropped.labels(name)
        self._queue_seconds = metrics.queue_seconds.labels(name)
        self._step_seconds = metrics.step_seconds.labels(name)

    def stepped(self, rows: int, seconds: float, steps: int = 1) -> None:
        self._steps.inc(rows)
        for _ in range(steps):
            self._step_seconds.observe(seconds)

    def queued(self, seconds: float) -> None:
        self._queue_seconds.observe(seconds)

    def yielded(self) -> None:
        self._yields.inc()

    def finished(self, reason: HaltReason, steps: int) -> None:
        self._halts[reason].inc()
        self._depth.observe(steps)

    def load(self, running: int, waiting: int, slots: int) -> None:
        self.running, self.waiting, self.slots = running, waiting, slots

    def restarted(self) -> None:
        self._restarts.inc()

    def dropped(self, steps: int) -> None:
        self._dropped.inc(steps)
