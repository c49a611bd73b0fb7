"""What was asked once, when and how deep, to be asked again: a replay."""

import json
from dataclasses import dataclass
from pathlib import Path

from loadtest.drive.cases import Case
from loadtest.errors import LoadTestError


@dataclass(frozen=True)
class Recording:
    """Requests by their times: `due_s` from the first one's on, which problem, and how many steps."""

    due_s: tuple[float, ...]
    problems: tuple[int, ...]
    depths: tuple[int, ...]

    def played(self, speed: float, deepest: int) -> list[tuple[float, int, int]]:
        """(due, problem, max_steps) of every request, `speed` times as fast, no deeper than `deepest`."""
        return [
            (due / speed, problem, min(depth, deepest))
            for due, problem, depth in zip(self.due_s, self.problems, self.depths, strict=True)
        ]

    def length_s(self, speed: float) -> float:
        """How long the replay takes, a mean gap after the last request included."""
        count = len(self.due_s)
        return self.due_s[-1] / speed * count / (count - 1)


def captured_recording(cases: list[Case], path: Path) -> Recording:
    """The recording in what a server captured. Raises LoadTestError where its lines have no times."""
    if any(case.at_s is None or case.max_steps is None for case in cases):
        raise LoadTestError(
            f"{path} does not say when its problems were asked: replay what a server captured, "
            "or give it as --problems"
        )
    order = sorted(range(len(cases)), key=lambda place: cases[place].at_s or 0.0)
    begin = cases[order[0]].at_s or 0.0
    return _checked(
        Recording(
            tuple((cases[place].at_s or 0.0) - begin for place in order),
            tuple(order),
            tuple(cases[place].max_steps or 1 for place in order),
        ),
        path,
    )


def is_requests_file(path: Path) -> bool:
    """Whether a file is a report's requests.jsonl rather than what a server captured."""
    try:
        with path.open(encoding="utf-8") as file:
            first = json.loads(file.readline())
    except (OSError, ValueError) as error:
        raise LoadTestError(f"cannot replay {path}: {error}") from error
    return isinstance(first, dict) and {"due_s", "asked", "problem"} <= first.keys()


def report_recording(path: Path, problems: int) -> Recording:
    """The recording in a report's requests.jsonl: its cells one after the other, warm-ups included.

    `problems` is how many there are to ask now; those of the report are taken by their place among them.
    Raises LoadTestError naming the line.
    """
    due: list[float] = []
    chosen: list[int] = []
    depths: list[int] = []
    cell, offset, end = None, 0.0, 0.0
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            entry = json.loads(line)
            if entry["phase"] not in ("load", "sweep"):
                continue
            if entry["cell"] != cell:
                cell, offset = entry["cell"], end
            end = max(end, offset + float(entry["due_s"]))
            due.append(offset + float(entry["due_s"]))
            chosen.append(int(entry["problem"]) % problems)
            depths.append(int(entry["asked"]))
        except (ValueError, KeyError, TypeError) as error:
            raise LoadTestError(f"{path}:{number} is no request of a report: {error!r}") from error
    return _checked(Recording(tuple(due), tuple(chosen), tuple(depths)), path)


def _checked(recording: Recording, path: Path) -> Recording:
    if len(recording.due_s) < 2 or recording.due_s[-1] <= 0:
        raise LoadTestError(f"{path} has fewer than two requests at different times to replay")
    return recording
