"""docs/http.md says what the code does: endpoints, fields, defaults, limits and errors, held against it."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model.codecs import LONGEST_NAME, generations, graph, logic, sentences
from model.halting import HaltReason
from service.engine import steering
from service.errors import REPLIES, BadRequest, FathomError, headers_of
from service.http import middleware
from service.http.timeouts import PROBES
from service.http.v1 import answer_schemas, schemas
from service.http.v1.trajectories import MOST_ROWS
from service.settings import Settings, read_settings
from tests.service.servers import Running, chain, serving

PAGE = Path("docs/http.md").read_text(encoding="utf-8")
V2 = Path("docs/v2.md").read_text(encoding="utf-8")
WORDS = set(re.findall(r"`([a-z_0-9]+)`", PAGE)) | set(re.findall(r'"([a-z_0-9]+)"', PAGE))
FIELDS = re.findall(r"^\| (`[^|]+?) \|([^|]*)\| .+ \|$", PAGE.partition("### Halting")[0], re.MULTILINE)
FRAMEWORKS = {(404, "not_found"), (405, "method_not_allowed")}  # which have no error of ours


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving() as running:
        yield running


def section(title: str) -> str:
    """What stands under a heading."""
    return re.split(r"\n##+ ", PAGE.partition(f"# {title}\n")[2])[0]


def names(cell: str) -> list[str]:
    return re.findall(r"`([a-z_]+)`", cell)


def test_every_endpoint_is_on_the_page_and_every_path_of_the_page_is_an_endpoint(server: Running) -> None:
    described = server.client.get("/openapi.json").json()["paths"]
    told = set(re.findall(r"(?:localhost:8000|`(?:[A-Z]+ )?)(/(?:v1|health|metrics|version)[\w/.@-]*)", PAGE))
    patterns = {path: re.compile(re.sub(r"{\w+}", "[^/]+", path)) for path in described if path[:4] != "/v2/"}
    del patterns["/v2"]
    for path, pattern in patterns.items():
        assert any(pattern.fullmatch(one) for one in told), f"the page does not tell of {path}"
    for one in told - {"/v1", "/v1/requests"}:
        assert any(pattern.fullmatch(one) for pattern in patterns.values()), f"there is no {one}"
    assert "-X DELETE http://localhost:8000/v1/requests/" in PAGE
    for path in ("/openapi.json", "/docs"):
        assert f"`{path}`" in PAGE or f"`GET {path}`" in PAGE
        assert server.client.get(path).status_code == 200


def test_every_endpoint_of_v2_is_in_its_table(server: Running) -> None:
    described = {path for path in server.client.get("/openapi.json").json()["paths"] if path[:3] == "/v2"}
    table = V2.partition("## Paths")[2].partition("## Infer")[0]
    told = set()
    for path in re.findall(r"`(?:[A-Z]+ )?(/[^`]*)`", table):
        short, long = path.replace("[/versions/{version}]", ""), re.sub(r"[][]", "", path)
        if path == "/unload":
            short = long = "/v2/repository/models/{name}/unload"
        told |= {short, long} - {"/v2/health/…"}
    assert told == described


def test_the_table_of_fields_is_that_of_the_request() -> None:
    assert {name for cell, _ in FIELDS for name in names(cell)} == set(schemas.InferRequest.model_fields)


def test_a_request_that_spells_out_the_defaults_is_the_same_as_one_that_leaves_them_out(
    server: Running,
) -> None:
    defaults: dict[str, Any] = {}
    for cell, default in FIELDS:
        values = default.strip().split(", ")
        for name, value in zip(names(cell), values * len(names(cell)), strict=False):  # one stands for all
            if value == "none":
                defaults[name] = None
            elif stated := re.fullmatch(r"`(.+)`", value):
                defaults[name] = json.loads(stated[1]) if stated[1] != "last" else "last"
    assert defaults.pop("interventions", 0) is None
    assert {"stream", "include", "paired", "aggregate", "keep"} < defaults.keys()
    plain, spelt = (server.infer(chain(3), **terms).json() for terms in ({}, defaults))
    assert plain["results"] == spelt["results"]
    fields = schemas.InferRequest.model_fields
    nothing = {name: None for name in defaults if fields[name].default is None}
    assert server.infer(chain(3), **nothing).json()["results"] == plain["results"]


@pytest.mark.parametrize(
    ("part", "title"),
    [
        (schemas.Halting, "Halting"),
        (schemas.Latents, "Latents and traces"),
        (schemas.Intervention, "Interventions"),
        (schemas.Samples, "Samples"),
    ],
)
def test_every_field_of_a_part_and_each_of_its_words_is_in_its_section(part: type, title: str) -> None:
    text = section(title)
    properties = part.model_json_schema()["properties"]  # type: ignore[attr-defined]
    told = set(re.findall(r"[`\"]([a-z_0-9]+)[`\"]", text))
    for name, field in properties.items():
        assert name in told, f"{name} of {title}"
        for word in field.get("enum", ()):
            assert word in told | {"none", "float32"}, f"{word} of {name}"


def test_defaults_that_stand_in_sentences() -> None:
    text = section("Samples")
    samples = schemas.Samples.model_fields
    assert f"of `noise` ({samples['noise'].default})" in text
    assert f"drawn by `seed` ({samples['seed'].default})" in text
    assert f"`{samples['choose'].default}` (the default)" in text
    text = section("Interventions")
    assert f"| a number; {steering.USUAL_NOISE} |" in text
    assert f'or `"{schemas.Intervention.model_fields["tokens"].default}"`, the default' in text
    assert "`aggregate` is `last` (the default)" in PAGE


def test_every_field_of_an_answer_is_on_the_page() -> None:
    parts = (
        *(
            answer_schemas.InferAnswer,
            answer_schemas.Result,
            answer_schemas.TraceStep,
            answer_schemas.StepEvent,
            answer_schemas.Tensor,
        ),
        *(
            answer_schemas.Votes,
            answer_schemas.Effect,
            answer_schemas.Usage,
            answer_schemas.Timings,
            answer_schemas.Fault,
            answer_schemas.Cancelled,
        ),
    )
    for part in parts:
        for name in part.model_fields:
            assert name in WORDS, f"{name} of {part.__name__}"
    for reason in HaltReason:
        assert reason.value in WORDS


def test_every_error_is_in_the_table_with_its_status_and_none_but_those() -> None:
    told = {
        (int(status), code)
        for status, codes in re.findall(r"^\| (\d{3}) \| (`[^|]+) \|", PAGE, re.MULTILINE)
        for code in re.findall(r"`([a-z_]+)`", codes)
    }
    ours = {(reply.status, reply.code) for kind, reply in REPLIES.items() if kind is not FathomError}
    assert told == ours | FRAMEWORKS | {(500, REPLIES[FathomError].code)}
    source = inspect.getsource(middleware)
    assert all(f'{status}: ("{code}"' in source for status, code in FRAMEWORKS)


def test_settings_that_the_page_names_are_settings() -> None:
    known = set(Settings.model_fields)
    looks_like_one = re.compile(r"(max_|queue_)[a-z_]+|[a-z_]+_seconds")
    fields = set(schemas.InferRequest.model_fields)
    for word in set(re.findall(r"`([a-z_]+)`", PAGE)):
        if looks_like_one.fullmatch(word) and word not in fields:
            assert word in known, word
    assert read_settings({}).keep_seconds > 60, "the page keeps a thought for 60 s"


@pytest.mark.parametrize(
    "sentence",
    [
        f"strings of up to {LONGEST_NAME} characters, or integers of 64 bits",
        f"it has up to {logic.LONGEST:,}",
        f"A sentence has up to {sentences.LONGEST:,} characters",
        f"up to {sentences.REACH} generations",
        f"stand more than {generations.SPAN} generations apart",
        f"around a clock of {generations.GENERATIONS}",
        f"from {generations.SPAN + 1} on some question",
        f"up to {schemas.LONGEST_ID} printable ASCII",
        f"Up to {schemas.MOST_INTERVENTIONS} interventions",
        f"Up to {schemas.MOST_SAMPLES} samples, and over all problems up to {MOST_ROWS} times `max_problems`",
    ],
)
def test_limits_that_stand_in_sentences(sentence: str) -> None:
    assert sentence in PAGE
    assert graph.INTEGERS == 2**63


def test_the_connection_ends_after_the_errors_that_the_page_names(server: Running) -> None:
    assert "After what is no HTTP/1 (400), 408, 413, 414 and 431 the connection ends" in PAGE
    for kind, reply in REPLIES.items():
        ends = "connection" in headers_of(kind("x", 1) if reply.status == 429 else kind("x"))  # type: ignore[call-arg]
        assert not ends or reply.status in (408, 413), kind
    assert headers_of(BadRequest("not gzip")) == {}
    refused = server.client.post("/v1/infer", content=b"no", headers={"content-encoding": "gzip"})
    assert (refused.status_code, refused.headers.get("connection")) == (400, None)


def test_a_waiting_client_is_asked_as_often_as_the_page_says() -> None:
    assert "`100 Continue` up to five times" in PAGE
    assert 1 + len(PROBES) == 5
