"""The log: facts of every request, in lines for people or objects for programs, and no key anywhere."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.http.keys_file import new_key
from service.telemetry.logs import JsonLines
from tests.service.servers import CountingRunner, chain, events, eventually, graph_alone, serving
from tests.service.test_process import fathom_serve


def facts(caplog: pytest.LogCaptureFixture, number: int = 1) -> list[dict[str, Any]]:
    """What the log has of requests, once it has so many."""

    def records() -> list[logging.LogRecord]:
        told = [record for record in caplog.records if record.name == "fathom.access"]
        # The line of the question whether the server is ready may come after its answer.
        return [record for record in told if "/health" not in JsonLines().format(record)]

    eventually(lambda: len(records()) >= number)
    return [json.loads(JsonLines().format(record)) for record in records()]


def test_a_request_is_told_with_all_that_is_known_of_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with serving(access_log=True, api_keys="one") as server:
        caplog.clear()
        headers = {
            "authorization": "Bearer one",
            "x-request-id": "mine",
            "traceparent": f"00-{32 * 'a'}-{16 * 'b'}-01",
        }
        body = {"input": [chain(3), chain(5), chain(60)], "max_steps": 8}
        assert server.client.post("/v1/infer?api_key=one", json=body, headers=headers).is_success
        (line,) = facts(caplog)
        assert line.pop("ms") >= line.pop("compute_ms") > 0
        assert line.pop("queue_ms") >= 0
        assert line.pop("time").endswith("+00:00")
        assert line == {
            "level": "info",
            "logger": "fathom.access",
            "message": "request",
            "client": "127.0.0.1",
            "method": "POST",
            "path": "/v1/infer",
            "status": 200,
            "id": "mine",
            "key": "api-key-1",
            "model": "graph",
            "version": "1",
            "problems": 3,
            "steps": 16,
            "halted": {"halted": 2, "budget": 1},
            "trace": 32 * "a",
        }
        text = caplog.records[0].getMessage()
        assert text.startswith("127.0.0.1 POST /v1/infer 200 mine ")
        for fact in ("key=api-key-1", "model=graph", "steps=16", "budget=1", f"trace={32 * 'a'}"):
            assert fact in text.split()


def test_refusals_and_failures_have_their_status(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with serving(access_log=True, runner=CountingRunner(nan_nodes=4)) as server:
        caplog.clear()
        server.infer("nothing")
        server.infer(chain(3))
        with server.client.stream("POST", "/v1/infer", json={"input": chain(3), "stream": True}) as response:
            assert [name for name, _ in events(response)][-1] == "error"
        refused, failed, stream = facts(caplog, 3)
    assert (refused["status"], "steps" in refused) == (422, False)
    assert (failed["status"], failed["halted"]) == (500, {"error": 1})
    assert stream["status"] == 500, "whatever its status line said"


def test_a_record_is_one_line_whatever_it_holds() -> None:
    try:
        raise ValueError("line\nbreak \u2028 \ud800")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "broke\n%s", ("é",), sys.exc_info())
    text = JsonLines().format(record)
    assert len(text.splitlines()) == 1
    line = json.loads(text)
    assert (line["message"], line["level"]) == ("broke\né", "error")
    assert "ValueError" in line["traceback"]


@pytest.mark.parametrize("format_", ["text", "json"])
def test_a_server_never_shows_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format_: str) -> None:
    filed, line = new_key("ada", requests_per_second=5)
    (tmp_path / "keys").write_text(line)
    plain, admin, wrong = "plain-hush-hush", "admin-hush-hush", "wrong-hush-hush"
    secrets = [filed, plain, admin, wrong]
    monkeypatch.setenv("FATHOM_API_KEYS", plain)
    monkeypatch.setenv("FATHOM_ADMIN_KEYS", admin)
    monkeypatch.setenv("FATHOM_KEYS_FILE", str(tmp_path / "keys"))
    captured = tmp_path / "captured.jsonl"
    repository = str(graph_alone(tmp_path))
    flags = [
        "--repository",
        repository,
        "--log-level",
        "debug",
        "--access-log",
        "true",
        "--log-format",
        format_,
    ]
    shown: list[str] = []

    def tell(answer: httpx.Response) -> None:
        shown.extend([str(answer.headers.raw), answer.text])

    with fathom_serve(*flags, "--capture-file", str(captured)) as server:
        infer = {"model": "graph", "input": chain(2)}
        for key in secrets:
            for offered in (f"Bearer {key}", f"Basic {key}", key):
                headers = {"authorization": offered, "x-request-id": f"mine {key}"}
                tell(server.client.post(f"/v1/infer?key={key}", json=infer, headers=headers))
                tell(server.client.post("/v1/infer", json={**infer, "stream": True}, headers=headers))
                tell(server.client.post("/v1/infer", content=b"{", headers=headers))
                tell(server.client.get(f"/{key}/nowhere", headers={"authorization": offered}))
                tell(server.client.post("/v2/repository/models/none/unload", json={}, headers=headers))
        for path in ("/metrics", "/version", "/openapi.json", "/v1/models", "/docs"):
            tell(server.client.get(path, headers={"authorization": f"Bearer {filed}"}))
        (tmp_path / "keys").write_text("{")
        for _ in range(3):
            tell(server.client.get("/v1/models", headers={"authorization": f"Bearer {plain}"}))
        assert server.stop() == 0
    assert captured.read_text().count('"input"') > 5
    assert any("ada" in said for said in server.log), "it is known by its name"
    for said in (*shown, *server.log, captured.read_text()):
        for key in secrets:
            assert key not in said, said[:300]
    if format_ == "json":
        lines = [json.loads(said) for said in server.log]
        assert {line["key"] for line in lines if "key" in line} == {"ada", "api-key-1", "admin-key-1"}
