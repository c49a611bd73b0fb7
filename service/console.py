"""What the command line shows: tables for people, JSON where the output goes to a program."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from client.answers import Answer, Result, Shown
from client.blocking import Stream


def answer(whole: Answer) -> None:
    """A whole answer."""
    if _for_programs(whole.as_dict()):
        return
    table = Table("problem", "answer", "label", "probability", "steps", "stopped by")
    for index, result in enumerate(whole.results):
        table.add_row(
            str(index),
            _answer(result),
            str(result.label),
            _share(result),
            f"{result.steps} of {result.max_steps}",
            result.halt_reason,
        )
    console = Console(highlight=False)
    console.print(table)
    for index, result in enumerate(whole.results):
        for warning in result.warnings or ():
            console.print(f"problem {index}: {warning}", style="yellow")
    console.print(f"{whole.model}@{whole.version}, {whole.timings.total:.1f} ms", style="dim")


def stream(steps: Stream) -> None:
    """The steps of a stream as they come, then the whole answer."""
    console = Console(highlight=False)
    for step in steps:
        if not _for_programs({"event": "step", **step.as_dict()}):
            console.print(f"problem {step.index}  step {step.step:>4}  {step.label}  {_share(step)}")
    assert steps.answer is not None, "a stream without an end raises"
    if not _for_programs({"event": "done", **steps.answer.as_dict()}):
        answer(steps.answer)


def models(described: list[dict[str, Any]]) -> None:
    """Models by name and version, from their manifests or a server's list."""
    if _for_programs({"models": described}):
        return
    table = Table("model", "version", "task", "steps", "limit", "halting", "runs on")
    for model in described:
        steps, halting = model["steps"], model["halting"]
        table.add_row(
            model["name"],
            model["version"],
            model["task"],
            str(steps["default"]),
            str(steps["limit"]),
            f"{halting['criterion']} {halting['threshold']:g}",
            f"{model['backend']}, {model['device']}" if "backend" in model else "",
        )
    Console().print(table)


def _for_programs(content: dict[str, Any]) -> bool:
    """Write one line of JSON where nobody reads along; whether that was so."""
    if sys.stdout.isatty():
        return False
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()
    return True


def _answer(result: Result) -> str:
    output = result.output
    return json.dumps(result.answer) if output is None else f"{output.dtype} {list(output.shape)}"


def _share(shown: Shown) -> str:
    """The probability of an answer; none where there are several, or no answer."""
    if isinstance(shown.label, str) and isinstance(shown.probabilities, Mapping):
        return f"{shown.probabilities[shown.label]:.4f}"
    return ""
