"""Problems to ask about: small generators for the three tasks, and JSONL files of the caller's own.

The generators know the true answer, so a load test measures accuracy beside latency. They are written for
load, not for training: small, balanced, and free of the give-away that an unreachable target has no edge
into it.
"""

import itertools
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadtest.errors import LoadTestError

Label = bool | int | str | list[Any]  # a list where every token has an answer
JsonObject = dict[str, Any]

TERMS = ("min_steps", "halting", "deadline_ms")
CAPTURED = {"input", "model", "max_steps", "at", *TERMS}  # beside a label

_NAMES = (
    "Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gwen", "Hugo", "Iris", "Jack",
    "Kira", "Liam", "Mona", "Nils", "Olga", "Paul", "Rosa", "Sven", "Tess", "Vera",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """One problem as the server takes it, and its true answer where that is known."""

    input: JsonObject
    label: Label | None = None
    max_steps: int | None = None  # its own budget, for the mix `recorded`
    at_s: float | None = None  # when it was asked, on the recording server's clock
    terms: JsonObject = field(default_factory=dict)  # other fields of its request, sent again by a replay


def generate(task: str, count: int, difficulty: tuple[int, int], seed: int) -> list[Case]:
    """`count` labelled problems of `task`, difficulties drawn evenly from the closed range `difficulty`.

    Raises LoadTestError for a task without a generator.
    """
    makers: dict[str, Callable[[random.Random, int], Case]] = {
        "graph": graph_problem,
        "logic": logic_problem,
        "text": text_problem,
    }
    if task not in makers:
        known = ", ".join(sorted(makers))
        raise LoadTestError(
            f"there is no problem generator for task {task!r} (only {known}): give --problems FILE.jsonl"
        )
    draw = random.Random(f"{task}:{seed}")
    return [makers[task](draw, draw.randint(*difficulty)) for _ in range(count)]


def graph_problem(draw: random.Random, hops: int) -> Case:
    """Is `target` reachable from `source`? Reachable ones are exactly `hops` edges apart.

    Unreachable ones keep edges into the target and as many edges in all: the nodes are cut in two sides, the
    source's and the target's, and no edge leads from the first to the second.
    """
    size = draw.randint(hops + 2, hops + 8)
    nodes = [f"n{i}" for i in range(size)]
    draw.shuffle(nodes)
    source, target = nodes[0], nodes[hops]
    reachable = draw.random() < 0.5
    path = list(itertools.pairwise(nodes[: hops + 1]))
    # A node's layer is its distance from the source along the path; an edge may climb one layer at most, so
    # that none shortens the way. Nodes off the path sit on a layer of their own choosing.
    layer = {node: (i if i <= hops else draw.randint(0, hops)) for i, node in enumerate(nodes)}
    edges = set(path)
    for _ in range(draw.randint(size // 2, 2 * size)):
        tail, head = draw.sample(nodes, 2)
        if layer[head] <= layer[tail] + 1:
            edges.add((tail, head))
    if not reachable:
        cut = draw.randint(1, hops)  # layers under the cut are the source's side
        crossing = {(tail, head) for tail, head in edges if layer[tail] < cut <= layer[head]}
        edges = (edges - crossing) | {(head, tail) for tail, head in crossing}
        far = [node for node in nodes if layer[node] >= cut and node != target]
        if far:
            edges.add((draw.choice(far), target))
    listed = [[tail, head] for tail, head in sorted(edges)]
    draw.shuffle(listed)
    return Case({"edges": listed, "source": source, "target": target}, reachable)


def logic_problem(draw: random.Random, nesting: int) -> Case:
    """The value of a Boolean expression nested `nesting` brackets deep, no longer than a server takes."""
    if not 0 <= nesting <= 32:
        raise LoadTestError("a logic problem nests 0 to 32 brackets: change --difficulty")
    while True:
        text, value = _expression(draw, nesting)
        if len(text) <= 250:
            return Case({"expression": text}, value)


def _expression(draw: random.Random, nesting: int) -> tuple[str, bool]:
    if nesting == 0:
        text, value = draw.choice((("T", True), ("F", False)))
    else:
        sibling = min(nesting - 1, int(draw.expovariate(1.0)))  # siblings are mostly shallow
        sides = [_expression(draw, nesting - 1), _expression(draw, sibling)]
        draw.shuffle(sides)
        (left, left_value), (right, right_value) = sides
        sign = draw.choice("&|")
        text = f"({left}{sign}{right})"  # always in parentheses: precedence cannot change the value
        value = (left_value and right_value) if sign == "&" else (left_value or right_value)
    return (f"!{text}", not value) if draw.random() < 0.25 else (text, value)


def text_problem(draw: random.Random, chain: int) -> Case:
    """Is the last person of a chain of `chain` facts, up some generations and then down some, a
    grandparent (say) of the first? Wrong questions are off by two or four generations, as only a whole
    chain can tell.
    """
    if not 1 <= chain <= 16 or chain + 1 > len(_NAMES):
        raise LoadTestError("a text problem chains 1 to 16 facts: change --difficulty")
    people = draw.sample(_NAMES, min(chain + 1 + 4, len(_NAMES)))
    line, others = people[: chain + 1], people[chain + 1 :]
    ups = draw.randint(0, chain)
    facts = [
        _fact(draw, older=higher, younger=lower)
        for i in range(chain)
        for higher, lower in [(line[i + 1], line[i]) if i < ups else (line[i], line[i + 1])]
    ]
    facts += [_fact(draw, older, younger) for older, younger in zip(others[::2], others[1::2], strict=False)]
    draw.shuffle(facts)
    true = draw.random() < 0.5
    generations = 2 * ups - chain
    if not true:
        generations += draw.choice([by for by in (-4, -2, 2, 4) if abs(generations + by) <= 16])
    query = f"{line[-1]} is the {relation(generations)} of {line[0]}?"
    return Case({"facts": facts, "query": query}, true)


def _fact(draw: random.Random, older: str, younger: str) -> str:
    return (
        f"{older} is the parent of {younger}" if draw.random() < 0.5 else f"{younger} is the child of {older}"
    )


def relation(generations: int) -> str:
    """The name of one who stands `generations` above (below, if negative): sibling, parent,
    great-grandchild, …
    """
    if generations == 0:
        return "sibling"
    stem = "parent" if generations > 0 else "child"
    distance = abs(generations)
    return stem if distance == 1 else "great-" * (distance - 2) + "grand" + stem


def read_cases(path: Path, model: str | None = None) -> list[Case]:
    """Problems from a JSONL file: `{"input": {…}, "label": …}` a line, or the input's own fields beside
    `label`.

    A server's captured requests have more beside `input`; lines for another `model` than this one are left
    out. Raises LoadTestError naming the file and the line.
    """
    wanted = model and model.partition("@")[0]
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LoadTestError(f"cannot read the problems file {path}: {error}") from error
    parsed = [_parse(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    problems = [problem for problem, of in parsed if of is None or wanted is None or of == wanted]
    if parsed and not problems:
        raise LoadTestError(f"the problems file {path} has none for {wanted}: give --model")
    if not problems:
        raise LoadTestError(f"the problems file {path} is empty: give one JSON object a line")
    return problems


def _parse(path: Path, number: int, line: str) -> tuple[Case, str | None]:
    """The problem of a line, and the model that it is for where it says so."""
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise LoadTestError(f"{path}:{number} is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise LoadTestError(f"{path}:{number} must be a JSON object, not {type(fields).__name__}")
    label = fields.pop("label", None)
    fields.pop("difficulty", None)
    if label is not None and not isinstance(label, bool | int | str | list):
        raise LoadTestError(
            f"{path}:{number}: a label is true, false, a class number, a word, or a list of these"
        )
    captured = "input" in fields and set(fields) <= CAPTURED
    problem = fields["input"] if captured else fields
    said = fields if captured else {}
    max_steps, model, at = said.get("max_steps"), said.get("model"), said.get("at")
    if max_steps is not None and (type(max_steps) is not int or max_steps < 1):
        raise LoadTestError(f"{path}:{number}: max_steps is a whole number of at least 1")
    if not isinstance(problem, dict) or not problem:
        raise LoadTestError(f"{path}:{number}: the problem must be a JSON object with fields")
    if at is not None and type(at) not in (int, float):
        raise LoadTestError(f"{path}:{number}: at is a time in seconds")
    terms = {name: said[name] for name in TERMS if name in said}
    return Case(problem, label, max_steps, at, terms), model
