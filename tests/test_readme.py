"""The README keeps its word: targets, commands, pages, folders and words are there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import fathom
from model.halting import CRITERIA, HaltReason

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_make_target_it_names_is_in_the_makefile() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for target in re.findall(r"\bmake ([a-z]+)\b", README):
        if target not in ("what", "an"):
            assert target in targets, f"make {target}"
    assert {"serve", "test", "lint", "bench", "image"} <= set(targets)


def test_every_command_of_fathom_is_in_the_table_and_the_other_way_round() -> None:
    shown = set(re.findall(r"^\| `fathom ([a-z]+)", README, re.MULTILINE))
    assert shown == set(fathom.COMMANDS)


def test_every_page_it_links_to_is_there() -> None:
    for page in re.findall(r"\]\((?!https?:)([^)]+)\)", README):
        assert (ROOT / page).is_file(), page


def test_the_tree_shows_what_is_there() -> None:
    tree = re.findall(r"```\n(fathom\.py .+?)```", README, re.DOTALL)[0]
    folder = ""
    for line in tree.splitlines():
        for name in re.findall(r"(?:^|\s)([a-z_]+\.py|[a-z_]+/)(?=\s)", line):
            if not line.startswith(" "):
                folder = name if name.endswith("/") else ""
                assert (ROOT / name).exists(), name
            else:
                assert (ROOT / folder / name).exists(), f"{folder}{name}"
    shown = set(re.findall(r"^([a-z_]+)/", tree, re.MULTILINE))
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    folders = {line.partition("/")[0] for line in tracked.stdout.splitlines() if "/" in line}
    assert {name for name in folders if not name.startswith(".")} <= shown


def test_the_glossary_names_every_criterion_and_every_halt_reason() -> None:
    for word in (*CRITERIA, *HaltReason):
        assert f"`{word}`" in README, word
