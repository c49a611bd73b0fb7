"""The command `fathom`: what it lists, what it imports for that, and the client commands."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from client import Halting, Terms
from fathom import COMMANDS
from tests.service.servers import Running, chain, counting_bundle, serving


def fathom(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fathom", *words], capture_output=True, text=True, input=stdin
    )


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(counting_bundle(), api_keys="open-sesame") as running:
        yield running


@pytest.fixture(autouse=True)
def client_settings(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FATHOM_URL", str(server.client.base_url))
    monkeypatch.setenv("FATHOM_API_KEY", "open-sesame")


def test_help_lists_every_command_in_a_line() -> None:
    done = fathom("--help")
    assert done.returncode == 0
    for name, (_, summary) in COMMANDS.items():
        assert name in done.stdout
        assert summary.split(",")[0][:40] in done.stdout


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, fathom\n"
        "try: fathom.app(['--help'], prog_name='fathom')\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'fastapi', 'matplotlib', 'numpy', 'pydantic', 'onnxruntime', 'httpx'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("name", ["serve", "infer", "models"])
def test_every_command_has_help(name: str) -> None:
    done = fathom(name, "--help")
    assert done.returncode == 0
    assert f"Usage: fathom {name}" in done.stdout


def test_an_unknown_command_is_a_usage_error() -> None:
    assert fathom("srve").returncode == 2


def test_a_missing_library_ends_in_one_line_that_says_what_to_install() -> None:
    code = (
        "import sys, types, fathom\n"
        "module = types.ModuleType('training.cli')\n"
        "sys.modules['torch'] = None\n"
        "class Lazy:\n"
        "    def __getattr__(self, name): import torch\n"
        "sys.modules['training.cli'] = Lazy()\n"
        "sys.argv = ['fathom', 'train', 'graph']\n"
        "fathom.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "fathom: this needs torch; install it with: pip install 'fathom[train]'\n"


def test_infer_prints_the_answer_as_json_for_programs() -> None:
    done = fathom("infer", "graph", json.dumps(chain(4)), "--max-steps", "9")
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)["results"]
    assert (result["answer"], result["steps"], result["max_steps"]) == (True, 4, 9)


def test_infer_streams_a_line_per_event() -> None:
    done = fathom("infer", "graph", "-", "--stream", stdin=json.dumps(chain(3)))
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["event"] for line in lines] == ["step", "step", "step", "done"]


def test_infer_has_a_flag_for_every_field_of_a_request() -> None:
    shown = fathom("infer", "--help").stdout
    for name in {*Terms.__annotations__, *Halting.__annotations__} - {"halting"}:
        assert f"--{name.replace('_', '-')}" in shown, name
    rule = ("--criterion", "confidence", "--threshold", "0.7", "--patience", "2")
    wanted = ("--include", "scores", "--include", "trace", "--latents", "pooled", "--min-steps", "3")
    done = fathom("infer", "graph", json.dumps(chain(4)), *rule, *wanted, "--request-id", "mine")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    (result,) = answer["results"]
    assert (answer["id"], result["steps"], len(result["trace"])) == ("mine", 5, 5)
    assert "probabilities" not in result
    assert result["latents"] == [2.625] * 4
    samples = fathom("infer", "graph", json.dumps(chain(2)), "--samples", "{")
    assert (samples.returncode, samples.stderr[:32]) == (2, "fathom: --samples is not JSON: E")


def test_infer_says_what_the_server_refuses() -> None:
    done = fathom("infer", "graph", json.dumps({**chain(2), "target": "z"}))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("fathom: input.target: node 'z' is not in the graph")
    assert fathom("infer", "graph", "{").returncode == 2
    assert fathom("infer", "graph", "{}", "--api-key", "wrong").returncode == 2


def test_infer_without_a_server_says_how_to_start_one() -> None:
    done = fathom("infer", "graph", "{}", "--url", "http://127.0.0.1:1")
    assert done.returncode == 1
    assert "fathom serve" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_models_lists_a_server_or_a_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    (model,) = json.loads(fathom("models").stdout)["models"]
    assert (model["name"], model["backend"]) == ("graph", "fake")
    monkeypatch.delenv("FATHOM_URL")
    refused = fathom("models", "--repository", "/nowhere")
    assert refused.returncode == 2
    assert "/nowhere" in refused.stderr
