"""What people see of an answer on their terminal."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from client import Answer
from service import console


def result(**more: Any) -> dict[str, Any]:
    ended = {"answer": True, "label": "yes", "steps": 3, "max_steps": 8, "halt_reason": "halted"}
    return {**ended, "probabilities": {"yes": 0.9, "no": 0.1}, **more}


def test_warnings_are_shown_below_the_table_with_their_problem(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    results = [result(), result(warnings=["it may be wrong"])]
    times = {"queue": 0.1, "compute": 0.9, "total": 1.0}
    whole = {"id": "a", "model": "m", "version": "1", "results": results, "usage": {"steps": 6}}
    console.answer(Answer.read({**whole, "timings_ms": times}))
    shown = capsys.readouterr().out
    assert "problem 1: it may be wrong" in shown
    assert "problem 0:" not in shown
