"""The command `fathom`: what it lists, what it imports for that, and what it says to a typo."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from fathom import COMMANDS, app


def said(*words: str, **more: Any) -> Result:
    """What the command says, in this process."""
    return CliRunner().invoke(app, words, prog_name="fathom", **more)


def test_help_lists_every_command_in_a_line() -> None:
    done = said("--help")
    assert done.exit_code == 0
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
def test_every_command_has_help_without_a_type_behind_what_takes_no_value(name: str) -> None:
    shown = said(name, "--help").stdout
    assert f"Usage: fathom {name}" in shown
    assert "bool" not in shown
    assert "bool" not in said("--help").stdout


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["srve"], "Did you mean 'serve'?"),
        (["model"], "Did you mean 'models'?"),
        (["infer", "graph", "--max-step", "3"], "--max-steps"),
    ],
)
def test_a_typo_in_a_command_or_a_flag_is_told_what_was_meant(words: list[str], meant: str) -> None:
    done = said(*words)
    assert done.exit_code == 2
    assert meant in done.stderr


def test_the_version_is_that_of_the_distribution() -> None:
    done = said("--version")
    assert (done.exit_code, done.stdout) == (0, f"fathom {metadata.version('fathom-depth')}\n")


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
    assert done.stderr == "fathom: this needs torch; install it with: pip install 'fathom-depth[train]'\n"
