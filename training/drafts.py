"""Results that are whole or not there: written beside their place, and moved into it at the end."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from model.bundle import ASIDE, DRAFT
from training.checkpoint import unwritable


@contextlib.contextmanager
def drafted(folder: Path) -> Iterator[Path]:
    """A folder to write files into, which come to stand in `folder` once all of them are written.

    Other files of `folder` stay. Whatever stops the writing leaves it as it was. Raises RunError at once
    where it cannot be written: nobody measures for an hour to learn that.
    """
    draft, new = folder / DRAFT, not folder.exists()
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        yield draft
        for file in sorted(draft.iterdir()):
            os.replace(file, folder / file.name)
    except OSError as error:
        raise unwritable(folder, error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        if new:
            with contextlib.suppress(OSError):  # it holds what has been written
                folder.rmdir()


def swap(draft: Path, place: Path) -> None:
    """Put a folder in another's place; should that fail or be stopped, the other one is still there."""
    aside = place.with_name(f"{place.name}{ASIDE}")
    try:
        if place.exists():
            shutil.rmtree(aside, ignore_errors=True)
            os.replace(place, aside)
        os.replace(draft, place)
    except BaseException:
        if aside.exists() and not place.exists():
            os.replace(aside, place)
        raise
    shutil.rmtree(aside, ignore_errors=True)
