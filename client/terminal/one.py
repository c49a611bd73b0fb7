"""One request, as the command line has it: from a problem's words to what is shown of its answer."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from client.answers import Answer
from client.blocking import Client, Stream
from client.terminal import console
from client.terminal.live import Bounds, watched
from client.terminal.written import read


def ask(
    client: Client,
    model: str,
    words: str | None,
    terms: dict[str, Any],
    as_json: bool,
    stream: bool | None,
    latents: Path | None,
) -> bool:
    """Print an answer; whether every problem has one. stream None: on a terminal, where nothing hinders it.

    Raises FathomError.
    """
    problem = None if words is None else read(sys.stdin.read() if words == "-" else words, client, model)
    terminal = console.to_people().is_terminal and not as_json
    whole = "trace" in terms.get("include", ()) or latents is not None
    if stream or (stream is None and terminal and not whole):
        answer = _streamed(client, model, problem, terms, terminal, as_json)
    else:
        answer = client.infer(model, problem, **terms)
    if latents is not None:
        console.save(answer, latents)
    if as_json:
        content = answer.as_dict() if latents is None else console.without_latents(answer)
        console.line({"event": "done", **content} if stream else content)
    else:
        console.answer(answer, "scores" in terms.get("include", ()))
    return all(result.halt_reason != "error" for result in answer.results)


def _streamed(
    client: Client, model: str, problem: Any, terms: dict[str, Any], terminal: bool, as_json: bool
) -> Answer:
    """The steps as they are taken: drawn, in lines of words, or in lines of JSON."""
    if terminal:
        bounds = _bounds(client, model, terms)
        terms = {"include": ["probabilities", "scores"], **terms}
    with client.stream(model, problem, **terms) as steps:
        if terminal:
            watched(steps, bounds, console.to_people())
        for step in steps:
            if as_json:
                console.line({"event": "step", **step.as_dict()})
            else:
                console.step(step, "scores" in terms.get("include", ()))
    return _end(steps)


def _end(steps: Stream) -> Answer:
    assert steps.answer is not None, "a stream without an end raises"
    return steps.answer


def _bounds(client: Client, model: str, terms: Mapping[str, Any]) -> Bounds:
    """What will end the thought, as far as it is known before: a rule that was asked for, or the model's."""
    known = client.model(model)
    rule = terms.get("halting", known.halting)
    budget, criterion = terms.get("max_steps", known.steps["default"]), rule.get("criterion")
    usual = known.more.get("rules", {}).get(criterion, {})
    threshold = rule.get("threshold", usual.get("default"))
    if criterion is None or threshold is None:
        return Bounds(budget)
    return Bounds(budget, criterion, f"halts {usual.get('halts', 'at')} {threshold:g}")
