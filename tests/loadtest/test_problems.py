"""The generated problems, against answers worked out another way; and files of the caller's own."""

import itertools
import random
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from loadtest.drive.cases import (
    generate,
    graph_problem,
    logic_problem,
    read_cases,
    relation,
    text_problem,
)
from loadtest.errors import LoadTestError
from model.codecs import CodecLimits
from model.codecs.graph import GraphCodec
from model.codecs.logic import LogicCodec
from model.codecs.text import TextCodec


def distance(problem: dict[str, Any]) -> int | None:
    """Hops from source to target by breadth-first search."""
    reached, queue = {problem["source"]: 0}, deque([problem["source"]])
    while queue:
        node = queue.popleft()
        for tail, head in problem["edges"]:
            if tail == node and head not in reached:
                reached[head] = reached[node] + 1
                queue.append(head)
    return reached.get(problem["target"])


def test_reachable_targets_are_exactly_that_many_hops_away_and_the_others_cannot_be_reached() -> None:
    draw = random.Random(4)
    labels = []
    for hops in [1, 2, 3, 5, 8, 12] * 30:
        problem = graph_problem(draw, hops)
        labels.append(problem.label)
        assert distance(problem.input) == (hops if problem.label else None)
        assert all(tail != head for tail, head in problem.input["edges"])
    assert 0.35 < sum(map(bool, labels)) / len(labels) < 0.65


def test_an_edge_into_the_target_does_not_give_the_answer_away() -> None:
    problems = generate("graph", 200, (2, 6), seed=1)
    unreachable = [p for p in problems if not p.label]
    entered = [any(head == p.input["target"] for _, head in p.input["edges"]) for p in unreachable]
    assert sum(entered) / len(entered) > 0.75


def evaluate(expression: str) -> bool:
    """NOT before AND before OR, by rewriting innermost parentheses."""
    while len(expression) > 1:
        before = expression
        rules = {"!T": "F", "!F": "T", "(T)": "T", "(F)": "F"}
        rules |= {
            f"({a}{op}{b})": "FT"[(a + op + b) in ("T&T", "T|T", "T|F", "F|T")]
            for a, op, b in itertools.product("TF", "&|", "TF")
        }
        for pattern, value in rules.items():
            expression = expression.replace(pattern, value)
        assert expression != before, f"stuck at {expression}"
    return expression == "T"


def test_the_value_of_every_expression_is_right_and_fits_the_model() -> None:
    for problem in generate("logic", 200, (0, 8), seed=2):
        expression = problem.input["expression"]
        assert evaluate(expression) is problem.label
        assert len(expression) <= 250


def test_the_codecs_read_every_generated_problem() -> None:
    """The generators know nothing of the codecs, as the load test knows nothing of the model."""
    codecs = {"graph": GraphCodec, "logic": LogicCodec, "text": TextCodec}
    hardest = {"graph": 64, "logic": 32, "text": 16}
    for task, codec in codecs.items():
        for problem in generate(task, 150, (1, hardest[task]), seed=4):
            codec(CodecLimits()).encode(problem.input, "input")


def test_an_expression_is_exactly_as_deep_as_asked_and_no_deeper_than_fits() -> None:
    draw = random.Random(3)
    for nesting in (0, 1, 8, 14, 20, 32):
        text = logic_problem(draw, nesting).input["expression"]
        assert max(text[:place].count("(") - text[:place].count(")") for place in range(len(text))) == nesting
    with pytest.raises(LoadTestError, match="0 to 32 brackets"):
        logic_problem(draw, 33)


def test_kinship_answers_follow_from_the_facts() -> None:
    draw = random.Random(7)
    labels = []
    for chain in [1, 2, 5, 9, 16] * 20:
        problem = text_problem(draw, chain)
        links = [(words[0], words[3], words[-1]) for words in map(str.split, problem.input["facts"])]
        one, _, _, asked, _, other = problem.input["query"].removesuffix("?").split()
        generation = {other: 0}
        for _ in links:
            for older, kind, younger in links:
                step = 1 if kind == "parent" else -1
                if younger in generation:
                    generation[older] = generation[younger] + step
                elif older in generation:
                    generation[younger] = generation[older] - step
        assert (relation(generation[one]) == asked) is problem.label
        labels.append(problem.label)
    assert 0.35 < sum(map(bool, labels)) / len(labels) < 0.65


def test_a_chain_longer_than_relations_have_names_is_refused() -> None:
    with pytest.raises(LoadTestError, match="1 to 16 facts"):
        text_problem(random.Random(1), 17)


def test_relations_are_named_by_generations() -> None:
    names = [relation(k) for k in (0, 1, 2, 3, 4, -1, -2, -3)]
    assert names == [
        "sibling", "parent", "grandparent", "great-grandparent", "great-great-grandparent",
        "child", "grandchild", "great-grandchild",
    ]  # fmt: skip


def test_the_same_seed_makes_the_same_problems() -> None:
    assert generate("graph", 5, (1, 5), seed=3) == generate("graph", 5, (1, 5), seed=3)
    assert generate("graph", 5, (1, 5), seed=3) != generate("graph", 5, (1, 5), seed=4)


def test_a_task_without_a_generator_asks_for_a_file() -> None:
    with pytest.raises(LoadTestError, match="give --problems"):
        generate("tensors", 1, (1, 1), 0)


def test_problem_files_may_wrap_the_input_or_not(tmp_path: Path) -> None:
    file = tmp_path / "problems.jsonl"
    file.write_text(
        '{"input": {"expression": "T"}, "label": true}\n\n{"expression": "F", "label": false}\n'
        '{"tensors": {"x": [[1, 2]]}, "label": 1}\n'
    )
    assert [(p.input, p.label) for p in read_cases(file)] == [
        ({"expression": "T"}, True),
        ({"expression": "F"}, False),
        ({"tensors": {"x": [[1, 2]]}}, 1),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("[1]", ":1 must be a JSON object"),
        ("{}\n", "fields"),
        ('{"a"', ":1 is not JSON"),
        ('{"x":1,"label":{}}', "a label is"),
        ('{"input":{"x":1},"max_steps":0}', "max_steps is a whole number"),
    ],
)
def test_a_bad_problem_file_is_told_by_its_line(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "problems.jsonl"
    file.write_text(text)
    with pytest.raises(LoadTestError, match=words):
        read_cases(file)


def test_a_missing_problem_file_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(LoadTestError, match="cannot read the problems file"):
        read_cases(tmp_path / "none.jsonl")
