"""Flags declared as fields of a dataclass, and what their texts mean."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import Field, dataclass, field
from typing import Any

from loadtest.errors import LoadTestError


@dataclass(frozen=True)
class Flag:
    """How a field of the plan is asked for on the command line.

    `parse` makes its value of the flag's text; without it the field's own type does. `shown` is the default
    in words. Numbers must be greater than `above` and between `least` and `most`.
    """

    panel: str
    help: str
    parse: Callable[[str], Any] | None = None
    shown: str | None = None
    above: float = -math.inf
    least: float = -math.inf
    most: float = math.inf


def flag_name(name: str) -> str:
    """`--duration` for the field `duration_s`: a flag counts in seconds unless it says otherwise."""
    return "--" + name.removesuffix("_s").replace("_", "-")


def flag(default: Any, panel: str, text: str, *, secret: bool = False, **more: Any) -> Any:
    """A field of a dataclass that is a flag; `more` goes to Flag. One that is `secret` is not in the repr."""
    metadata = {"flag": Flag(panel, text, **more)}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata, repr=not secret)
    return field(default=default, metadata=metadata, repr=not secret)


def numbers(text: str) -> tuple[float, ...]:
    """`50,100` as numbers, in the order given."""
    if not re.fullmatch(r"\d+(\.\d+)?(,\d+(\.\d+)?)*", text):
        raise LoadTestError("give numbers such as 8 or 1,8,32")
    return tuple(dict.fromkeys(float(part) for part in text.split(",")))


def whole_numbers(text: str) -> tuple[int, ...]:
    """`1,8` as whole numbers, in the order given."""
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise LoadTestError("give whole numbers such as 8 or 1,8,32")
    return tuple(dict.fromkeys(int(part) for part in text.split(",")))


def number_range(text: str) -> tuple[int, int]:
    """`3` or `1-5` as the lowest and the highest."""
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    if not found or int(found[2] or found[1]) < int(found[1]):
        raise LoadTestError("give a number or a range such as 1-5")
    return int(found[1]), int(found[2] or found[1])


def halting_rule(text: str) -> dict[str, Any] | None:
    """A halting rule in JSON; None for `default`, the server's own."""
    if text == "default":
        return None
    try:
        rule = json.loads(text)
    except ValueError:
        rule = None
    if not isinstance(rule, dict):
        raise LoadTestError('give a JSON object such as {"criterion": "kl"}, or default')
    return rule


def headers(text: str) -> dict[str, str]:
    """`NAME=VALUE,…` as headers."""
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(
        re.fullmatch(r"[!#$%&'*+.^_`|~\w-]+", name) and value.isprintable() for name, _, value in pairs
    ):
        raise LoadTestError("give NAME=VALUE,NAME=VALUE,…")
    return {name: value for name, _, value in pairs}


def check_bounds(each: Field[Any], value: Any) -> None:
    """Raises LoadTestError for a number that is not finite or beyond the bounds of its flag."""
    asked: Flag | None = each.metadata.get("flag")
    for number in value if isinstance(value, tuple) else (value,):
        if asked is None or not isinstance(number, int | float):
            continue
        name = flag_name(each.name)
        if not math.isfinite(number) or number <= asked.above:
            raise LoadTestError(f"{name} must be above {max(asked.above, 0):g}, not {number:g}")
        if not asked.least <= number <= asked.most:
            most = "" if math.isinf(asked.most) else f" and at most {asked.most:g}"
            raise LoadTestError(f"{name} must be at least {asked.least:g}{most}, not {number:g}")
