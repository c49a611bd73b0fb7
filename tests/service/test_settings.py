"""Settings: one definition, and flag, variable and documentation that agree with it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from service.cli import app
from service.errors import StartupError
from service.settings import Settings, flag_of, read_settings, variable_of

ROW = re.compile(r"^\| `(--[\w-]+)` \| `(FATHOM_\w+)` \| `?([^`|]+?)`? \| (.+) \|$", re.MULTILINE)


def test_every_setting_has_a_flag_a_variable_and_a_line_in_the_docs() -> None:
    documented = {
        flag: (variable, default)
        for flag, variable, default, _ in ROW.findall(Path("docs/settings.md").read_text(encoding="utf-8"))
    }
    flags = {
        option.opts[0]: option.envvar
        for option in typer.main.get_command(app).commands["serve"].params  # type: ignore[attr-defined]
    }
    assert set(documented) == set(flags) == {flag_of(name) for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        flag, variable = flag_of(name), variable_of(name)
        assert flags[flag] == documented[flag][0] == variable
        default = documented[flag][1]
        stated = read_settings({name: "" if default == "none" else default})
        assert getattr(stated, name) == field.default, f"docs/settings.md: the default of {name}"
        assert field.description


def test_every_flag_says_what_it_takes() -> None:
    shown = {
        option.name: option.metavar
        for option in typer.main.get_command(app).commands["serve"].params  # type: ignore[attr-defined]
    }
    assert all(shown.values()), shown
    some = {"port": "PORT", "max_body_bytes": "BYTES", "device": "auto|cpu|cuda", "access_log": "true|false"}
    assert {name: shown[name] for name in some} == some


def test_every_number_has_both_bounds() -> None:
    bounded = 0
    for name, field in Settings.model_json_schema()["properties"].items():
        kinds = [field, field.get("items", {})]
        for kind in (kind for kind in kinds if kind.get("type") in ("integer", "number")):
            bounded += 1
            assert {"minimum", "exclusiveMinimum"} & set(kind), name
            assert {"maximum", "exclusiveMaximum"} & set(kind), name
    assert bounded > 20


def test_every_setting_stands_in_the_example_for_compose_with_its_default() -> None:
    example = Path(".env.example").read_text(encoding="utf-8")
    stated = dict(re.findall(r"^#(FATHOM_\w+)=(.*)$", example, re.MULTILINE))
    outside = {"host", "port", "repository"}  # where a server in a container listens and reads is compose's
    for name, field in Settings.model_fields.items():
        if name not in outside:
            value = stated[variable_of(name)]
            assert getattr(read_settings({name: value}), name) == field.default, name


def test_a_given_value_wins_over_the_environment_and_that_over_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert read_settings({}).slots == 64
    monkeypatch.setenv("FATHOM_SLOTS", "7")
    assert read_settings({}).slots == 7
    assert read_settings({"slots": "9"}).slots == 9
    monkeypatch.setenv("FATHOM_SLOTS", "")
    assert read_settings({}).slots == 64


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FATHOM_API_KEYS", " one, two,")
    monkeypatch.setenv("FATHOM_STEP_BUCKETS", "0.1,1")
    settings = read_settings({})
    assert [key.get_secret_value() for key in settings.api_keys] == ["one", "two"]
    assert "one" not in repr(settings)
    assert settings.step_buckets == (0.1, 1.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "70000"),
        ("port", "http"),
        ("slots", "0"),
        ("device", "tpu"),
        ("backend", "jax"),
        ("drain_seconds", "-1"),
        ("stall_seconds", "nan"),
        ("max_body_bytes", "1.5"),
        ("log_level", "loud"),
        ("depth_buckets", "3,2"),
        ("depth_buckets", "a,b"),
        ("depth_buckets", ","),
    ],
)
def test_a_bad_setting_is_refused_by_its_names(name: str, value: str) -> None:
    with pytest.raises(StartupError) as refusal:
        read_settings({name: value})
    assert refusal.value.message.startswith(f"{name} ({flag_of(name)}, {variable_of(name)}): ")
    assert "\n" not in refusal.value.message
