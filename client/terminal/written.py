"""Problems as people write them: JSON, or the words alone where a model's schema says what they must be."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from client.answers import Model
from client.blocking import Client
from client.errors import Invalid

JSON_BEGINS = ("{", "[", '"')
BETWEEN_EDGES = re.compile(r"[\n,;]")
BETWEEN_NODES = re.compile(r"\s*->\s*|\s+")
BETWEEN_SENTENCES = re.compile(r"\n|\.\s")


def read(text: str, client: Client, model: str) -> Any:
    """What a problem on the command line says; a server is asked only where that depends on its model.

    Raises Invalid where it is neither JSON nor a problem in words, and what asking raises.
    """
    said = from_json(text, "the problem") if is_json(text) else text
    if isinstance(said, list) and any(isinstance(one, str) for one in said):
        asked = client.model(model)
        return [from_words(one, asked) if isinstance(one, str) else one for one in said]
    return from_words(said, client.model(model)) if isinstance(said, str) else said


def is_json(text: str) -> bool:
    """Whether a text is meant to be JSON, and no words."""
    return text.lstrip().startswith(JSON_BEGINS)


def from_json(text: str, what: str) -> Any:
    """Raises Invalid, which says what is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"{what} is not JSON: {error}") from None


def from_words(text: str, model: Model) -> Any:
    """The problem that a text without any JSON is for a model.

    One string is asked for: the text is that. Edges: `a b, b c ? a c`, or `a -> b -> c ? a c`. Facts:
    sentences, and the question behind a `?`, or before one as the last sentence. Lines do as well as commas
    and full stops. Raises Invalid, with what to write, for anything else.
    """
    schema = model.schema or {}
    fields: Mapping[str, Any] = schema.get("properties", {})
    needed = list(schema.get("required", ()))
    match sorted(needed):
        case ["edges", "source", "target"]:
            return _graph(text)
        case ["facts", "query"]:
            return _story(text)
        case [only] if fields.get(only, {}).get("type") == "string":
            return {only: text.strip()}
    example = "" if model.example is None else f", such as {json.dumps(model.example)[:300]}"
    raise Invalid(f"a problem for {model.name} is written as JSON{example}")


def _graph(text: str) -> Any:
    drawn, mark, asked = text.partition("?")
    ends = BETWEEN_NODES.split(asked.strip())
    if not mark or len(ends) != 2 or not all(ends):
        raise Invalid("a graph ends with the question: a b, b c ? a c asks whether c can be reached from a")
    edges = []
    for written in filter(None, map(str.strip, BETWEEN_EDGES.split(drawn))):
        nodes = BETWEEN_NODES.split(written)
        if len(nodes) < 2 or not all(nodes):
            raise Invalid(
                f"{written!r} is no edge: write two nodes, as in a b, or a chain, as in a -> b -> c"
            )
        edges += [list(edge) for edge in pairwise(nodes)]
    return {"edges": edges, "source": ends[0], "target": ends[1]}


def _story(text: str) -> Any:
    facts, mark, query = (part.strip() for part in text.partition("?"))
    if mark and not query:  # the question's own mark, at its end
        *before, query = BETWEEN_SENTENCES.split(facts)
        facts = facts[: len(facts) - len(query)].strip()
        if not before:
            facts = ""
    if not facts or not query:
        raise Invalid(
            "write the facts, then a ? and what is asked, or the question last with its ? behind it"
        )
    return {"facts": facts, "query": query}
