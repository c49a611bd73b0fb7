"""Which folder of bundles is served: the one that is set, the one that is here, or the one that ships."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.bundles.shipped import repository_of
from service.settings import read_settings

SHIPPED = Path(__file__).parents[3] / "bundles"


def test_in_an_empty_folder_it_is_the_one_that_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert repository_of(read_settings({})) == SHIPPED
    (tmp_path / "bundles").mkdir()
    assert repository_of(read_settings({})) == Path("bundles"), "which is empty, and the start says so"


def test_what_is_set_is_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert repository_of(read_settings({"repository": "bundles"})) == Path("bundles")
    monkeypatch.setenv("FATHOM_REPOSITORY", "mine")
    assert repository_of(read_settings({})) == Path("mine")
