"""compose.yaml, .env.example and the settings of the service say the same."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from service.settings import Settings, variable_of
from tests.deploy.processes import ROOT

FIXED_INSIDE = {"FATHOM_HOST", "FATHOM_PORT", "FATHOM_REPOSITORY"}  # compose sets these itself
SERVERS = ("fathom", "replica", "fathom-gpu")
LAST_BYTES = 5 + 5  # seconds beyond the drain: connections end, the process leaves


def example() -> dict[str, str]:
    """The variables of .env.example, commented out or not, with their values."""
    lines = (ROOT / ".env.example").read_text(encoding="utf-8")
    return dict(re.findall(r"^#?([A-Z0-9_]+)=(.*)$", lines, re.MULTILINE))


def compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    return content


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_in_the_example_with_its_default(name: str) -> None:
    variable = variable_of(name)
    if variable in FIXED_INSIDE:
        return
    default = Settings.model_fields[name].get_default()
    if isinstance(default, tuple):
        shown = ",".join(f"{bound:g}" for bound in default)
    elif isinstance(default, bool):
        shown = str(default).lower()
    else:
        shown = f"{default:g}" if isinstance(default, float) else str(default)
    assert example().get(variable) == shown


def test_every_variable_of_compose_is_in_the_example_with_its_default() -> None:
    used = re.findall(r"\$\{([A-Z0-9_]+):-([^}]*)\}", (ROOT / "compose.yaml").read_text(encoding="utf-8"))
    for variable, default in used:
        if variable == "FATHOM_REPOSITORY":  # the example shows the other choice
            continue
        assert example().get(variable) == default, variable


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_is_given_every_setting_and_nothing_of_the_others(name: str) -> None:
    server = compose()["services"][name]
    assert set(server["environment"]) == {variable_of(setting) for setting in Settings.model_fields}
    assert server["env_file"] == [{"path": "server.env", "required": False}]


def test_the_other_containers_are_given_no_setting_of_a_server_and_no_file_of_variables() -> None:
    servers = {variable_of(setting) for setting in Settings.model_fields}
    for name in compose()["services"].keys() - set(SERVERS):
        service = compose()["services"][name]
        assert not servers & set(service.get("environment", {})), name
        assert "env_file" not in service, name


def test_a_container_is_given_longer_to_stop_than_the_service_takes() -> None:
    drain = Settings.model_fields["drain_seconds"].get_default()
    for name in SERVERS:
        grace = int(compose()["services"][name]["stop_grace_period"].removesuffix("s"))
        assert grace >= drain + LAST_BYTES


def test_images_that_are_not_built_here_stay_behind_profiles() -> None:
    for name, service in compose()["services"].items():
        assert "build" in service or service.get("profiles"), f"{name} would be pulled by a plain `up`"
