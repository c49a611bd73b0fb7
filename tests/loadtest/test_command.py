"""The command as a person runs it: flags, files, exit codes, Ctrl-C."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from loadtest.cli import app
from tests.loadtest.running import QUICK, ROOT, invoke, run
from tests.loadtest.scripts import constant
from tests.loadtest.stub import Stub, serving


def test_the_documentation_explains_every_flag_and_every_flag_has_a_variable_and_help() -> None:
    text = (ROOT / "docs/loadtest.md").read_text()
    command = typer.main.get_command(app).commands["run"]  # type: ignore[attr-defined]
    assert len(command.params) > 30
    for flag in command.params:
        if flag.name == "help":
            continue
        named = flag.opts[0].removeprefix("--").replace("-", "_").upper()
        assert flag.envvar == f"FATHOM_LOADTEST_{named}"
        assert flag.help
        if flag.name != "url":
            assert f"`{flag.opts[0]}`" in text, f"{flag.opts[0]} is not explained"


def test_two_reports_are_set_side_by_side(finished: Path) -> None:
    code, text = invoke("compare", str(finished), str(finished / "report.json"))
    assert code == 0
    assert "1.000" in text
    assert "too few repeats" in text
    assert "nothing is called faster or slower" in text


def test_it_can_be_mounted_as_a_group_of_another_command(server: tuple[Stub, str]) -> None:
    parent = typer.Typer()
    parent.command("other")(lambda: None)
    parent.add_typer(app, name="loadtest")
    found = CliRunner().invoke(parent, ["loadtest", server[1], "--model", "nosuch"])
    assert (found.exit_code, "serves no model 'nosuch'" in found.output) == (2, True)
    assert CliRunner().invoke(parent, ["loadtest", "compare", "nosuch", "nosuch"]).exit_code == 2
    assert "--slo-p99-ms" in CliRunner().invoke(parent, ["loadtest", "--help"], env={"COLUMNS": "160"}).output


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys, loadtest.cli, typer; typer.main.get_command(loadtest.cli.app);"
        "print([m for m in ('matplotlib', 'numpy', 'httpx') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_what_cannot_work_is_one_clear_line_and_exit_code_2(server: tuple[Stub, str], tmp_path: Path) -> None:
    _, url = server
    bad = tmp_path / "bad.jsonl"
    bad.write_text("nonsense\n")
    blocked = tmp_path / "file"
    blocked.write_text("")
    cases = {
        ("http://127.0.0.1:9",): "no server answers at http://127.0.0.1:9",
        (url, "--model", "nosuch"): "serves no model 'nosuch'; it serves stub",
        (url, "--problems", str(bad)): "bad.jsonl:1 is not JSON",
        (url, "--problems", str(tmp_path / "none")): "cannot read the problems file",
        (url, "--depths", "1,65"): "--depths 65 is beyond what stub allows: 64 steps",
        (url, "--mix", "bell:3"): "is not a mix",
        (url, "--halting", "kl"): "--halting 'kl'",
        (url, "--rate", "5", "--concurrency", "2"): "give one of",
        (url, "--protocol", "v2"): "needs --problems",
        (url, "--out", str(blocked / "report")): "cannot write the report",
        (url, "--difficulty", "5-1"): "--difficulty",
        (url, "--plan", "100"): "--plan needs --sweep",
        (url, "--replay", str(tmp_path / "none")): "cannot replay",
        ("render", str(tmp_path)): "is not a load test report",
        ("sweep-serve", "--port", "80"): "--port is chosen by the load test",
        ("compare", str(tmp_path), str(tmp_path)): "is not a load test report",
    }
    for arguments, words in cases.items():
        code, text = invoke(*arguments)
        assert (code, words in text, text.count("\n")) == (2, True, 1), text


def test_a_server_that_wants_a_key_says_so() -> None:
    with serving(Stub(api_key="hush")) as url:
        code, text = invoke(url)
        assert (code, "--api-key" in text) == (2, True)
        code, text = invoke(url, "--api-key", "wrong")
        assert (code, "--api-key" in text, "wrong" in text) == (2, True, False)


def test_a_refused_first_request_repeats_the_servers_words() -> None:
    with serving(Stub(fail_with=422)) as url:
        code, text = invoke(url)
    assert code == 2
    assert "HTTP 422 this failure was asked for" in text


def test_a_missed_slo_ends_with_1_and_names_it(server: tuple[Stub, str], tmp_path: Path) -> None:
    done = run(
        server[1], *QUICK, "--depths", "8", "--rate", "20", "--alone", "0", "--probe", "0",
        "--slo-p99-ms", "10", "--out", str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 1
    assert re.search(r"load \(open, 20/s\), depth 8: p99 is [\d.]+ ms, the SLO 10 ms", done.stdout)


def test_ctrl_c_still_writes_the_report(tmp_path: Path) -> None:
    stub = Stub(constant(0.05))
    with serving(stub) as url:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "loadtest", url, "--depths", "4", "--duration", "60", "--warmup", "0",
                "--alone", "0", "--probe", "0", "--processes", "1", "--rate", "40", "--out", str(tmp_path),
            ],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        assert stub.reached(30).wait(30), "the load begins within half a minute"
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: every process of the group
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["interrupted"]
    assert report["summaries"][0]["outcomes"]["ok"] >= 20
    assert report["summaries"][0]["rates"]["achieved"] == pytest.approx(40, rel=0.5)
    assert (tmp_path / "report.html").exists()


def test_an_interruption_before_the_load_began_still_ends_well(tmp_path: Path) -> None:
    """Of a condition that was never measured there is nothing to tell."""
    stub = Stub(constant(0.02))
    with serving(stub) as url:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "loadtest", url, "--depths", "4", "--alone", "60", "--warmup", "0",
                "--processes", "1", "--out", str(tmp_path),
            ],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert stub.reached(10).wait(30), "the baseline begins within half a minute"
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    report = json.loads((tmp_path / "report.json").read_text())
    assert [summary["phase"] for summary in report["summaries"]] == ["alone"]
