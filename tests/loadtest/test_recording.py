"""Recordings: what a server captured, and what a report sent."""

import json
from pathlib import Path

import pytest

from loadtest.drive.cases import read_cases
from loadtest.drive.recording import captured_recording, is_requests_file, report_recording
from loadtest.errors import LoadTestError


def write(file: Path, lines: list[dict[str, object]]) -> Path:
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def test_a_capture_is_played_by_its_times_and_faster_by_a_factor(tmp_path: Path) -> None:
    lines = [
        {"input": {"n": n}, "model": "m", "max_steps": n, "at": at, "halting": {"criterion": "kl"}}
        for n, at in ((5, 101.0), (9, 100.0), (2, 104.0))
    ]
    file = write(tmp_path / "captured", lines)  # type: ignore[arg-type]
    cases = read_cases(file, "m")
    assert not is_requests_file(file)
    recording = captured_recording(cases, file)
    assert recording.played(2.0, deepest=8) == [(0.0, 1, 8), (0.5, 0, 5), (2.0, 2, 2)]
    assert recording.length_s(2.0) == 3.0
    assert cases[0].terms == {"halting": {"criterion": "kl"}}


def test_a_report_is_played_cell_after_cell_without_what_it_sent_alone_or_to_probe(tmp_path: Path) -> None:
    entries = [("alone", 0, 0.0), ("load", 1, 0.0), ("load", 1, 2.0), ("load", 2, 1.0), ("probe", 3, 0.5)]
    lines: list[dict[str, object]] = [
        {"phase": phase, "cell": cell, "due_s": due, "problem": 300, "asked": 4}
        for phase, cell, due in entries
    ]
    file = write(tmp_path / "requests.jsonl", lines)
    assert is_requests_file(file)
    assert report_recording(file, 256).played(1.0, 64) == [(0.0, 44, 4), (2.0, 44, 4), (3.0, 44, 4)]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"input": {"n": 1}}, "does not say when"),
        ({"input": {"n": 1}, "max_steps": 2, "at": 1}, "fewer than two"),
    ],
)
def test_what_cannot_be_replayed_says_why(tmp_path: Path, line: dict[str, object], words: str) -> None:
    file = write(tmp_path / "captured", [line])
    with pytest.raises(LoadTestError, match=words):
        captured_recording(read_cases(file), file)
    with pytest.raises(LoadTestError, match="cannot replay"):
        is_requests_file(tmp_path / "none")
