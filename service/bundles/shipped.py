"""The bundles that come with Fathom, for whoever has none of their own yet."""

from __future__ import annotations

from pathlib import Path

from service.settings import Settings

PLACES = ("fathom_bundles", "bundles")  # beside our packages: where a wheel puts them, and in a checkout


def repository_of(settings: Settings) -> Path:
    """The folder of bundles to serve: the one that is set; else `bundles` here; else those that ship."""
    if "repository" in settings.model_fields_set or settings.repository.exists():
        return settings.repository
    beside = Path(__file__).parents[2]
    return next((beside / place for place in PLACES if (beside / place).is_dir()), settings.repository)
