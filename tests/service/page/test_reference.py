"""The API's page at /docs: every example that it offers is a request that works, without another host."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service.page.browsers import Visit, browsing
from tests.service.servers import shipped_running

LAST = "/v2/repository/models/{name}/unload"  # after which a model is gone


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The shipped bundles, for somebody who may load and unload them."""
    repository = tmp_path_factory.mktemp("examples") / "bundles"
    shutil.copytree("bundles", repository)
    with shipped_running(repository, admin_keys="admin") as client:
        client.headers["authorization"] = "Bearer admin"
        yield client


def paths(parameters: list[dict[str, Any]], path: str) -> Iterator[tuple[str, str]]:
    """A path with the examples of its parameters, by the examples' names."""
    names = {name for parameter in parameters for name in parameter.get("examples", {})} or {""}
    for name in names:
        filled = path
        for parameter in parameters:
            if parameter["in"] == "path":
                filled = filled.replace(f"{{{parameter['name']}}}", parameter["examples"][name]["value"])
        yield name, filled


def test_every_example_of_every_endpoint_works_as_it_stands(server: httpx.Client) -> None:
    described = server.get("/openapi.json").json()["paths"]
    sent = 0
    for path in sorted(described, key=lambda path: path == LAST):
        for method, operation in described[path].items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            bodies = {name: example["value"] for name, example in content.get("examples", {}).items()}
            assert bodies or not content, f"{method} {path} has a body and no example"
            for name, filled in paths(operation.get("parameters", []), path):
                assert "{" not in filled, f"{path} has a parameter without an example"
                for title, body in bodies.items() or [("", None)]:
                    if name and title in described and title != name:
                        continue
                    if name and path.endswith("/infer") and title != name:
                        continue  # a body belongs to the model of its name
                    answer = server.request(method, filled, json=body)
                    wanted = 404 if method == "delete" else 200  # nothing of this id runs
                    assert answer.status_code == wanted, f"{method} {filled} {title}: {answer.text}"
                    sent += 1
    assert sent > 40


def test_it_shows_and_sends_them_without_any_other_host(server: httpx.Client) -> None:
    with browsing() as browser:
        visit = Visit(browser, str(server.base_url).rstrip("/"), "/docs")
        visit.page.wait_for_selector(".operation")
        visit.fill("#key", "admin")
        operations = visit.page.locator(".operation")
        assert operations.count() >= 19
        opened = visit.page.locator(".operation[open]")
        assert opened.locator(".path").inner_text() == "/v1/infer"
        for example in opened.locator("select option").all_inner_texts():
            opened.locator("select").select_option(label=example)
            opened.locator(".main").click()
            visit.page.wait_for_selector(".operation[open] pre >> text=/^200/")
            visit.page.eval_on_selector(".operation[open] pre", "pre => pre.textContent = ''")
        opened.locator("text=Fields of the request").click()
        assert "max_steps" in opened.locator(".fields >> nth=0").inner_text()
        opened.locator("textarea").fill('{"model": "graph", "inputs": 1}')
        opened.locator(".main").click()
        assert "422" in visit.page.wait_for_selector(".operation[open] pre >> text=/^422/").inner_text()
        visit.close()


def test_a_narrow_window_scrolls_down_only(server: httpx.Client) -> None:
    with browsing() as browser:
        visit = Visit(
            browser, str(server.base_url).rstrip("/"), "/docs", viewport={"width": 360, "height": 700}
        )
        visit.page.wait_for_selector(".operation[open] textarea")
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= 360
        visit.close()


def test_the_page_is_part_of_the_package() -> None:
    static = Path("service/http/page/static")
    assert {"index.html", "reference.html", "page.css", "app.js"} <= {path.name for path in static.iterdir()}
