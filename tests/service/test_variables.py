"""Variables that were mistyped are named when a server starts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service.variables import complaints
from tests.service.servers import graph_alone
from tests.service.test_process import fathom_serve


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("FATHOM_SLOT", "did you mean FATHOM_SLOTS?"),
        ("FATHOM_API_KEYZ", "did you mean FATHOM_API_KEYS?"),
        ("FATHOM_QUEUE_STEPS", "it is now FATHOM_QUEUE_SECONDS"),
        ("FATHOM_MAX_LATENT_BYTES", "it is now FATHOM_MAX_EVENT_BYTES"),
        ("FATHOM_ZZZ", "docs/settings.md"),
    ],
)
def test_a_variable_that_does_nothing_is_named_with_what_was_meant(name: str, words: str) -> None:
    (sentence,) = complaints({name: "secret", "PATH": "", "FATHOM_HOST": ""})
    assert sentence.startswith(name)
    assert words in sentence
    assert "secret" not in sentence


@pytest.mark.parametrize(
    "name",
    ["FATHOM_SLOTS", "FATHOM_LOADTEST_URL", "FATHOM_RAY_CPUS", "FATHOM_PORT_8000_TCP_ADDR",
     "FATHOM_SERVICE_HOST", "FATHOM_URL", "FATHOM_GPU_PORT", "FATHOMLESS"],
)  # fmt: skip
def test_settings_and_the_variables_of_others_are_not(name: str) -> None:
    assert complaints({name: ""}, frozenset({"FATHOM_URL"})) == []


def test_a_server_warns_of_them_and_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FATHOM_QUEUE_STEPS", "8")
    monkeypatch.setenv("FATHOM_ACESS_LOG", "true")
    monkeypatch.setenv("FATHOM_URL", "http://127.0.0.1:1")
    with fathom_serve("--repository", str(graph_alone(tmp_path))) as server:
        assert server.stop() == 0
    warned = [line for line in server.log if "WARNING FATHOM_" in line]
    assert [line.split()[3] for line in warned] == ["FATHOM_ACESS_LOG", "FATHOM_QUEUE_STEPS"]
    assert "did you mean FATHOM_ACCESS_LOG?" in warned[0]


def test_every_variable_of_the_example_for_compose_is_known() -> None:
    names = re.findall(r"^#?(FATHOM_\w+)=", Path(".env.example").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(names) > 40
    assert complaints(dict.fromkeys(names, "")) == []
