"""The Python in the documentation is run, page by page, against the shipped bundles on a real server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from client.terms import TAKES, Halting, Intervention, Latents, Samples, Terms
from service.http.v1 import schemas
from tests.service.servers import shipped_running

PAGES = ["docs/client.md", "docs/http.md", "README.md"]
EXAMPLES = {
    page: re.findall(r"```python\n(.+?)```", Path(page).read_text("utf-8"), re.DOTALL) for page in PAGES
}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with shipped_running() as client:
        yield str(client.base_url)


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_prints_what_the_page_says(
    address: str, page: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert EXAMPLES[page], f"{page} has no Python"
    names: dict[str, Any] = {}
    try:
        for example in EXAMPLES[page]:
            exec(compile(example.replace("http://localhost:8000", address), page, "exec"), names)
            promised = re.findall(r"^ *print\(.+\)  # (.+)$", example, re.MULTILINE)
            assert promised, example
            assert capsys.readouterr().out.splitlines() == promised
    finally:
        if "client" in names:  # a page leaves its client open
            names["client"].close()


def test_the_client_takes_what_the_server_takes() -> None:
    """A field that is new on the one side is missed on the other."""
    server = set(schemas.InferRequest.model_fields) - {"model", "input", "stream"}
    assert set(Terms.__annotations__) == set(TAKES) == server | {"request_id"}
    assert set(Halting.__annotations__) == set(schemas.Halting.model_fields)
    assert set(Latents.__annotations__) == set(schemas.Latents.model_fields) - {"encoding"}
    assert set(Samples.__annotations__) == set(schemas.Samples.model_fields)
    assert set(Intervention.__annotations__) == set(schemas.Intervention.model_fields)


def test_the_page_names_every_term_and_every_error() -> None:
    import client

    page = Path("docs/client.md").read_text("utf-8")
    errors = [
        name
        for name in client.__all__
        if isinstance(kind := getattr(client, name), type) and issubclass(kind, Exception)
    ]
    for name in (*TAKES, *errors):
        assert f"`{name}`" in page, name
