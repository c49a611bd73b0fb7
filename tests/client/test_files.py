"""Files of problems: how they are read, sent, gone on with and scored."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from client import AsyncClient, Invalid, Model, Overloaded
from client.terminal import many
from client.terminal.files import answer_all
from client.terminal.lines import Asked, Line, Tally, problems_in, resumed
from client.terminal.many import Sender
from tests.client.scripted import error, reply, scripted
from tests.service.servers import Running, chain, serving


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(max_problems=4) as running:
        yield running


def model(**more: Any) -> Model:
    words = {"type": "object", "required": ["words"], "properties": {"words": {"type": "string"}}}
    known = {"name": "graph", "version": "1", "task": "t", "steps": {}, "halting": {}, "criteria": []}
    return Model.read({**known, "schema": words, **more})


def written(path: Path, *lines: object) -> Path:
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return path


def asked(url: str, file: Path, out: Path, **terms: Any) -> Tally:
    return answer_all(url, None, "graph", file, out, terms, as_json=False)


def lines_of(path: Path) -> list[Line]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_is_a_problem_with_or_without_a_label_or_words(tmp_path: Path) -> None:
    file = written(
        tmp_path / "problems",
        {"input": {"x": 1}, "label": True, "max_steps": 3},
        {"x": 1, "label": "yes"},
        {"x": 1},
        "\n",
        "some words\n",
        json.dumps("some words"),
    )
    found = list(problems_in(file, model()))
    said = {"words": "some words"}
    assert found == [Asked({"x": 1}, True), Asked({"x": 1}, "yes"), Asked({"x": 1}), Asked(said), Asked(said)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"x": 1}\n{"x"', "problems:2 is not JSON"),
        (b"[1]", "problems:1: a line is one problem"),
        (b"\xff", "problems cannot be read"),
        (b"words", "problems:1: a problem for graph is written as JSON"),
    ],
)
def test_a_line_that_is_no_problem_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "problems"
    file.write_bytes(content)
    with pytest.raises(Invalid, match=message):
        list(problems_in(file, model(schema=None)))


def test_all_are_answered_in_their_order_in_lists_that_the_server_takes(
    server: Running, tmp_path: Path
) -> None:
    depths = [1, 9, 2, 7, 3, 1, 8, 2, 2, 5, 4]
    file = written(tmp_path / "problems", *({"input": chain(depth), "label": True} for depth in depths))
    before = server.metric("fathom_requests_total", code="200", model="graph")
    tally = asked(str(server.client.base_url), file, tmp_path / "answers", max_steps=20)
    assert [line["steps"] for line in lines_of(tmp_path / "answers")] == [max(2, depth) for depth in depths]
    assert server.metric("fathom_requests_total", code="200", model="graph") == before + 3
    assert (tally.answered, tally.right, tally.steps) == (11, 11, sum(max(2, depth) for depth in depths))


def test_a_run_goes_on_where_it_stopped_and_ends_with_the_same_file(server: Running, tmp_path: Path) -> None:
    url, out = str(server.client.base_url), tmp_path / "answers"
    file = written(tmp_path / "problems", *({"input": chain(depth), "label": True} for depth in range(1, 9)))
    whole = asked(url, file, out)
    finished = out.read_bytes()
    for cut in (len(finished) // 2, len(finished) // 3, 0, len(finished)):
        out.write_bytes(finished[:cut])
        before = server.metric("fathom_steps_total", model="graph")
        assert asked(url, file, out) == whole
        assert out.read_bytes() == finished
        again = server.metric("fathom_steps_total", model="graph") - before
        assert again < whole.steps if cut else again == whole.steps


def test_answers_of_another_model_or_to_fewer_problems_are_not_written_over(
    server: Running, tmp_path: Path
) -> None:
    file = written(tmp_path / "problems", chain(1))
    for content, message in (
        ({"model": "logic@2", "steps": 3}, "does not hold answers of graph"),
        ("a line\n", "is not JSON"),
        ({"model": "graph@1", "steps": 3}, "has 2 answers, and .*problems 1 problems"),
    ):
        out = written(tmp_path / "answers", content, content)
        before = out.read_bytes()
        with pytest.raises(Invalid, match=message):
            asked(str(server.client.base_url), file, out)
        assert out.read_bytes() == before


def test_a_refused_problem_has_a_line_that_says_why_and_the_others_are_answered(
    server: Running, tmp_path: Path
) -> None:
    wrong = {**chain(2), "target": "z"}
    problems = [chain(2), {"input": wrong, "label": True}, {"edge": []}, chain(3)]
    file = written(tmp_path / "problems", *problems)
    tally = asked(str(server.client.base_url), file, tmp_path / "answers")
    first, second, third, fourth = lines_of(tmp_path / "answers")
    assert (first["answer"], fourth["steps"]) == (True, 3)
    assert (second["field"], second["expected"], second["right"]) == ("target", True, False)
    assert (third["field"], "did you mean edges?" in third["error"]) == ("edge", True)
    assert (tally.answered, tally.refused, tally.labelled, tally.right) == (2, 2, 1, 0)


def test_what_is_wrong_with_all_of_them_ends_it(server: Running, tmp_path: Path) -> None:
    file = written(tmp_path / "problems", *[chain(2)] * 9)
    with pytest.raises(Invalid, match="max_steps"):
        asked(str(server.client.base_url), file, tmp_path / "answers", max_steps=0)
    assert (tmp_path / "answers").read_text() == ""


def test_samples_count_as_problems(server: Running, tmp_path: Path) -> None:
    file = written(tmp_path / "problems", *[chain(2)] * 3)
    before = server.metric("fathom_requests_total", code="200", model="graph")
    asked(str(server.client.base_url), file, tmp_path / "answers", samples={"count": 3})
    assert server.metric("fathom_requests_total", code="200", model="graph") == before + 3
    assert all(line["samples"]["votes"] == {"reachable": 3} for line in lines_of(tmp_path / "answers"))


def test_what_is_too_large_for_one_request_is_sent_in_halves(tmp_path: Path) -> None:
    file = written(tmp_path / "problems", *(chain(30) for _ in range(8)))
    with serving(max_body_bytes=1200) as small:
        tally = asked(str(small.client.base_url), file, tmp_path / "answers")
        assert small.metric("fathom_requests_total", code="200", model="graph") > 1
    assert tally.answered == 8


def sent(url: str, *problems: Asked, of: Model | None = None, **terms: Any) -> list[Line]:
    """What is answered to problems that are sent one a request, unless the server takes more."""

    async def all_of_them() -> list[Line]:
        async with AsyncClient(url, retries=0) as client:
            sender = Sender(client, of or model(limits={"max_problems": 1}), terms)
            return [line async for lines in sender.answers(problems) for line in lines]

    return asyncio.run(all_of_them())


def answered() -> bytes:
    result = {"answer": True, "label": "yes", "steps": 1, "max_steps": 2, "halt_reason": "halted"}
    whole = {"id": "a", "model": "graph", "version": "1", "results": [result], "usage": {"steps": 1}}
    return reply(200, {**whole, "timings_ms": {"queue": 0, "compute": 0, "total": 0}})


def test_a_full_server_is_asked_again_when_it_says() -> None:
    full = error(429, "overloaded", "retry-after: 0")
    with scripted([full, full, answered()]) as server:
        (line,) = sent(server.url, Asked({}))
    assert line["steps"] == 1
    assert len(server.bodies) == 3


def test_a_server_that_stays_full_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "MOST_WAITS", 2)
    monkeypatch.setattr(many, "PAUSE", 0.01)
    with scripted([error(429, "overloaded")] * 3) as server, pytest.raises(Overloaded):
        sent(server.url, Asked({}))


def test_a_full_server_is_asked_again_as_soon_as_another_request_from_here_has_ended() -> None:
    """It says to wait for a minute, which is what all that is under way could take at most."""
    with serving(max_problems=2, slots=1, queue_seconds=0.001) as server:
        two = model(limits={"max_problems": 2})
        problems = [Asked(chain(depth)) for depth in (2, 3)] * 4
        lines = sent(str(server.client.base_url), *problems, of=two, max_steps=100_000)
        assert [line["steps"] for line in lines] == [2, 3] * 4
        assert server.metric("fathom_requests_total", code="429", model="graph") > 0


@pytest.mark.parametrize(
    ("label", "right"),
    [(True, True), ("yes", True), (1, False), (False, False), ("True", False), (None, None)],
)
def test_a_label_is_the_answer_or_its_name_and_nothing_like_it(label: Any, right: bool | None) -> None:
    with scripted([answered()]) as server:
        (line,) = sent(server.url, Asked({}, label))
    assert line.get("right") is right


def test_a_line_that_was_cut_off_is_removed(tmp_path: Path) -> None:
    whole = {"model": "graph@1", "steps": 3, "halt_reason": "error"}
    out = written(tmp_path / "answers", whole, '{"model": "gra')
    with out.open("r+") as file:
        assert resumed(file, "graph@1") == Tally(failed=1, steps=3)
    assert lines_of(out) == [whole]
