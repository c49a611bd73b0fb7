"""POST /v1/infer is answered without the framework's layers; whoever takes the long way gets the same."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx
import pytest

from service.http.peer import WaitingClient
from service.http.v1 import infer
from tests.service.servers import Running, chain, serving

PAGE = "http://page.example"


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(cors_origins=PAGE, api_keys="one", allowed_hosts="fathom.example,127.0.0.1") as running:
        running.client.headers["authorization"] = "Bearer one"
        yield running


def facts(response: httpx.Response) -> tuple[object, ...]:
    """What does not depend on when it was asked."""
    content = response.json()
    content.pop("id", None)
    content.pop("timings_ms", None)
    names = {"access-control-allow-origin", "access-control-expose-headers", "vary", "date", "x-request-id"}
    return response.status_code, content, sorted(set(response.headers) - names - {"content-length"})


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({"input": chain(3)}, {}),
        ({"input": [chain(3), chain(5)], "include": ["scores", "trace"]}, {}),
        ({"input": {"edges": 1}}, {}),
        ({"input": chain(3), "model": "other"}, {}),
        ({"input": chain(3), "no_such_field": 1}, {}),
        ({"input": chain(3)}, {"authorization": "Bearer two"}),
        ({"input": chain(3)}, {"content-encoding": "br"}),
    ],
    ids=["one", "a list", "invalid", "unknown model", "unknown field", "no key", "unknown encoding"],
)
def test_both_ways_answer_alike(
    server: Running, body: dict[str, object], headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []
    enter = infer.enter
    monkeypatch.setattr(infer, "enter", lambda request: (taken.append("direct"), enter(request)))
    direct = server.client.post("/v1/infer", json=body, headers=headers)
    assert taken == ["direct"]
    around = server.client.post("/v1/infer", json=body, headers={**headers, "origin": PAGE})
    assert taken == ["direct"], "a page's request needs the headers of CORS"
    assert around.headers["access-control-allow-origin"] == PAGE
    assert facts(direct) == facts(around)
    assert direct.headers["x-request-id"]
    assert around.headers["x-request-id"]


def test_a_name_that_the_server_has_not_is_refused_on_the_direct_path(server: Running) -> None:
    headers = {"host": "evil.example"}
    refused = server.client.post("/v1/infer", json={"input": chain(3)}, headers=headers)
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "bad_request"


def test_both_ways_are_counted_once(server: Running) -> None:
    labels = {"model": "graph", "code": "200"}
    before = server.metric("fathom_requests_total", **labels)
    for headers in ({}, {"origin": PAGE}):
        server.client.post("/v1/infer", json={"input": chain(3)}, headers=headers).raise_for_status()
    assert server.client.get("/metrics").status_code == 200
    assert server.metric("fathom_requests_total", **labels) == before + 2


class Noted:
    """A ticket that only notes what becomes of it."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def cancel(self) -> None:
        self.calls.append("cancelled")

    def close(self) -> None:
        self.calls.append("closed")


def test_where_another_server_has_the_connection_its_word_that_a_client_has_gone_is_listened_for() -> None:
    async def ask() -> tuple[bool, list[str]]:
        ticket, messages = Noted(), iter(["http.request", "http.disconnect"])

        async def receive() -> dict[str, str]:
            return {"type": next(messages)}

        with WaitingClient({"type": "http"}, receive, ticket) as client:  # type: ignore[arg-type]
            while not client.gone:
                await asyncio.sleep(0)
        return client.gone, ticket.calls

    assert asyncio.run(ask()) == (True, ["cancelled", "closed"])
