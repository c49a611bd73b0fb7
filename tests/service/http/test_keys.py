"""API keys: which open which door, what they may be made of, the file of hashed ones, and their end."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from fastapi import Depends
from typer.testing import CliRunner

from service.cli import app as command
from service.engine.messages import Submission
from service.engine.ticket import Ticket
from service.errors import StartupError, Unauthorized
from service.http.keys import Caller, Keys, check_admin
from service.http.keys_file import new_key
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
    assert (Keys(["one", "two"]).caller(header) is not None) is opens


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
        told = [record.getMessage() for record in caplog.records if record.name == "fathom.access"]
        lines = [line for line in told if "/health" not in line]  # its line may come after its answer
        assert lines[0].startswith("127.0.0.1 GET /v1/models 401 mine ms=")
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
        submit = server.served.submit

        def noting(submission: Submission, *more: Any) -> Ticket:
            seen.append(submission.key)
            return submit(submission, *more)

        monkeypatch.setattr(server.served, "submit", noting)
        for key in ("first", "second", "first"):
            headers = {"authorization": f"Bearer {key}"}
            assert server.client.post("/v1/infer", json={"input": chain(2)}, headers=headers).is_success
    assert seen[0] == seen[2]
    assert len(set(seen)) == accounts


# --- the file ---


def filed(path: Path, *lines: str) -> Path:
    path.write_text("# keys of a test\n\n" + "".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def header(key: str) -> bytes:
    return f"Bearer {key}".encode()


def test_a_key_of_the_file_opens_under_its_name_and_the_file_holds_no_key(tmp_path: Path) -> None:
    key, line = new_key("ada", max_streams=3)
    file = filed(tmp_path / "keys", line)
    assert key not in file.read_text()
    keys = Keys(file=file)
    caller = keys.caller(header(key))
    assert caller is not None
    assert (caller.name, caller.admin, caller.allowance.max_streams) == ("ada", False, 3)
    assert keys.caller(header(key[:-1])) is None
    assert keys.caller(header(json.loads(line)["sha256"])) is None, "the hash is no key"


def test_the_command_prints_the_key_and_its_line(tmp_path: Path) -> None:
    done = CliRunner().invoke(command, ["key", "ops", "--admin", "--expires", "2999-01-01"])
    assert done.exit_code == 0
    key, line = done.stdout.splitlines()
    caller = Keys(file=filed(tmp_path / "keys", line)).caller(header(key))
    assert caller == Caller("ops", admin=True)
    assert CliRunner().invoke(command, ["key", "no name"]).exit_code == 2
    assert CliRunner().invoke(command, ["key", "ops", "--expires", "2020-01-01"]).exit_code == 2
    assert CliRunner().invoke(command, ["key", "ops", "--expires", "soon"]).exit_code == 2


def test_a_file_without_keys_is_no_open_door(tmp_path: Path) -> None:
    assert Keys(file=filed(tmp_path / "keys")).wanted
    assert not Keys(admin=["root"]).wanted
    assert not Keys().wanted


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("secret", "not JSON"),
        ("[]", "valid dictionary"),
        ('{"name": "a"}', "sha256"),
        ('{"name": "a", "sha256": "secret"}', "sha256"),
        ('{"name": "api-key-1", "sha256": "HASH"}', "taken"),
        ('{"name": "a", "sha256": "HASH", "steps_per_second": -1}', "steps_per_second"),
        ('{"name": "a", "sha256": "HASH", "expires": "never"}', "expires"),
        ('{"name": "a", "sha256": "HASH", "limit": 1}', "limit"),
        ('{"name": "a", "sha256": "HASH"}\n{"name": "a", "sha256": "HASH"}', "above"),
    ],
)
def test_a_line_that_is_no_key_ends_the_start_and_is_not_shown(tmp_path: Path, line: str, words: str) -> None:
    file = filed(tmp_path / "keys", line.replace("HASH", 64 * "a"))
    with pytest.raises(StartupError, match=words) as refusal:
        Keys(file=file)
    assert f"{file}:" in refusal.value.message
    assert "secret" not in refusal.value.message


def test_a_file_that_is_not_there_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="No such file"):
        Keys(file=tmp_path / "none")


def test_a_key_that_has_expired_opens_nothing_and_says_so(tmp_path: Path) -> None:
    key, line = new_key("ada", expires="2999-01-01")
    past = {**json.loads(line), "expires": "2020-01-01"}
    assert Keys(file=filed(tmp_path / "new", line)).caller(header(key)) is not None
    with pytest.raises(Unauthorized, match="'ada' has expired"):
        Keys(file=filed(tmp_path / "old", json.dumps(past))).caller(header(key))


def test_a_file_that_changes_is_read_again_and_a_broken_one_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("service.http.keys.LOOK_SECONDS", 0.0)
    (first, one), (second, two) = new_key("one"), new_key("two")
    file = filed(tmp_path / "keys", one)
    keys = Keys(file=file)
    assert keys.caller(header(second)) is None

    def rewritten(*lines: str) -> None:
        filed(tmp_path / "next", *lines)
        os.replace(tmp_path / "next", file)

    rewritten(two)
    assert keys.caller(header(first)) is None
    assert keys.caller(header(second)) == Caller("two")
    rewritten("{")
    assert keys.caller(header(second)) == Caller("two")
    assert "the keys from before stay" in caplog.text
    file.unlink()
    assert keys.caller(header(second)) == Caller("two")
    rewritten(one)
    assert keys.caller(header(first)) == Caller("one")


def test_the_file_is_not_asked_on_every_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = Keys(file=filed(tmp_path / "keys"))
    now = time.monotonic()
    looks: list[Path] = []
    monkeypatch.setattr("service.http.keys.stamp_of", lambda file: looks.append(file) or "unchanged")
    for later in (0.1, 0.2, 0.9, 1.1, 1.2, 2.3):
        monkeypatch.setattr("service.http.keys.time.monotonic", lambda later=later: now + later)
        keys.caller(b"")
    assert len(looks) == 2


# --- administration ---


def test_what_is_for_administration_is_closed_without_a_key_for_it() -> None:
    async def route() -> str:
        return "open"

    for given, key, status, code in (
        ({}, "", 403, "forbidden"),
        ({"api_keys": "user"}, "user", 403, "forbidden"),
        ({"api_keys": "user", "admin_keys": "root"}, "user", 403, "forbidden"),
        ({"api_keys": "user", "admin_keys": "root"}, "", 401, "unauthorized"),
        ({"api_keys": "user", "admin_keys": "root"}, "rot", 401, "unauthorized"),
        ({"admin_keys": "root"}, "root", 200, None),
    ):
        with serving(**given) as server:
            server.app.add_api_route("/closed", route, dependencies=[Depends(check_admin)])
            answer = server.client.get("/closed", headers=bearer(key) if key else {})
            error = answer.json()["error"] if answer.is_error else {}
            assert (answer.status_code, error.get("code")) == (status, code), given
            if "admin_keys" not in given:
                assert "FATHOM_ADMIN_KEYS" in error["message"]


def test_a_key_for_administration_opens_v1_too_and_alone_does_not_close_it() -> None:
    with serving(admin_keys="root") as server:
        assert server.infer(chain(2)).is_success
    with serving(admin_keys="root", api_keys="user") as server:
        assert server.infer(chain(2)).status_code == 401
        for key in ("root", "user"):
            answer = server.client.post("/v1/infer", json={"input": chain(2)}, headers=bearer(key))
            assert answer.is_success


def test_a_server_answers_keys_of_a_file(tmp_path: Path) -> None:
    key, line = new_key("ada", max_problems=2, max_body_bytes=3000)
    with serving(keys_file=str(filed(tmp_path / "keys", line))) as server:
        assert server.infer(chain(2)).status_code == 401
        client = server.client
        client.headers.update(bearer(key))
        assert server.infer(chain(2)).is_success
        assert client.get("/v1/models").is_success
        limits = client.get("/v1/models/graph").json()["limits"]
        assert limits == {"max_problems": 2, "max_body_bytes": 3000}
        refused = server.infer([chain(1)] * 3)
        assert (refused.status_code, refused.json()["error"]["field"]) == (422, "input")
        assert server.infer(chain(2, nodes=list(range(1000)))).status_code == 413
