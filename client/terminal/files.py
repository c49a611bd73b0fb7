"""A file of problems into a file of answers, with a bar while that takes, and what came of it."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from client.aio import AsyncClient
from client.errors import Invalid
from client.terminal.lines import Line, Tally, problems_in, resumed
from client.terminal.many import Sender


def answer_all(
    url: str,
    api_key: str | None,
    model: str,
    file: Path,
    out: Path | None,
    terms: Mapping[str, Any],
    as_json: bool,
) -> Tally:
    """Write a line for each problem of a file, and print what came of all of them.

    Without `out` the lines go to standard output, and there is nothing to go on from. Raises FathomError.
    """
    begun = time.monotonic()
    with _opened(out) as lines:
        tally = Tally() if out is None else resumed(lines, model)
        asyncio.run(_answer_all(AsyncClient(url, api_key, None, 0), model, file, lines, terms, tally))
    seconds = time.monotonic() - begun
    said = json.dumps({**tally.as_dict(), "seconds": seconds}) if as_json else _summary(tally, seconds)
    typer.echo(said, err=out is None)
    return tally


async def _answer_all(
    connected: AsyncClient, name: str, file: Path, out: IO[str], terms: Mapping[str, Any], tally: Tally
) -> None:
    done = tally.lines
    async with connected as client:
        model = await client.model(name)
        total = sum(1 for _ in problems_in(file, model))
        if done > total:
            raise Invalid(f"{out.name} has {done} answers, and {file} {total} problems: give another --out")
        with _progress() as progress:
            task = progress.add_task("", total=total, completed=done, right="")
            left = islice(problems_in(file, model), done, None)
            async for lines in Sender(client, model, terms).answers(left):
                _write(out, lines, tally)
                progress.update(task, completed=tally.lines, right=_right(tally))


def _write(out: IO[str], lines: list[Line], tally: Tally) -> None:
    for line in lines:
        out.write(json.dumps(line) + "\n")
        tally.count(line)
    out.flush()


def _summary(tally: Tally, seconds: float) -> str:
    """What came of a file, for people."""
    said = [f"{tally.lines} problems: {tally.answered} answered"]
    said += [f"{tally.refused} refused"] if tally.refused else []
    said += [f"{tally.failed} failed"] if tally.failed else []
    said += [f"right {right}"] if (right := _right(tally)) else []
    mean = tally.as_dict()["mean_steps"]
    said += [] if mean is None else [f"{mean:.1f} steps on average"]
    return ", ".join([*said, f"{seconds:.1f} s"])


def _right(tally: Tally) -> str:
    if not tally.labelled:
        return ""
    return f"{tally.right} of {tally.labelled} ({tally.right / tally.labelled:.1%})"


def _progress() -> Progress:
    """On standard error, and only where somebody sees it."""
    shown = Console(stderr=True)
    columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[right]}")
    return Progress(*columns, console=shown, disable=not shown.is_terminal)


@contextmanager
def _opened(out: Path | None) -> Iterator[IO[str]]:
    """To read what is there, and to write behind it. Raises Invalid where that cannot be."""
    if out is None:
        yield sys.stdout
        return
    try:
        out.touch()
        file = out.open("r+", encoding="utf-8")
    except OSError as error:
        raise Invalid(f"{out} cannot be written: {error.strerror or error}") from None
    with file:
        yield file
