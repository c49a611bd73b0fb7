"""The requests of the soak: all models, all forms of answers, lengths from a few tokens to 256."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

LONGEST = 254  # an expression counts its outermost brackets too
FORMS: list[tuple[str, dict[str, Any]]] = [
    ("plain", {}),
    ("list", {}),
    ("trace", {"include": ["probabilities", "scores", "trace"], "max_steps": 16}),
    ("latents json", {"latents": {"select": "full", "encoding": "json"}}),
    ("latents base64", {"latents": {"select": "full", "dtype": "float16"}}),
    ("traced latents", {"include": ["trace"], "latents": {"select": "readout"}, "max_steps": 16}),
    ("stream", {"stream": True, "max_steps": 24}),
    ("stream of latents", {"stream": True, "max_steps": 12, "latents": {"select": "pooled"}}),
]


@dataclass(frozen=True)
class Request:
    """A body, and what it is called in a complaint."""

    title: str
    content: dict[str, Any]

    @property
    def streams(self) -> bool:
        return "stream" in self.content

    @property
    def body(self) -> bytes:
        return json.dumps(self.content).encode()

    def deep(self) -> Request:
        """The same, but to the deepest step that there is."""
        terms = {"max_steps": 4096, "halting": {"criterion": "none"}}
        shallow = {"latents", "include"}  # 4,096 states would be refused
        kept = {name: value for name, value in self.content.items() if name not in shallow}
        return Request(self.title, kept | terms)


def requests(draw: random.Random, number: int) -> list[Request]:
    """So many different requests, the forms and the models in turn."""
    found = []
    for place in range(number):
        name, terms = FORMS[place % len(FORMS)]
        model = sorted(PROBLEMS)[place // len(FORMS) % len(PROBLEMS)]
        problem: Callable[[random.Random, int], Any] = PROBLEMS[model]
        if name == "list":
            given = [problem(draw, _length(draw)) for _ in range(draw.randint(2, 16))]
        else:
            given = problem(draw, _length(draw))
        content = {"model": model, "input": given, "max_steps": 32, **terms}
        found.append(Request(f"{name} of {model}", content))
    return found


def _length(draw: random.Random) -> int:
    """Every octave is as likely as the others."""
    return round(2 ** draw.uniform(1.5, 8))


def _graph(draw: random.Random, length: int) -> Any:
    edges = [[draw.randrange(length), draw.randrange(length)] for _ in range(2 * length)]
    return {"edges": edges, "nodes": list(range(length)), "source": 0, "target": length - 1}


def _expression(draw: random.Random, length: int) -> Any:
    text = draw.choice("TF")
    while len(text) + 6 <= min(length, LONGEST):
        text = f"({text}){draw.choice('&|')}{draw.choice('TF')}" if draw.random() < 0.3 else f"!{text}|T&F"
    return {"expression": text}


def _family(draw: random.Random, length: int) -> Any:
    people = max(2, min(length, LONGEST))
    facts = [f"P{draw.randrange(child)} is the parent of P{child}" for child in range(1, people)]
    draw.shuffle(facts)
    return {"facts": facts, "query": f"P0 is the grandparent of P{people - 1}"}


PROBLEMS = {"graph": _graph, "logic": _expression, "text": _family}
