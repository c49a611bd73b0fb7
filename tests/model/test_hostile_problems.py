"""Hostile problems, up to the size of a body: encoded or refused, soon, and nobody else is held up."""

from __future__ import annotations

import time
from typing import Any

import pytest

from model.codecs import Codec, CodecLimits
from model.codecs.graph import GraphCodec
from model.codecs.logic import LogicCodec
from model.codecs.sentences import LONGEST
from model.codecs.tensors import TensorsCodec
from model.codecs.text import TextCodec
from model.codecs.words import WordsCodec
from model.errors import RequestError
from model.manifest import Manifest
from tests.pauses import longest_pause

BODY = 2**20  # characters of a body
CPU_SECONDS, PAUSE_SECONDS = 1.0, 0.1
ONE_HASH = 2**61 - 1  # numbers that differ by multiples of it have one hash
GOOD = "Ann is the parent of Bob"


def text(facts: Any, query: str = GOOD) -> dict[str, Any]:
    return {"facts": facts, "query": query}


def graph(edges: Any, **more: Any) -> dict[str, Any]:
    return {"edges": edges, "source": 0, "target": 1, **more}


def at_the_cap(head: str, part: str, tail: str) -> str:
    return head + part * ((LONGEST - len(head) - len(tail)) // len(part)) + tail


SENTENCES = [
    at_the_cap("A is the ", "great-", "parent xx B"),
    at_the_cap("A is the ", "great ", "parent xx B"),
    at_the_cap("", "A is the ", ""),
    at_the_cap("A ", "is the great ", "of"),
    at_the_cap("A ", "is the parent of ", "B"),
    at_the_cap("", "\u0315\u0300", ""),
    at_the_cap("", "\uac00\u0301", ""),
    at_the_cap("A", " ", "is the parent of B"),
    at_the_cap("A is the parent of B", ". ", "."),
]
TEXTS = [
    text(["A is the " + "great-" * 20_000 + "parent xx B"]),
    text(["\u0315\u0300" * 200_000]),
    text([GOOD], "A is the " * (BODY // 9)),
    *(text(part * (BODY // len(part))) for part in (". ", ";", "\n", " \n", "is the ", "Jr. is the ", "!")),
    text("Jr." + " " * BODY + "is"),
    text(("Jr." + " " * 500 + "is the ") * (BODY // 510)),
    text("Jr. is" + " " * BODY),
    text("\u0300" * BODY),
    *(text([sentence] * (BODY // LONGEST)) for sentence in SENTENCES),
    *(text((sentence + "\n") * (BODY // LONGEST)) for sentence in SENTENCES),
    text([f"{'x' * 470}{place} is the parent of {'y' * 470}{place}" for place in range(BODY // LONGEST)]),
    text([f"P{place} is the {'great-' * 14}grandparent of Q{place}" for place in range(4096)]),
    text([f"P{place % 200} is the parent of P{place % 200 + 1}" for place in range(40_000)]),
    text([f"P{place % 200} is the parent of P{place % 200 + 1}" for place in range(4096)]),
    text([""] * (BODY // 3)),
    text([{}] * (BODY // 3)),
    {"facts": GOOD, "query": GOOD, "x" * BODY: 1},
]
GRAPHS = [
    graph([[place * ONE_HASH, (place + 1) * ONE_HASH] for place in range(4096)]),
    graph([[2 * place * ONE_HASH % 2**63, 1] for place in range(4096)]),
    graph([[place % 4 * ONE_HASH, 0] for place in range(4096)]),
    graph([["x" * (BODY // 2), "y" * (BODY // 2)]]),
    graph([], nodes=["x" * BODY, "x" * BODY]),
    graph([[0, 1]], nodes=[1], source="x" * BODY),
    graph([[f"{'x' * 240}{place}", f"{'y' * 240}{place}"] for place in range(2048)]),
    graph([[0, 10**4000]] * 200),
    graph([[0, 1]] * (BODY // 6)),
    graph([[]] * (BODY // 3)),
    graph([{}] * (BODY // 3)),
    graph([[0, 1]], nodes=list(range(BODY // 7))),
    graph([[0, 1]], **{"x" * BODY: 1}),
]
LOGICS: list[dict[str, Any]] = [
    *(
        {"expression": part * (BODY // len(part))}
        for part in ("T", "T ", " ", "(", "!", "\u2003", "\u0300", "T&")
    ),
    {"expression": " " * (2**16 - 1) + "T"},
    {"expression": "T" + " " * (2**16 - 1)},
    {"expression": "( " * 2**15},
    {"expression": "T", "x" * BODY: 1},
]
SMALL: dict[str, Any] = {"x": [[0.5]], "ids": [1], "real": [True]}
WIDE = {  # the longest axes there are
    "name": "wide",
    "version": "1",
    "task": "wide",
    "codec": {"name": "tensors"},
    "readout": {"kind": "tensor"},
    "inputs": [
        {"name": "x", "dtype": "float32", "shape": ["B", "N", "M"]},
        {"name": "ids", "dtype": "int64", "shape": ["B", "N"]},
        {"name": "real", "dtype": "bool", "shape": ["B", "N"]},
    ],
    "state": [{"name": "state", "dtype": "float32", "shape": ["B", "N", 1]}],
    "logits": {"name": "logits", "dtype": "float32", "shape": ["B"]},
    "axes": {"N": {"max": 2**20}, "M": {"max": 2**20}},
    "steps": {"default": 1, "limit": 1},
    "example": {"tensors": SMALL},
    "files": {},
}


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def packed(shape: Any, data: Any, dtype: Any = "float32") -> dict[str, Any]:
    return {"shape": shape, "dtype": dtype, "data": data}


TENSORS: list[dict[str, Any]] = [
    *(
        {"tensors": {**SMALL, name: value}}
        for name, value in (
            ("x", nested(BODY // 2)),
            ("x", [[]] * (BODY // 3)),
            ("x", [[0]] * (BODY // 4)),
            ("x", [[0] * (BODY // 2)]),
            ("x", [*[[0]] * (BODY // 4), [0, 0]]),
            ("x", [*[[0]] * (BODY // 4), 0]),
            ("x", [[1e308] * (BODY // 6)]),
            ("x", [[10**4000] * (BODY // 4000)]),
            ("x", "x" * BODY),
            ("x", {"x" * BODY: 1}),
            ("x", {str(place): 0 for place in range(BODY // 9)}),
            ("x", packed([2**20, 2**20], "A" * BODY)),
            ("x", packed([1, BODY * 3 // 16], "A" * BODY)),
            ("x", packed([1, BODY * 3 // 16], "/" * BODY)),
            ("x", packed([1, BODY * 3 // 16], "\u0300" * BODY)),
            ("x", packed([1] * (BODY // 2), "")),
            ("x", packed([10**4000, 10**4000], "")),
            ("x", packed([1, 1], [0] * (BODY // 2))),
            ("x", packed([1, 1], "", nested(BODY // 2))),
            ("ids", [0] * (BODY // 2)),
            ("ids", [*[0] * (BODY // 2), None]),
            ("ids", [2**63] * (BODY // 20)),
            ("real", [True] * (BODY // 5)),
            ("real", packed([BODY // 2], "/" * (BODY // 2 * 4 // 3 + 2), "bool")),
            ("x" * BODY, 1),
        )
    ),
    {"tensors": {str(place): [] for place in range(BODY // 9)}},
    {"tensors": SMALL, "x" * BODY: 1},
    {"tensors": nested(BODY // 2)},
]
LIMITS = CodecLimits()
TENSORS_CODEC = TensorsCodec(Manifest.model_validate(WIDE))
CASES: list[tuple[Codec, dict[str, Any]]] = [
    *((TextCodec(LIMITS), problem) for problem in TEXTS),
    *((WordsCodec(LIMITS, counts), problem) for counts in (False, True) for problem in TEXTS),
    *((GraphCodec(LIMITS), problem) for problem in GRAPHS),
    *((LogicCodec(LIMITS), problem) for problem in LOGICS),
    *((TENSORS_CODEC, problem) for problem in TENSORS),
]


def sent(codec: Codec, problem: dict[str, Any]) -> str:
    """What the caller is told; nothing where the problem was encoded, and measured."""
    try:
        codec.measure(codec.encode(problem, "input"))
    except RequestError as refusal:
        return f"{refusal.field} {refusal.message}"
    return ""


@pytest.mark.parametrize(
    ("codec", "problem"), CASES, ids=[f"{type(case[0]).__name__}{place}" for place, case in enumerate(CASES)]
)
def test_a_hostile_problem_is_soon_done_with_and_holds_nobody_up(
    codec: Codec, problem: dict[str, Any]
) -> None:
    before = time.thread_time()
    assert len(sent(codec, problem)) < 2000, "a message that builds megabytes"
    assert time.thread_time() - before < CPU_SECONDS
    assert longest_pause(lambda: sent(codec, problem), PAUSE_SECONDS) < PAUSE_SECONDS


def test_what_is_too_long_is_named_with_its_field() -> None:
    for codec, problem, field in (
        (TextCodec(LIMITS), text([GOOD, "x" * (LONGEST + 1)]), "input.facts.1"),
        (TextCodec(LIMITS), text(f"{GOOD}. {'x' * (LONGEST + 1)}."), "input.facts.1"),
        (TextCodec(LIMITS), text([GOOD], "x" * (LONGEST + 1)), "input.query"),
        (GraphCodec(LIMITS), graph([["x" * 257, 1]]), "input.edges.0.0"),
        (LogicCodec(LIMITS), {"expression": "T" + " " * 2**16}, "input.expression"),
    ):
        with pytest.raises(RequestError, match=r"\d+ characters.* (is|are) too") as refusal:
            codec.encode(problem, "input")
        assert refusal.value.field == field


def test_what_is_just_short_enough_is_read() -> None:
    name = "x" * (LONGEST - len(" is the parent of Bob"))
    TextCodec(LIMITS).encode(text([f"{name} is the parent of Bob"], f"{name} is the parent of Bob"), "input")
    edges = [["x" * 256, 2**63 - 1], [2**63 - 1, -(2**63)]]
    GraphCodec(LIMITS).encode({"edges": edges, "source": "x" * 256, "target": -(2**63)}, "input")
    LogicCodec(LIMITS).encode({"expression": "T" + " " * (2**16 - 1)}, "input")


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**4000])
def test_a_number_over_64_bits_names_no_node(number: int) -> None:
    with pytest.raises(RequestError, match="over 64 bits; name it by a string") as refusal:
        GraphCodec(LIMITS).encode(graph([[0, 1], [1, number]]), "input")
    assert refusal.value.field == "input.edges.1.1"
