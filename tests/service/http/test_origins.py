"""Browsers at the door: which names the server answers to, and whose pages may call it."""

from __future__ import annotations

import httpx
import pytest

from service.errors import StartupError
from service.http.origins import hosts_of
from service.settings import read_settings
from tests.service.servers import Running, chain, serving

PAGE = "https://app.example"
ASKS = {"origin": PAGE, "access-control-request-method": "POST"}


def preflight(server: Running, **more: str) -> httpx.Response:
    headers = {**ASKS, **{name.replace("_", "-"): value for name, value in more.items()}}
    return server.client.options("/v1/infer", headers=headers)


def test_without_the_setting_no_page_is_let_in() -> None:
    with serving() as server:
        answer = preflight(server)
        assert answer.status_code == 405
        assert not [name for name in answer.headers if name.startswith("access-control")]
        answer = server.client.post("/v1/infer", json={"input": chain(2)}, headers={"origin": PAGE})
        assert answer.is_success
        assert "access-control-allow-origin" not in answer.headers


def test_a_page_that_is_allowed_asks_first_without_a_key_and_then_with_one() -> None:
    with serving(cors_origins=f"{PAGE},https://b.example", api_keys="one") as server:
        answer = preflight(
            server, access_control_request_headers="authorization, content-type, x-request-id, traceparent"
        )
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == PAGE
        headers = {"origin": PAGE, "authorization": "Bearer one"}
        answer = server.client.post("/v1/infer", json={"input": chain(2)}, headers=headers)
        assert answer.is_success
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert "X-Request-Id" in answer.headers["access-control-expose-headers"]
        refused = server.client.post("/v1/infer", json={"input": chain(2)}, headers={"origin": PAGE})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == PAGE, "the page may read why"


@pytest.mark.parametrize(
    "more",
    [
        {"origin": "https://evil.example"},
        {"origin": "http://app.example"},
        {"access_control_request_method": "PUT"},
        {"access_control_request_headers": "x-other"},
    ],
)
def test_a_preflight_that_is_refused_has_the_shape_of_every_error(more: dict[str, str]) -> None:
    with serving(cors_origins=PAGE) as server:
        answer = preflight(server, **more)
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "bad_request"
        assert "FATHOM_CORS_ORIGINS" in answer.json()["error"]["message"]
        assert answer.headers["x-request-id"]


def test_a_star_lets_every_page_in_but_no_cookie() -> None:
    with serving(cors_origins="*") as server:
        answer = preflight(server, origin="https://any.example")
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    ("allowed", "host", "status"),
    [
        ("", "localhost:8000", 200),
        ("", "127.0.0.1", 200),
        ("", "[::1]:8000", 200),
        ("", "page.localhost", 200),
        ("", "evil.example", 400),
        ("", "localhost.evil.example", 400),
        ("api.example", "api.example:8000", 200),
        ("api.example", "API.example", 200),
        ("api.example", "localhost", 400),
        ("*.example", "b.a.example", 200),
        ("*.example", "badexample", 400),
        ("*", "evil.example", 200),
    ],
)
def test_a_server_answers_to_its_names(allowed: str, host: str, status: int) -> None:
    with serving(allowed_hosts=allowed, wait_for_ready=False) as server:
        answer = server.client.get("/version", headers={"host": host})
        assert answer.status_code == status
        assert server.client.get("/health/live", headers={"host": host}).status_code == 200, "probes may"
        if status == 400:
            assert answer.json()["error"]["code"] == "bad_request"
            assert "FATHOM_ALLOWED_HOSTS" in answer.json()["error"]["message"]
            assert answer.headers["x-request-id"]
            answer = server.client.get("/v2", headers={"host": host})
            assert "FATHOM_ALLOWED_HOSTS" in answer.json()["error"], "in the shape of /v2"


def test_what_listens_on_other_addresses_answers_to_every_name_unless_told() -> None:
    assert hosts_of(read_settings({"host": "0.0.0.0"})) == ["*"]
    assert hosts_of(read_settings({"host": "0.0.0.0", "allowed_hosts": "a"})) == ["a"]
    assert "*" not in hosts_of(read_settings({"host": "127.0.0.2"}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cors_origins", "app.example"),
        ("cors_origins", "https://app.example/"),
        ("allowed_hosts", "https://app.example"),
        ("allowed_hosts", "app.*"),
        ("allowed_hosts", "app.example:80"),
    ],
)
def test_what_could_never_match_is_refused(name: str, value: str) -> None:
    with pytest.raises(StartupError, match=name):
        read_settings({name: value})
