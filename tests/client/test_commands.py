"""The commands infer and models: what they send, what they print, and how they end."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from client import Halting, Latents, Samples, Terms
from fathom import app
from tests.client.scripted import reply, scripted
from tests.service.servers import Running, chain, counting_bundle, serving


def said(*words: str, **more: Any) -> Result:
    """What the command says, in this process."""
    return CliRunner().invoke(app, words, prog_name="fathom", **more)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(counting_bundle(), api_keys="open-sesame") as running:
        yield running


@pytest.fixture(autouse=True)
def client_settings(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FATHOM_URL", str(server.client.base_url))
    monkeypatch.setenv("FATHOM_API_KEY", "open-sesame")


def test_commands_flags_and_models_are_completed() -> None:
    def completed(words: str) -> list[str]:
        asked = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
        done = said(env={**asked, "_FATHOM_COMPLETE": "complete_bash"})
        return done.stdout.split()

    assert completed("fathom inf") == ["infer"]
    assert completed("fathom infer --max") == ["--max-steps"]
    assert completed("fathom infer gr") == ["graph"]
    assert completed("fathom infer no") == []
    assert completed("fathom nothing there") == []


def test_infer_prints_the_answer_as_json_for_programs() -> None:
    done = said("infer", "graph", json.dumps(chain(4)), "--max-steps", "9", "--json")
    assert done.exit_code == 0, done.stderr
    (result,) = json.loads(done.stdout)["results"]
    assert (result["answer"], result["steps"], result["max_steps"]) == (True, 4, 9)


def test_infer_prints_a_table_for_people() -> None:
    done = said("infer", "graph", json.dumps([chain(4), chain(2)]))
    assert "reachable" in done.stdout
    assert "4 of 16" in done.stdout
    assert "0.9526" in done.stdout
    assert "graph@1" in done.stdout


def test_infer_takes_words_from_the_command_line_and_from_stdin() -> None:
    for words, stdin in (("a -> b -> c ? a c", ""), ("-", "a b\nb c\n? a c\n"), ('["a b, b c ? a c"]', "")):
        done = said("infer", "graph", words, "--json", input=stdin)
        assert done.exit_code == 0, done.stderr
        assert json.loads(done.stdout)["results"][0]["answer"] is True
    assert "a graph ends with the question" in said("infer", "graph", "a b").stderr


def test_infer_streams_a_line_per_event() -> None:
    lines = said("infer", "graph", "-", "--stream", "--json", input=json.dumps(chain(3))).stdout.splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["step", "step", "step", "done"]
    lines = said("infer", "graph", json.dumps(chain(3)), "--stream").stdout.splitlines()
    assert [line.split()[:4] for line in lines[:3]] == [["problem", "0", "step", str(n)] for n in (1, 2, 3)]


def test_infer_draws_the_thinking_on_a_terminal() -> None:
    on_terminal = {"FORCE_COLOR": "1", "COLUMNS": "120", "TERM": "xterm"}
    done = said("infer", "graph", json.dumps(chain(5)), env=on_terminal)
    assert done.exit_code == 0, done.stderr
    shown = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", done.stdout)
    assert re.search(r"depth .*5 of 16", shown)
    assert re.search(r"confidence +[▁-█]+ +1 +halts above 0.9", shown)
    for more in (["--no-stream"], ["--json"], ["--include", "trace"]):
        assert (
            "5 of 16" not in said("infer", "graph", json.dumps(chain(5)), *more, env=on_terminal).stdout[:99]
        )


def test_infer_has_a_flag_for_every_field_of_a_request() -> None:
    shown = said("infer", "--help", env={"COLUMNS": "200"}).stdout
    fields = {
        *Terms.__annotations__,
        *Halting.__annotations__,
        *Latents.__annotations__,
        *Samples.__annotations__,
    }
    for name in fields - {"halting", "count"}:
        assert f"--{name.replace('_', '-')}" in shown, name


def test_what_flags_say_is_what_is_asked(tmp_path: Path) -> None:
    rule = ("--criterion", "confidence", "--threshold", "0.7", "--patience", "2", "--min-steps", "3")
    wanted = ("--include", "scores,trace", "--select", "pooled", "--request-id", "mine", "--json")
    done = said("infer", "graph", json.dumps(chain(4)), *rule, *wanted)
    assert done.exit_code == 0, done.stderr
    answer = json.loads(done.stdout)
    (result,) = answer["results"]
    assert (answer["id"], result["steps"], len(result["trace"])) == ("mine", 5, 5)
    assert "probabilities" not in result
    assert result["latents"] == [2.625] * 4
    assert "max_steps" in said("infer", "graph", "{}", "--max-steps", "0").stderr
    samples = ("--samples", "3", "--noise", "0", "--seed", "1", "--choose", "surest")
    done = said("infer", "graph", json.dumps(chain(2)), *samples, "--json")
    assert json.loads(done.stdout)["results"][0]["samples"]["votes"] == {"reachable": 3}


def test_states_are_saved_as_arrays_and_with_a_trace_those_of_every_step(tmp_path: Path) -> None:
    file = tmp_path / "states.npz"
    problems, states = json.dumps([chain(3), chain(2)]), ("--latents", str(file), "--select", "full")
    done = said("infer", "graph", problems, *states, "--include", "trace", "--json")
    assert done.exit_code == 0, done.stderr
    assert "latents" not in done.stdout
    with np.load(file) as saved:
        shapes = {name: array.shape for name, array in saved.items()}
        assert (saved["problem_1"] == saved["problem_1.steps"][-1]).all()
    first, second = (4, 4), (3, 4)
    assert shapes == {
        "problem_0": first,
        "problem_0.steps": (3, *first),
        "problem_1": second,
        "problem_1.steps": (2, *second),
    }
    assert said("infer", "graph", problems, "--latents", str(tmp_path)).exit_code == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{"], "the problem is not JSON"),
        (["{}", "--interventions", "{"], "--interventions is not JSON"),
        (["{}", "--seed", "3"], "--seed is about samples: give --samples N, too"),
        (["{}", "--out", "x"], "--out is for a --file of problems"),
        (["--file", "x", "--keep", "3"], "--keep is for one request"),
        (["{}", "--file", "x"], "give a problem or a --file of problems"),
        (["--file", "/nowhere/x"], "/nowhere/x cannot be read"),
        (["--file", "/dev/null", "--out", "/nowhere/x"], "/nowhere/x cannot be written"),
        ([], "give either a problem, or continue_from"),
        (["{}", "--api-key", "wrong"], "key"),
        (["{}", "--url", "ftp://x"], "is not a server's address"),
        ([json.dumps({**chain(2), "target": "z"})], "input.target: node 'z' is not in the graph"),
        (['{"edge": []}'], "input.edge: unknown field; did you mean edges?"),
    ],
)
def test_what_a_caller_must_change_ends_in_one_line_and_exit_code_2(words: list[str], message: str) -> None:
    done = said("infer", "graph", *words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("fathom: ")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_typo_in_a_model_is_told_what_was_meant() -> None:
    done = said("infer", "grpah", "{}")
    assert (done.exit_code, "did you mean graph?" in done.stderr) == (2, True)


def test_a_variable_that_another_flag_would_need_is_no_fault() -> None:
    """FATHOM_SEED and FATHOM_OUT are for training, too."""
    done = said("infer", "graph", json.dumps(chain(2)), env={"FATHOM_SEED": "3", "FATHOM_OUT": "runs"})
    assert done.exit_code == 0, done.stderr


def test_what_is_not_the_callers_to_mend_ends_with_exit_code_1(server: Running) -> None:
    done = said("infer", "graph", "{}", "--url", "http://127.0.0.1:1")
    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)
    assert "fathom serve" in done.stderr
    full = reply(429, {"error": {"code": "overloaded", "message": "it is full", "field": None}})
    with scripted([full]) as other:
        done = said("infer", "graph", "{}", "--url", other.url)
    assert (done.exit_code, done.stderr) == (1, "fathom: it is full\n")
    server.runner.nan_nodes = 3
    try:
        done = said("infer", "graph", json.dumps([chain(2), chain(4)]))
    finally:
        server.runner.nan_nodes = -1
    assert (done.exit_code, "error" in done.stdout, "reachable" in done.stdout) == (1, True, True)


def test_a_file_of_problems_becomes_a_file_of_answers(tmp_path: Path) -> None:
    file, out = tmp_path / "problems.jsonl", tmp_path / "answers.jsonl"
    file.write_text("".join(json.dumps({"input": chain(n), "label": n < 4}) + "\n" for n in (2, 3, 4, 5)))
    done = said("infer", "graph", "--file", str(file), "--out", str(out))
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("4 problems: 4 answered, right 2 of 4 (50.0%), 3.5 steps on average, ")
    assert [json.loads(line)["steps"] for line in out.read_text().splitlines()] == [2, 3, 4, 5]
    summary = json.loads(said("infer", "graph", "--file", str(file), "--out", str(out), "--json").stdout)
    assert (summary["problems"], summary["accuracy"], summary["mean_steps"]) == (4, 0.5, 3.5)
    done = said("infer", "graph", "--file", str(file))
    assert done.stdout == out.read_text()
    assert done.stderr.startswith("4 problems")


def test_a_file_with_a_refused_problem_ends_with_exit_code_2(tmp_path: Path) -> None:
    file = tmp_path / "problems.jsonl"
    file.write_text(json.dumps(chain(2)) + '\n{"edges": []}\n')
    done = said("infer", "graph", "--file", str(file), "--out", str(tmp_path / "answers"))
    assert (done.exit_code, done.stdout.split(",")[:2]) == (2, ["2 problems: 1 answered", " 1 refused"])


def test_models_are_a_table_or_json() -> None:
    done = said("models")
    assert done.exit_code == 0, done.stderr
    assert "graph@1" in done.stdout
    assert "confidence 0.9" in done.stdout
    (model,) = json.loads(said("models", "--json").stdout)["models"]
    assert (model["name"], model["backend"]) == ("graph", "fake")
    assert said("models", "--url", "http://127.0.0.1:1").exit_code == 1
