"""A JSON body: read within bounds, and held against its model in words that help a caller."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NoReturn, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from model.errors import RequestError
from model.spelling import did_you_mean
from service.errors import InvalidJson

EXPECTED = {  # what to say instead of the library's words, by its error type
    "missing": "is missing; every request needs it",
    "int_type": "must be an integer",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be a string",
    "string_unicode": "must be a string of valid Unicode",
    "list_type": "must be a list",
    "model_type": "must be an object",
    "dict_type": "must be an object",
    "literal_error": "must be {expected}",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be above {gt}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "too_long": "must have at most {max_length} items",
    "too_short": "must have at least {min_length} items",
}
MOST_CONTAINERS = 2**18  # lists and objects in one body: more than a graph's edges, and read within 50 ms


class Part(BaseModel):
    """Base of everything in a body: unknown fields are errors, and types are not converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


P = TypeVar("P", bound=Part)


def read_json(body: bytes) -> Any:
    """What a body says; none that would take long to read. Raises InvalidJson."""
    if body.count(b"[") + body.count(b"{") > MOST_CONTAINERS:
        raise InvalidJson(
            f"the body opens more than {MOST_CONTAINERS:,} lists and objects; send fewer at once"
        )
    try:
        with _collector_at_rest():
            text = body.decode(json.detect_encoding(body), "surrogatepass")
            return DECODER.decode(text)
    except RecursionError:
        raise InvalidJson("the body is nested too deeply") from None
    except ValueError as error:  # bad syntax, bad UTF-8, or an integer of thousands of digits
        raise InvalidJson(f"the body is not JSON: {error}") from None


def validated(content: object, model: type[P], unsupported: tuple[str, ...] = ()) -> P:
    """What a body says, as its model. Raises RequestError whose message goes after the field's name.

    unsupported: how names begin that other servers know and this one does not.
    """
    # Before the library words a complaint about each of a hundred thousand.
    for path, part in () if _all_known(content, model) else _unknown_fields(content, model):
        name, known = path[-1], list(part.model_fields)
        what = "is not supported here" if name.startswith(unsupported) else "is an unknown field"
        raise RequestError(
            f"{what}; {did_you_mean(name, known)}known here: {', '.join(known)}", ".".join(path)
        )
    try:
        return model.model_validate(content)
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        expected = EXPECTED.get(fault["type"])
        reason = expected.format(**fault.get("ctx", {})) if expected else fault["msg"]
        field = ".".join(str(part) for part in fault["loc"])
        raise RequestError(reason if field else f"the body {reason}", field or None) from None


def _unknown_fields(
    content: object, model: type[BaseModel], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], type[BaseModel]]]:
    """The path of every field that no model has, and the model of the object that it is in."""
    if not isinstance(content, dict):
        return
    for name in content:
        if name not in model.model_fields:
            yield (*path, name), model
    for name, part in _parts(model).items():
        found = content.get(name)
        if isinstance(found, list):
            for place, item in enumerate(found):
                yield from _unknown_fields(item, part, (*path, name, str(place)))
        else:
            yield from _unknown_fields(found, part, (*path, name))


def _all_known(content: object, model: type[BaseModel]) -> bool:
    """Whether there is no unknown field, as far as that can be told at a glance."""
    if not isinstance(content, dict) or not content.keys() <= model.model_fields.keys():
        return False
    return all(
        content[name] is None or _all_known(content[name], part)
        for name, part in _parts(model).items()
        if name in content
    )


@cache
def _parts(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """The models of a model's fields that are objects, or lists of objects."""
    found = {name: _part_in(field.annotation) for name, field in model.model_fields.items()}
    return {name: part for name, part in found.items() if part is not None}


def _part_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((part for each in get_args(annotation) if (part := _part_in(each))), None)


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """No search for cycles, which JSON has not: beside 350,000 new lists it stops everything for 0.1 s."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


DECODER = json.JSONDecoder(parse_constant=_refuse_constant)  # made once, not for every body
