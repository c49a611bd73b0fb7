"""What arrives on a connection before a route sees it is bounded, in order, and refused in one shape."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator

import pytest

from tests.service.servers import Running, chain, counting_bundle, eventually, serving
from tests.service.wire import LIVE, Wire, post

MOST = 4096  # bytes of a target, of headers
GET = b"GET /health/live HTTP/1.1\r\nhost: x\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(
        max_line_bytes=MOST, max_header_bytes=MOST, max_headers=20, max_body_bytes=100_000
    ) as running:
        yield running


@pytest.mark.parametrize(
    ("status", "code", "content"),
    [
        (414, "target_too_long", b"GET /" + b"a" * MOST + b" HTTP/1.1\r\n\r\n"),
        (431, "head_too_large", GET + b"a: " + b"b" * MOST + b"\r\n\r\n"),
        (431, "head_too_large", GET + b"a: b\r\n" * 20 + b"\r\n"),
        (400, "bad_request", b"hello\r\n\r\n"),
        (400, "bad_request", b"GET / HTTP/1.1\r\na b: c\r\n\r\n"),
        (400, "bad_request", b"GET / HTTP/1.1\r\na: b\0c\r\n\r\n"),
        (400, "bad_request", b"\x16\x03\x01\x02\x00\x01\x00"),
        (400, "bad_request", b"CONNECT example.com:443 HTTP/1.1\r\nhost: example.com\r\n\r\n"),
        (400, "bad_request", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        (400, "bad_request", b"POST /v1/infer HTTP/1.1\r\ncontent-length: 9e9\r\n\r\n"),
        (
            400,
            "bad_request",
            b"POST /v1/infer HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (400, "bad_request", b"POST /v1/infer HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"),
    ],
    ids=lambda value: repr(value[:30]) if isinstance(value, bytes) else None,
)
def test_what_cannot_be_read_is_refused_in_the_one_shape_and_the_connection_ends(
    server: Running, status: int, code: str, content: bytes
) -> None:
    with Wire(server) as connection:
        connection.send(content)
        refused = connection.answer()
        assert (refused.status, refused.code) == (status, code)
        assert refused.headers["connection"] == "close"
        assert connection.is_closed()


def test_a_head_just_under_the_bounds_is_read(server: Running) -> None:
    path = b"GET /health/live?" + b"a" * (MOST - 20) + b" HTTP/1.1\r\n"
    with Wire(server) as connection:
        connection.send(path + b"a: " + b"b" * (MOST - 200) + b"\r\n" + b"c: d\r\n" * 18 + b"\r\n")
        assert connection.answer().status == 200


@pytest.mark.parametrize(
    ("start", "more", "code"),
    [
        (b"GET /", b"a" * 1000, "target_too_long"),
        (GET, b"a" * 1000, "head_too_large"),
        (GET + b"a: ", b"a" * 1000, "head_too_large"),
        (GET, b"a: b\r\n" * 100, "head_too_large"),
        (b"", b"\r\n" * 500, "head_too_large"),
        (
            b"POST /v1/infer HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n",
            b"a: b\r\n" * 100,
            "head_too_large",
        ),
        (b"POST /v1/infer HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1;", b"a" * 1000, "head_too_large"),
    ],
    ids=["a path", "a name", "a value", "headers", "empty lines", "trailers", "a chunk's extension"],
)
def test_what_has_no_end_is_not_collected(server: Running, start: bytes, more: bytes, code: str) -> None:
    with Wire(server) as connection:
        connection.send(start)
        sent = 0
        with pytest.raises(ConnectionError):  # noqa: PT012  it ends while this is being sent
            while sent < 50_000_000:
                connection.socket.sendall(more * 10)
                sent += 10 * len(more)
        assert sent < 20_000_000, "what the system buffers on both sides, and a second of waiting"
        assert connection.answer().code == code


def test_the_longest_head_holds_nobody_up(server: Running) -> None:
    """Megabytes of one header took the event loop seconds, and twenty times their size in memory."""
    tracemalloc.start()
    try:
        with Wire(server) as connection:
            connection.send(GET + b"a: " + b"b" * 8_000_000)
            began = time.monotonic()
            assert server.client.get("/health/live").status_code == 200
            assert time.monotonic() - began < 1
        assert tracemalloc.get_traced_memory()[1] < 30_000_000, "of which this test holds two thirds"
    finally:
        tracemalloc.stop()


def test_requests_sent_at_once_are_answered_in_order(server: Running) -> None:
    depths = [5, 1, 3, 40, 2]
    with Wire(server) as connection:
        connection.send(b"".join(post({"input": chain(depth), "max_steps": 50}) + LIVE for depth in depths))
        for depth in depths:
            assert connection.answer().body["results"][0]["steps"] == max(depth, 2)
            assert connection.answer().body == {"status": "live"}


def test_a_request_in_single_bytes_is_read(server: Running) -> None:
    with Wire(server) as connection:
        for byte in post({"input": chain(3)}):
            connection.socket.sendall(bytes([byte]))
        assert connection.answer().body["results"][0]["steps"] == 3


def test_what_cannot_be_read_is_refused_after_the_answers_that_are_owed(server: Running) -> None:
    with Wire(server) as connection:
        connection.send(post({"input": chain(9)}) + LIVE + b"nonsense\r\n\r\n" + LIVE)
        assert connection.answer().body["results"][0]["steps"] == 9
        assert connection.answer().status == 200
        assert connection.answer().code == "bad_request"
        assert connection.is_closed()


def test_thousands_of_requests_at_once_wait_with_the_client(server: Running) -> None:
    server.runner.may_step.clear()
    try:
        with Wire(server) as connection:
            connection.send(post({"input": chain(2)}))
            server.runner.wait_until(taken=1)
            tracemalloc.start()
            connection.send(LIVE * 2000)
            assert server.client.get("/health/live").status_code == 200
            assert tracemalloc.get_traced_memory()[1] < 1_500_000
            tracemalloc.stop()
            server.runner.may_step.set()
            assert connection.answer().status == 200
            for _ in range(2000):
                assert connection.answer().status == 200
    finally:
        tracemalloc.stop()
        server.runner.may_step.set()


def test_an_upgrade_is_answered_as_if_nobody_had_asked(
    server: Running, caplog: pytest.LogCaptureFixture
) -> None:
    websocket = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: eA==\r\n"
    with Wire(server) as connection:
        connection.send(LIVE.replace(b"/health/live", b"/nowhere")[:-2] + websocket.encode() + b"\r\n")
        assert connection.answer().code == "not_found"
        connection.send(post({"input": chain(3)}, more="connection: Upgrade\r\nupgrade: h2c\r\n"))
        assert connection.answer().body["results"][0]["steps"] == 3
        connection.send(LIVE)
        assert connection.answer().status == 200
    assert not caplog.records


def test_there_are_no_redirects(server: Running) -> None:
    for method, path in (("POST", "/v1/infer/"), ("GET", "/v1/models/"), ("GET", "/health/live/")):
        refused = server.client.request(method, path, headers={"host": "elsewhere"}, json={})
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "not_found")


def test_a_host_that_is_none_is_not_our_error(server: Running) -> None:
    with Wire(server) as connection:
        connection.send(b"GET /nowhere HTTP/1.1\r\nhost: [\r\n\r\n")
        assert connection.answer().code == "not_found"


@pytest.mark.parametrize("path", ["/health/live", "/v1/infer", "/nowhere"])
def test_a_body_that_nobody_reads_is_skipped_up_to_its_limit(server: Running, path: str) -> None:
    with Wire(server) as connection:
        connection.send(post("x" * 90_000, path).replace(b"POST", b"PUT", 1) + LIVE)
        assert connection.answer().status in (404, 405)
        assert connection.answer().status == 200
        connection.send(f"PUT {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 900000000\r\n\r\n".encode())
        assert connection.answer().status in (404, 405)
        with pytest.raises(ConnectionError):  # noqa: PT012
            for _ in range(10_000):
                connection.socket.sendall(b" " * 10_000)


def test_connections_over_the_bound_are_told_so_at_once() -> None:
    with serving(max_connections=3) as server:
        server.client.close()
        others = [Wire(server) for _ in range(3)]
        try:
            for other in others:
                other.send(LIVE)
                assert other.answer().status == 200
            with Wire(server) as one_more:
                refused = one_more.answer()
                assert (refused.status, refused.code) == (503, "unavailable")
                assert one_more.is_closed()
            others.pop().close()

            def is_let_in() -> bool:
                with Wire(server) as one_more:
                    one_more.send(LIVE)
                    return one_more.answer().status == 200

            eventually(is_let_in)
        finally:
            for other in others:
                other.close()


def test_the_description_tells_what_this_server_wants() -> None:
    with (
        serving(max_problems=7, max_edges=11) as one,
        serving(counting_bundle(), counting_bundle("other"), api_keys="key") as several,
    ):
        for server, needed, secured in ((one, ["input"], False), (several, ["model", "input"], True)):
            schema = server.client.get("/openapi.json").json()
            infer = schema["paths"]["/v1/infer"]["post"]
            assert schema["components"]["schemas"]["InferRequest"]["anyOf"] == [
                {"required": needed},
                {"required": ["continue_from"]},
            ]
            assert ("security" in infer, "401" in infer["responses"]) == (secured, secured)
            assert ("securitySchemes" in schema["components"]) == secured
            metrics = schema["paths"]["/metrics"]["get"]["responses"]["200"]["content"]
            assert list(metrics) == ["text/plain"]
        *_, listed = one.client.get("/openapi.json").json()["components"]["schemas"]["InferRequest"][
            "properties"
        ]["input"]["anyOf"]
        assert listed["maxItems"] == 7
        assert listed["items"]["anyOf"][0]["properties"]["edges"]["maxItems"] == 11


def test_every_number_of_a_request_has_both_bounds(server: Running) -> None:
    schemas = server.client.get("/openapi.json").json()["components"]["schemas"]
    wanted, seen = ["InferRequest"], set[str]()
    numbers = 0
    while wanted:
        seen.add(part := wanted.pop())
        for name, field in schemas[part]["properties"].items():
            for kind in field.get("anyOf", [field]) if name != "input" else ():
                for one in (kind, kind.get("items", {})):
                    reference = one.get("$ref", "").rpartition("/")[2]
                    wanted += [reference] if reference and reference not in seen else []
                    if one.get("type") in ("integer", "number"):
                        numbers += 1
                        assert {"minimum", "exclusiveMinimum"} & set(one), name
                        assert {"maximum", "exclusiveMaximum"} & set(one) or name == "tokens", name
                    elif one.get("type") == "array":
                        assert "maxItems" in one, name
    assert seen == {"InferRequest", "Halting", "Latents", "Intervention", "Samples"}
    assert numbers > 10


def test_a_body_that_is_too_large_does_not_lose_its_answer_to_a_reset(server: Running) -> None:
    for declared in ("content-length: 9000000", "transfer-encoding: chunked"):
        head = f"POST /v1/infer HTTP/1.1\r\nhost: x\r\n{declared}\r\n\r\n".encode()
        with Wire(server) as connection:
            connection.send(head + (b"2dc6c0\r\n" if "chunked" in declared else b"") + b" " * 3_000_000)
            refused = connection.answer()
            assert (refused.status, refused.code, refused.headers["connection"]) == (
                413,
                "too_large",
                "close",
            )
            assert connection.is_closed()
