"""From settings to what is served: the bundles on disk, each opened with its codec and its runner."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from model.bundle import Bundle, bundle_folders, no_bundle, read_in_place, version_order
from model.codecs import CodecLimits, codec_of
from model.errors import BundleError
from model.row import Layout
from service.bundles.remote import bundles_in_cache, fetch_bundles
from service.bundles.shipped import repository_of
from service.engine.engine import EngineLimits
from service.engine.observer import Observer
from service.engine.pace import ahead_pays
from service.engine.served_model import ServedModel
from service.engine.ticket import Budget
from service.fleet import Fleet, title
from service.runners.computing import Numerics
from service.runners.open import check_environment, open_runner
from service.runners.runner import Runner
from service.settings import Settings
from service.telemetry.metrics import Metrics

log = logging.getLogger("fathom")


def open_fleet(settings: Settings, metrics: Metrics) -> Fleet:
    """Read every bundle of the repository and open it.

    Raises BundleError or StartupError; then nothing is left open.
    """
    check_environment()
    budget = budget_of(settings)
    models: list[ServedModel] = []
    try:
        fetch_bundles(settings)
        for bundle in bundles_of(settings):
            observer = metrics.of_model(bundle.manifest.name, settings.slots)
            models.append(open_bundle(bundle, settings, observer, budget))
    except BaseException:
        for served in models:
            served.runner.close()
        raise
    return Fleet(models, budget)


def bundles_of(settings: Settings) -> Iterator[Bundle]:
    """Every bundle that is to be served. Raises BundleError where there is none, or one is unsound."""
    folders = places_of(settings)
    if not folders:
        raise no_bundle(repository_of(settings))
    for folder in folders:
        yield read_in_place(folder)


def places_of(settings: Settings) -> list[Path]:
    """The folder of every bundle on disk: the repository's, and those from elsewhere.

    Raises BundleError where a folder cannot be looked into, or a version is there twice.
    """
    folders = [*bundle_folders(repository_of(settings)), *bundles_in_cache(settings)]
    places = [(folder.parent.name, version_order(folder.name)) for folder in folders]
    for place, folder in zip(places, folders, strict=True):
        if places.count(place) > 1:
            raise BundleError(
                f"{folder}: this version is there twice; take it from the setting remote_bundles"
            )
    return folders


def open_bundle(bundle: Bundle, settings: Settings, observer: Observer, budget: Budget) -> ServedModel:
    """One bundle, opened and not yet started. Raises StartupError or BundleError where it cannot be had."""
    manifest = bundle.manifest
    axes = {name: axis.max for name, axis in manifest.axes.items()}
    codec = codec_of(manifest, CodecLimits(settings.max_nodes, settings.max_edges, axes), settings.codecs)
    if manifest.domain and manifest.domain.limits:
        known = codec.measure(codec.encode(codec.example, "example"))
        for name in manifest.domain.limits.keys() - known.keys():
            raise BundleError(
                f"bundle {manifest.name}: its domain limits {name!r}, but its codec measures "
                f"{', '.join(known)}"
            )
    limits = limits_of(settings)

    numerics = Numerics(settings.precision, settings.deterministic)

    def opener() -> Runner:
        example = Layout(manifest).row(codec.encode(codec.example, "example"))
        runner = open_runner(
            bundle,
            settings.device,
            settings.backend,
            limits.slots,
            settings.cpu_threads,
            numerics,
            example,
            settings.kernels,
        )
        if runner.ahead:  # it can
            runner.ahead = ahead_pays(manifest, runner, limits, example)
        return runner

    served = ServedModel(bundle, codec, opener, limits, observer, budget)
    log.info("opened %s with %s on %s", title(served), served.runner.backend, served.runner.device)
    return served


def limits_of(settings: Settings) -> EngineLimits:
    """What an engine takes on."""
    return EngineLimits(
        settings.slots, settings.queue_seconds, settings.quantum_ms / 1000, settings.stall_seconds
    )


def budget_of(settings: Settings) -> Budget:
    """What all engines together may hold for those who read."""
    return Budget(settings.max_event_bytes, settings.max_held_bytes)
