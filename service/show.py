"""What the command line shows: tables for people, JSON where the output goes to a program."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table


def answer(content: dict[str, Any]) -> None:
    """A whole answer."""
    if _for_programs(content):
        return
    table = Table("problem", "answer", "label", "probability", "steps", "stopped by")
    for index, result in enumerate(content["results"]):
        table.add_row(
            str(index),
            _answer(result),
            str(result["label"]),
            _share(result),
            f"{result['steps']} of {result['max_steps']}",
            result["halt_reason"],
        )
    console = Console(highlight=False)
    console.print(table)
    for index, result in enumerate(content["results"]):
        for warning in result.get("warnings", ()):
            console.print(f"problem {index}: {warning}", style="yellow")
    console.print(
        f"{content['model']}@{content['version']}, {content['timings_ms']['total']:.1f} ms", style="dim"
    )


def events(stream: Iterable[tuple[str, dict[str, Any]]]) -> None:
    """The steps of a stream as they come, then the whole answer."""
    console = Console(highlight=False)
    for event, data in stream:
        if _for_programs({"event": event, **data}):
            continue
        if event == "done":
            answer(data)
        else:
            console.print(f"problem {data['index']}  step {data['step']:>4}  {data['label']}  {_share(data)}")


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


def _answer(result: dict[str, Any]) -> str:
    output = result.get("output")
    return f"{output['dtype']} {output['shape']}" if output else json.dumps(result["answer"])


def _share(shown: dict[str, Any]) -> str:
    """The probability of an answer; none where there are several, or no answer."""
    label, probabilities = shown["label"], shown.get("probabilities")
    return f"{probabilities[label]:.4f}" if isinstance(label, str) and probabilities else ""
