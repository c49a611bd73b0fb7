"""What the commands print: tables for people, lines of JSON for programs, arrays into a file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from client.answers import Answer, Model, Result, Shown, Step, TraceStep
from client.errors import Invalid
from client.tensors import Array

LONGEST_LIST = 60  # characters of a list of answers, one per token


def to_people() -> Console:
    """Standard output, as it is now."""
    return Console(highlight=False)


def answer(whole: Answer, shows_scores: bool = False) -> None:
    """A whole answer: a row for each problem, and below what some of them have beside it."""
    console = to_people()
    table = Table("problem", "answer", "label", "probability", "steps", "stopped by")
    for index, result in enumerate(whole.results):
        table.add_row(
            str(index),
            _answer(result),
            _clipped(_label(result)),
            _share(result),
            f"{result.steps} of {result.max_steps}",
            result.halt_reason,
        )
    console.print(table)
    for index, result in enumerate(whole.results):
        for line in _beside(result, shows_scores):
            console.print(f"problem {index}: {line}", style="dim", markup=False, soft_wrap=True)
        for warning in result.warnings or ():
            console.print(f"problem {index}: {warning}", style="yellow", markup=False)
        if result.error is not None:
            console.print(f"problem {index}: {result.error}", style="red", markup=False)
    console.print(f"{whole.model}@{whole.version}, {whole.timings.total:.1f} ms, id {whole.id}", style="dim")


def step(taken: Step, shows_scores: bool) -> None:
    """One step of a stream, in a line."""
    of = f"problem {taken.index}" + ("" if taken.sample is None else f", sample {taken.sample}")
    to_people().print(f"{of}  {_step(taken, shows_scores)}", markup=False, soft_wrap=True)


def models(served: Iterable[Model]) -> None:
    """Models as a server lists them, in its order."""
    table = Table("model", "task", "steps", "at most", "halts on", "runs on", "is")
    for model in served:
        halting, steps = model.halting, model.steps
        table.add_row(
            f"{model.name}@{model.version}",
            model.task,
            str(steps["default"]),
            str(steps["limit"]),
            f"{halting['criterion']} {halting['threshold']:g}",
            f"{model.backend}, {model.device}",
            model.status,
        )
    to_people().print(table)


def line(content: Mapping[str, Any]) -> None:
    """One line of JSON, at once."""
    print(json.dumps(content), flush=True)  # noqa: T201


def save(whole: Answer, path: Path) -> None:
    """The states of every problem as arrays in one .npz file, in the names that docs/cli.md has.

    Raises Invalid where the file cannot be written.
    """
    arrays: dict[str, Array] = {}
    for index, result in enumerate(whole.results):
        arrays |= _named(f"problem_{index}", result)
        steps = [_named(f"problem_{index}.steps", taken) for taken in result.trace or ()]
        for name in steps[0] if steps else ():
            arrays[name] = np.stack([taken[name] for taken in steps])
    try:
        with path.open("wb") as file:  # savez would add its own ending to a name without one
            np.savez_compressed(file, allow_pickle=False, **arrays)
    except OSError as error:
        raise Invalid(f"{path} cannot be written: {error.strerror or error}") from None


def without_latents(whole: Answer) -> dict[str, Any]:
    """An answer whose states are in a file of their own."""
    content = whole.as_dict()
    for result in content["results"]:
        for shown in (result, *result.get("trace", ())):
            shown.pop("latents", None)
    return content


def _named(name: str, shown: Shown) -> dict[str, Array]:
    match shown.latents:
        case None:
            return {}
        case Mapping() as several:
            return {f"{name}.{state}": array for state, array in several.items()}
        case alone:
            return {name: alone}


def _beside(result: Result, shows_scores: bool) -> Iterator[str]:
    """What was asked for beside an answer, a line each."""
    if shows_scores and result.scores is not None:
        yield _scores(result)
    if result.answer_entropy is not None:
        yield f"entropy of the answers over steps {json.dumps(result.answer_entropy)}"
    if result.samples is not None:
        votes = ", ".join(f"{label} {count}" for label, count in result.samples.votes.items())
        yield f"samples {votes}; {result.samples.agreement:.1%} agree"
    if result.effect is not None:
        changed = "another answer" if result.effect.answer_changed else "the same answer"
        kl = "" if result.effect.kl is None else f", KL {result.effect.kl:.4g} nats"
        yield f"with the interventions, {changed}{kl}"
    for taken in result.trace or ():
        yield _step(taken, shows_scores)


def _step(taken: TraceStep, shows_scores: bool) -> str:
    scores = _scores(taken) if shows_scores else ""
    return "  ".join(filter(None, (f"step {taken.step:>4}", _clipped(_label(taken)), _share(taken), scores)))


def _answer(result: Result) -> str:
    output = result.output
    return _clipped(json.dumps(result.answer) if output is None else f"{output.dtype} {list(output.shape)}")


def _label(shown: Shown) -> str:
    return " ".join(shown.label) if isinstance(shown.label, list) else shown.label or ""


def _clipped(text: str) -> str:
    return text if len(text) <= LONGEST_LIST else f"{text[: LONGEST_LIST - 1]}…"


def _share(shown: Shown) -> str:
    """The probability of an answer; none where there are several, or no answer."""
    if isinstance(shown.label, str) and isinstance(shown.probabilities, Mapping):
        return f"{shown.probabilities[shown.label]:.4f}"
    return ""


def _scores(shown: Shown) -> str:
    scores = (shown.scores or {}).items()
    return "  ".join(f"{name} {value:.4g}" for name, value in scores if value is not None)
