"""Fathom on a Ray cluster: the same application and engines, as replicas of a Ray Serve deployment.

    serve run deploy.ray_app:app                                      settings from the environment
    serve run deploy.ray_app:app min_replicas=2 max_replicas=8 gpus=0.5

Ray does what a cluster needs: it places replicas, routes requests to them, replaces those that die and
adds some under load. What a replica does is not Ray's business: it is the service of `fathom serve`,
with one engine per model, and reads FATHOM_* on its own node.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from fastapi import FastAPI
from prometheus_client import start_http_server
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict
from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

from deploy.ray_models import OpenModel, open_model, open_shelf
from service.allocator import limit_allocator
from service.app import create_app
from service.engine.engine import EngineLimits
from service.http.v1.infer import Service
from service.settings import Settings, read_settings

Opener = Callable[[Any, str], Awaitable[OpenModel]]

log = logging.getLogger("ray.serve")
PORTS_TO_TRY = 16  # replicas on one node that can each have a metrics port
CLOSING_SECONDS = 15  # beyond the drain: to close engines and send last bytes


class ClusterSettings(BaseSettings):
    """How the replicas are spread. Arguments of the application, or variables FATHOM_RAY_<NAME>."""

    model_config = SettingsConfigDict(env_prefix="FATHOM_RAY_", frozen=True, extra="forbid")

    min_replicas: int = Field(1, ge=1, description="Replicas that are always there.")
    max_replicas: int = Field(1, ge=1, description="Replicas at most; above min_replicas, Ray scales.")
    cpus: float = Field(
        1,
        ge=0,
        description="CPU cores per replica, and threads that compute steps where no setting says more.",
    )
    gpus: float = Field(0, ge=0, description="GPUs per replica; 0.5 puts two replicas on one GPU.")
    max_requests: int = Field(
        1024, ge=1, description="Requests open at one replica; past that, Ray holds them back in its proxies."
    )
    queue_target: float = Field(
        2048, gt=0, description="Steps that may wait per replica before another one is wanted."
    )
    occupancy_target: float = Field(
        0.7, gt=0, le=1, description="Share of its slots that a replica's fullest model should use."
    )
    upscale_seconds: float = Field(10, ge=0, description="How long the need must last before Ray adds.")
    downscale_seconds: float = Field(300, ge=0, description="How long it must be gone before Ray removes.")
    look_back_seconds: float = Field(15, gt=0, description="Time over which the load is averaged.")
    models_per_replica: int = Field(
        0, ge=0, description="Models a replica keeps open, opened when asked for; 0: every model, always."
    )
    metrics_port: int = Field(
        0,
        ge=0,
        le=65519,
        description="Replicas serve /metrics on the first free port of `host` from here on; 0: nowhere.",
    )
    settings: dict[str, Any] = Field(
        default_factory=dict, description="Settings of the service that win over the replicas' environment."
    )


class Loaded(Protocol):
    """What we read of a served model."""

    @property
    def limits(self) -> EngineLimits: ...
    @property
    def running(self) -> int: ...
    @property
    def waiting_steps(self) -> int: ...


class Load(Protocol):
    """What we read of Ray's AutoscalingContext."""

    current_num_replicas: int
    aggregated_metrics: Mapping[str, Mapping[object, float]] | None


class ScaleOnSteps:
    """Wants as many replicas as the running and the waiting steps need.

    Requests would be the wrong measure: one may ask for a step or for a thousand. What runs is counted
    in slots, because halting decides how many steps it still takes; what waits, in its step budgets.
    """

    def __init__(self, queue_target: float, occupancy_target: float) -> None:
        self.queue_target = queue_target
        self.occupancy_target = occupancy_target

    def __call__(self, load: Load) -> tuple[float, dict[str, Any]]:
        reports = load.aggregated_metrics or {}
        occupancy, waiting = reports.get("occupancy", {}), reports.get("waiting_steps", {})
        if not occupancy:  # nobody has reported yet
            return load.current_num_replicas, {}
        running = sum(occupancy.values()) / self.occupancy_target
        return running + sum(waiting.values()) / self.queue_target, {}


def app(cluster: ClusterSettings) -> Application:
    """The Serve application. Raises StartupError for settings that are wrong."""
    settings = read_settings(cluster.settings)  # wrong ones fail here, before a replica is placed
    scaling = AutoscalingConfig(
        min_replicas=cluster.min_replicas,
        max_replicas=max(cluster.min_replicas, cluster.max_replicas),
        upscale_delay_s=cluster.upscale_seconds,
        downscale_delay_s=cluster.downscale_seconds,
        look_back_period_s=cluster.look_back_seconds,
        policy=AutoscalingPolicy(
            policy_function=ScaleOnSteps,
            policy_kwargs={
                "queue_target": cluster.queue_target,
                "occupancy_target": cluster.occupancy_target,
            },
        ),
    )
    deployment = serve.deployment(
        name="fathom",
        autoscaling_config=scaling,
        max_ongoing_requests=cluster.max_requests,
        ray_actor_options={"num_cpus": cluster.cpus, "num_gpus": cluster.gpus},
        # Ray takes a replica out of the routes, lets its requests end, and then ends the application.
        graceful_shutdown_timeout_s=settings.drain_seconds + CLOSING_SECONDS,
        graceful_shutdown_wait_loop_s=0.5,
        logging_config={"enable_access_log": settings.access_log},
        health_check_period_s=5,
        health_check_timeout_s=30,
    )
    return deployment(_replica(cluster)).bind()


def service_settings(cluster: ClusterSettings) -> Settings:
    """The settings of a replica. Ray counts cores and limits nobody to them, so that is said here."""
    settings = read_settings(cluster.settings)
    threads = settings.cpu_threads or math.ceil(cluster.cpus)
    hosts = settings.allowed_hosts or ("*",)  # it is Ray's proxies that listen, wherever they do
    return settings.model_copy(update={"cpu_threads": threads, "allowed_hosts": hosts})


def _replica(cluster: ClusterSettings) -> type:
    """The class of the replicas; the application itself is made where a replica runs."""

    def make_app() -> FastAPI:
        limit_allocator()
        settings = service_settings(cluster)
        if not cluster.models_per_replica:
            return create_app(settings)
        return create_app(settings, open_shelf)

    counted: Callable[[Opener], Opener] = serve.multiplexed(
        max_num_models_per_replica=cluster.models_per_replica or -1
    )

    class Replica:
        """A server of `fathom serve`, without the listener."""

        app: FastAPI  # set by Ray, which also enters and leaves its lifespan

        def __init__(self) -> None:
            self._started = False

        @counted
        async def model(self, name: str) -> OpenModel:
            """Open a model; Ray closes the one that was not asked for the longest when there are too many."""
            service = self._service
            return await open_model(name, service.settings, service.fleet, service.metrics)

        async def check_health(self) -> None:
            """Ray asks before the first request, and replaces a replica that raises."""
            fleet = self._service.fleet
            while not self._started and fleet.health() is not None and not fleet.failed():
                await asyncio.sleep(0.05)  # the first real step is on its way
            if (reason := fleet.failed() or fleet.health()) is not None:
                raise RuntimeError(f"not ready: {reason}")
            if not self._started and cluster.metrics_port:
                _serve_metrics(self._service, cluster.metrics_port)
            self._started = True

        def record_autoscaling_stats(self) -> dict[str, float]:
            """What ScaleOnSteps decides on."""
            return load_of(self._service.fleet.models)

        @property
        def _service(self) -> Service:
            service: Service = self.app.state.service
            return service

    return serve.ingress(make_app)(Replica)


def load_of(models: Sequence[Loaded]) -> dict[str, float]:
    """What a replica reports: how full the fullest of its models is, and the steps that wait, of all of them.

    A model has slots of its own, so one that is full needs another replica however idle the others are.
    """
    return {
        "occupancy": max((model.running / model.limits.slots for model in models), default=0.0),
        "waiting_steps": float(sum(model.waiting_steps for model in models)),
    }


def _serve_metrics(service: Service, first: int) -> None:
    """A port per replica: behind Ray's proxy, /metrics would answer for whichever replica it reached."""
    for port in range(first, first + PORTS_TO_TRY):
        try:
            start_http_server(port, service.settings.host, service.metrics.registry)
        except OSError:
            continue
        log.info("metrics on port %d", port)
        return
    log.warning("no port from %d to %d is free: this replica shows no metrics", first, port)
