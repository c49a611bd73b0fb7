"""The rules of the house: who may import whom, and what serving must not load."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = {"client", "model", "training", "service", "loadtest"}
MAY_IMPORT = {
    "client": {"client"},
    "model": {"model"},
    "training": {"model", "training"},
    "service": {"model", "service"},
    "loadtest": {"loadtest"},
}
ALSO = {"service/cli.py": {"client"}}  # to know the variables of its commands from those that were mistyped
TORCH_USERS = {
    "model/network/layers.py",
    "model/network/recurrent.py",
    "model/network/perception.py",
    "model/network/reading.py",
    "model/network/scores.py",
    "model/network/served.py",
}

TORCH_RUNNERS = {"service/runners/torchscript.py"} | {
    f"service/runners/device/{name}.py"
    for name in ("allotment", "bound", "built", "embedder", "lane", "launched", "tables")
}
TORCH_RUNNERS |= {f"service/runners/fused/{name}.py" for name in ("network", "launch", "table")}


def imports(path: Path) -> set[str]:
    """The top-level names a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_imports_point_one_way(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files, f"{package} has no files"
    for path in files:
        wrong = (
            (imports(path) & OURS) - MAY_IMPORT[package] - ALSO.get(path.relative_to(ROOT).as_posix(), set())
        )
        assert not wrong, f"{path.relative_to(ROOT)} imports {', '.join(sorted(wrong))}"


def test_the_client_stands_on_httpx_and_numpy_alone() -> None:
    """Its commands use two more libraries, and nothing else of it uses them."""
    of_commands = {ROOT / "client/cli.py", *(ROOT / "client/terminal").glob("*.py")}
    for path in sorted((ROOT / "client").rglob("*.py")):
        more = {"typer", "rich"} if path in of_commands else set()
        foreign = imports(path) - sys.stdlib_module_names - {"client", "httpx", "numpy"} - more
        assert not foreign, f"{path.relative_to(ROOT)} imports {', '.join(sorted(foreign))}"
    # httpx loads rich by itself, for a command of its own
    check = "import client, sys; print(sorted({'typer', 'client.cli', 'client.terminal'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_fathom_offers_the_client_and_loads_it_when_it_is_used() -> None:
    check = (
        "import sys, fathom\n"
        "assert not {'httpx', 'numpy', 'client'} & set(sys.modules)\n"
        "import client\n"
        "assert all(getattr(fathom, name) is getattr(client, name) for name in client.__all__)\n"
        "assert not hasattr(fathom, 'Nobody') and not {'fastapi', 'model', 'service'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", check], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_only_the_network_and_the_torchscript_runner_import_torch() -> None:
    for package in ("model", "service"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if "torch" in imports(path):
                assert name in TORCH_USERS or name in TORCH_RUNNERS, f"{name} imports torch"


def test_nothing_in_the_service_knows_a_task() -> None:
    """Adding one touches its codec and its folder in training."""
    tasks = {path.stem for path in (ROOT / "model/codecs").glob("*.py")} - {"__init__", "tensors"}
    other = {"settings.py": {"text"}}  # words that mean something else there: a format of the log
    for path in sorted((ROOT / "service").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = isinstance(node, ast.Constant) and node.value in tasks - other.get(path.name, set())
            imported = (
                isinstance(node, ast.ImportFrom)
                and (node.module or "").removeprefix("model.codecs.") in tasks
            )
            assert not named, f"{path.relative_to(ROOT)} names the task {node.value!r}"  # type: ignore[attr-defined]
            assert not imported, f"{path.relative_to(ROOT)} imports the codec of a task"


def test_what_the_page_on_architecture_names_is_there() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    table = page.partition("## Where to add things")[2]
    walk = page.partition("## The walk of one request")[2].partition("\n## ")[0]
    named = re.findall(r"`((?:model|service|training|docs)/[\w/.]+?)/?…?`", table + walk)
    assert len(named) > 20
    for path in named:
        assert (ROOT / path).exists(), f"docs/architecture.md names {path}"
    assert walk.count("\n") <= 14, "a request should not have to walk further"


def test_serving_loads_neither_torch_nor_onnx() -> None:
    check = (
        "import sys, service.app, service.cli, model.sessions; from service.app import create_app; "
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", check], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_the_help_of_the_command_loads_nothing_heavy() -> None:
    check = (
        "import sys, fathom\n"
        "try:\n    fathom.app(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'fastapi', 'matplotlib', 'numpy'} & set(sys.modules)\n"
        "print(sorted(heavy), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stderr.strip() == "[]", done.stderr
    for command in ("serve", "infer", "models", "train", "evaluate", "export", "reproduce", "loadtest"):
        assert command in done.stdout
