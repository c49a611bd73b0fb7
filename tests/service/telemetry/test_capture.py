"""Captured requests: what is written, how much of it at most, and that a load test takes it as it is."""

from __future__ import annotations

import json
import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from loadtest.drive.budgets import parse_mix
from loadtest.drive.cases import read_cases
from loadtest.errors import LoadTestError
from service.errors import StartupError
from service.telemetry.capture import MOST_WAITING, Capture
from tests.service.servers import chain, counting_bundle, serving


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_request_is_a_line_per_problem_with_its_terms_and_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "captured.jsonl"
    with serving(capture_file=str(file), api_keys="hush") as server:
        server.client.headers.update({"authorization": "Bearer hush", "x-request-id": "secret"})
        halting = {"criterion": "entropy", "threshold": 0.2}
        terms = {"max_steps": 7, "min_steps": 2, "halting": halting, "deadline_ms": 5000.0}
        assert server.infer([chain(1), chain(2)], **terms, include=["scores"]).is_success
        assert server.infer(chain(3), stream=True).is_success
        assert server.infer("nothing").status_code == 422
    captured = lines(file)
    times = [line.pop("at") for line in captured]
    assert times == sorted(times)
    assert times[0] == times[1] > 1.7e9  # seconds since 1970, of the request
    assert captured == [
        {"input": chain(1), "model": "graph", **terms},
        {"input": chain(2), "model": "graph", **terms},
        {"input": chain(3), "model": "graph", "max_steps": 16},
    ]
    assert os.stat(file).st_mode & 0o777 == 0o600


def test_a_load_test_takes_the_file_as_it_is_with_the_steps_of_each_line(tmp_path: Path) -> None:
    file = tmp_path / "captured.jsonl"
    with serving(counting_bundle("graph"), counting_bundle("other"), capture_file=str(file)) as server:
        server.infer(chain(1), model="graph", max_steps=3)
        server.infer(chain(2), model="other", max_steps=30)
        server.infer(chain(4), model="graph@1", max_steps=9)
    problems = read_cases(file, "graph@1")
    assert [(problem.input, problem.max_steps) for problem in problems] == [(chain(1), 3), (chain(4), 9)]
    assert len(read_cases(file)) == 3
    mix = parse_mix("recorded", 8)
    assert [mix.draw(random.Random(0), problem.max_steps) for problem in problems] == [3, 8]
    assert mix.draw(random.Random(0)) == 8
    with pytest.raises(LoadTestError, match="none for text"):
        read_cases(file, "text")


def test_a_share_of_the_requests_is_captured(tmp_path: Path) -> None:
    capture = Capture(tmp_path / "some", 0.25, 2**20, random.Random(1))
    offered = 0
    while offered < 4000:
        capture.offer({"input": {"n": offered}}, 1)
        offered += 1
        if offered % 100 == 0:  # the thread keeps up
            while not capture.waiting.empty():
                pass
    capture.close()
    assert capture.left_out == 0
    assert 850 < len(lines(tmp_path / "some")) < 1150


def test_the_files_stay_within_their_size_and_hold_the_newest(tmp_path: Path) -> None:
    file = tmp_path / "captured"
    for run in range(2):  # the second goes on where the first has ended
        capture = Capture(file, 1.0, 4000)
        for number in range(500):
            while capture.waiting.full():
                pass
            capture.offer({"input": {"n": 500 * run + number}}, 1)
        capture.close()
        older = file.with_name("captured.1")
        assert file.stat().st_size + older.stat().st_size <= 4000
        numbers = [line["input"]["n"] for line in (*lines(older), *lines(file))]
        assert numbers == list(range(500 * (run + 1) - len(numbers), 500 * (run + 1)))


def test_requests_that_come_faster_than_they_are_written_are_left_out_and_nobody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun, may_write = threading.Event(), threading.Event()

    def slow(*_: object) -> None:
        begun.set()
        assert may_write.wait(20)

    monkeypatch.setattr(Capture, "_write", slow)
    capture = Capture(tmp_path / "captured", 1.0, 2**20)
    capture.offer({"input": {}}, 1)
    assert begun.wait(20)
    for _ in range(MOST_WAITING + 10):
        capture.offer({"input": {}}, 1)
    assert capture.left_out == 10
    capture.offer({"input": {}}, 2**30)
    assert capture.left_out == 11
    may_write.set()
    capture.close()
    assert "11 requests came too fast" in caplog.text
    assert capture.waiting_bytes == 0


def test_a_disk_that_is_full_ends_the_capture_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried: list[object] = []

    def full(*_: object) -> None:
        tried.append(_)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Capture, "_write", full)
    with serving(capture_file=str(tmp_path / "captured")) as server:
        assert server.infer(chain(2)).is_success
        assert server.infer(chain(2)).is_success
    assert len(tried) == 1
    assert "No space left on device; no more is captured" in caplog.text


def test_a_file_that_cannot_be_written_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"capture_file: .*No such file"):
        Capture(tmp_path / "none" / "captured", 1.0, 1000)
