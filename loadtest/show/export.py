"""Pictures as files: PNG, SVG and PDF."""

import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib as mpl

from loadtest.analyse.findings import Findings
from loadtest.show.pictures import draw_all
from loadtest.show.style import darkened


def save_pictures(
    findings: Findings, folder: Path, formats: Sequence[str]
) -> Iterator[tuple[str, str | None, str, str]]:
    """Draws every picture and saves it; yields its name, its level (None: all), and its SVG for light and
    for dark screens.

    Pictures of the first level are called by their name alone, those of others by their level too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    first: str | None = None
    # Fixed ids and no date: the same findings make the same file.
    with mpl.rc_context({"svg.hashsalt": "fathom", "svg.fonttype": "path"}):
        for picture in draw_all(findings):
            first = first or picture.load
            name = picture.name
            if picture.load not in (None, first):
                name += "-" + re.sub(r"[^0-9a-z.]+", "-", picture.load.lower()).strip("-")
            buffer = io.StringIO()
            picture.figure.savefig(buffer, format="svg", metadata={"Date": None})
            svg = buffer.getvalue()
            for kind in formats:
                file = folder / f"{name}.{kind}"
                if kind == "svg":
                    file.write_text(svg, encoding="utf-8")
                else:
                    date = {"CreationDate": None} if kind == "pdf" else None
                    picture.figure.savefig(file, dpi=160, facecolor="white", metadata=date)
            yield picture.name, picture.load, svg, darkened(svg)
