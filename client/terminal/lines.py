"""The lines of two files: problems to be asked, and their answers with what has come of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from client.answers import Model
from client.errors import Invalid
from client.terminal.written import from_json, from_words, is_json

Line = dict[str, Any]  # of the file of answers


@dataclass(frozen=True)
class Asked:
    """One line of a file of problems: the problem, and what its answer should be where the line says so."""

    problem: Any
    label: Any = None


@dataclass
class Tally:
    """What has come of a file so far."""

    answered: int = 0
    refused: int = 0
    failed: int = 0
    labelled: int = 0
    right: int = 0
    steps: int = 0

    @property
    def lines(self) -> int:
        """All of them."""
        return self.answered + self.refused + self.failed

    def count(self, line: Line) -> None:
        """Take in a line of answers, which may have been written by an earlier run."""
        refused, failed = "steps" not in line, line.get("halt_reason") == "error"
        self.refused += refused
        self.failed += failed
        self.answered += not refused and not failed
        self.labelled += "right" in line
        self.right += line.get("right") is True
        self.steps += line.get("steps", 0)

    def as_dict(self) -> dict[str, Any]:
        """For programs; accuracy is over the lines with a label, refused ones included."""
        thought = self.answered + self.failed
        return {
            "problems": self.lines,
            "answered": self.answered,
            "refused": self.refused,
            "failed": self.failed,
            "labelled": self.labelled,
            "right": self.right,
            "accuracy": self.right / self.labelled if self.labelled else None,
            "mean_steps": self.steps / thought if thought else None,
        }


def problems_in(path: Path, model: Model) -> Iterator[Asked]:
    """The problems of a file, one a line, as docs/cli.md has them; empty lines are none.

    Raises Invalid naming the line that is no problem, or the file that cannot be read.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _asked(line, f"{path}:{number}", model)
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"{path} cannot be read: {error}") from None


def _asked(line: str, where: str, model: Model) -> Asked:
    said = from_json(line, where) if is_json(line) else line
    if isinstance(said, str):
        try:
            return Asked(from_words(said, model))
        except Invalid as error:
            raise Invalid(f"{where}: {error}") from None
    if not isinstance(said, dict):
        raise Invalid(f"{where}: a line is one problem, an object or words")
    label = said.pop("label", None)
    said.pop("difficulty", None)
    problem = said.get("input", said)
    return Asked(from_words(problem, model) if isinstance(problem, str) else problem, label)


def resumed(file: IO[str], model: str) -> Tally:
    """What an earlier run has written into a file of answers, which is left at its end.

    A line that was cut off is removed. Raises Invalid where the file holds something else.
    """
    tally, end = Tally(), 0
    file.seek(0)
    while (text := file.readline()).endswith("\n"):
        line = from_json(text, file.name)
        if not isinstance(line, dict) or str(line.get("model")).partition("@")[0] != model.partition("@")[0]:
            raise Invalid(f"{file.name} does not hold answers of {model}: give another file to --out")
        tally.count(line)
        end = file.tell()
    file.seek(end)
    file.truncate()
    return tally
