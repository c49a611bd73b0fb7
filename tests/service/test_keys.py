"""API keys: which open the door, what they may be made of, and that no log has them."""

from __future__ import annotations

import logging
import threading

import pytest

from service.engine.ticket import Ticket
from service.engine.work import Submission
from service.errors import StartupError
from service.http.front import Keys
from service.settings import read_settings
from tests.service.servers import chain, serving
from tests.service.wire import Wire, post

KEY = "ключ-é"


@pytest.mark.parametrize("none", [",", " , ,", " "])
def test_keys_that_are_none_are_refused_and_not_an_open_door(
    none: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StartupError, match=r"api_keys .*no key"):
        read_settings({"api_keys": none})
    monkeypatch.setenv("FATHOM_API_KEYS", none)
    with pytest.raises(StartupError, match=r"api_keys .*no key"):
        read_settings({})
    monkeypatch.setenv("FATHOM_API_KEYS", "")
    assert read_settings({}).api_keys == ()


def test_a_key_need_not_be_ascii() -> None:
    with serving(api_keys=f"other,{KEY}") as server, Wire(server) as connection:
        connection.socket.sendall(signed(KEY.encode()))
        assert connection.answer().status == 200
        for wrong in (KEY.encode()[:-1], "ключ".encode(), b"\xff\xfe"):
            connection.socket.sendall(signed(wrong))
            assert connection.answer().code == "unauthorized"


def signed(key: bytes) -> bytes:
    return post({"input": chain(3)}, more="authorization: KEY\r\n").replace(b"KEY", b"Bearer " + key)


@pytest.mark.parametrize(
    ("header", "opens"),
    [
        (b"Bearer one", True),
        (b"bearer two", True),
        (b"BEARER  one", True),
        (b"Bearer one two", False),
        (b"Bearer on", False),
        (b"Bearer ", False),
        (b"Basic one", False),
        (b"one", False),
        (b"", False),
    ],
)
def test_a_header_opens_the_door_with_one_of_the_keys(header: bytes, opens: bool) -> None:
    assert Keys(["one", "two"]).admit(header) is opens
    assert Keys([]).admit(header)


def test_checking_a_key_takes_no_thread() -> None:
    with serving(api_keys="one") as server:
        before = threading.active_count()
        for _ in range(5):
            assert server.client.get("/v1/models", headers={"authorization": "Bearer one"}).status_code == 200
        assert threading.active_count() == before


def test_the_access_log_has_a_line_per_answer_and_no_query(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with serving(access_log=True, api_keys="one") as server:
        caplog.clear()
        server.client.get("/v1/models?api_key=one", headers={"x-request-id": "mine"})
        server.client.get("/no%0Awhere?api_key=one")
        lines = [record.getMessage() for record in caplog.records if record.name == "fathom.access"]
        assert lines[0] == "127.0.0.1 GET /v1/models 401 mine"
        assert lines[1].startswith("127.0.0.1 GET /no%0Awhere 404 req_")
        ours = [record for record in caplog.records if record.name != "httpx"]
        assert not [record for record in ours if "one" in record.getMessage()]


def test_without_the_setting_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with serving() as server:
        server.client.get("/v1/models?api_key=one")
    assert not [record for record in caplog.records if record.name in ("fathom.access", "uvicorn.access")]


@pytest.mark.parametrize(("keys", "accounts"), [("first,second", 2), ("", 1)], ids=["keys", "no keys"])
def test_every_key_thinks_on_an_account_of_its_own(
    keys: str, accounts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(api_keys=keys) as server:
        seen: list[str] = []
        submit = server.worker.submit

        def noting(submission: Submission, reserved: int = 0) -> Ticket:
            seen.append(submission.key)
            return submit(submission, reserved)

        monkeypatch.setattr(server.worker, "submit", noting)
        for key in ("first", "second", "first"):
            headers = {"authorization": f"Bearer {key}"}
            assert server.client.post("/v1/infer", json={"input": chain(2)}, headers=headers).is_success
    assert seen[0] == seen[2]
    assert len(set(seen)) == accounts
