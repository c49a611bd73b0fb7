"""The page at /, in a real browser: editing, thinking, watching and acting, with every shipped model."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.http.page import STATIC
from tests.service.page.browsers import Visit, browsing
from tests.service.servers import CountingRunner, serving, shipped_running
from tests.service.tensor_bundles import grid_bundle, tokens_bundle

MODELS = sorted(path.name for path in Path("bundles").iterdir() if path.is_dir())


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browsing() as found:
        yield found


@pytest.fixture(scope="module")
def shipped(browser: Any) -> Iterator[httpx.Client]:
    with shipped_running() as client:
        yield client


@contextmanager
def visiting(browser: Any, client: httpx.Client, path: str = "/", **options: Any) -> Iterator[Visit]:
    visit = Visit(browser, str(client.base_url).rstrip("/"), path, **options)
    visit.page.wait_for_selector("#board *")
    yield visit
    visit.close()


def edit(visit: Visit, problem: dict[str, Any]) -> None:
    """Type a problem into the board's fields."""
    if "edges" in problem:
        visit.page.click("#board .plain summary")
        visit.fill('[data-field="input.source"]', problem["source"])
        visit.fill('[data-field="input.target"]', problem["target"])
    for name, value in problem.items():
        if isinstance(value, list):
            lines = (line if isinstance(line, str) else " -> ".join(line) for line in value)
            visit.fill(f'[data-field="input.{name}"]', "\n".join(lines))
        elif name not in ("source", "target"):
            visit.fill(f'[data-field="input.{name}"]', value)


@pytest.mark.parametrize("name", MODELS)
def test_every_shipped_model_thinks_about_its_example_from_editing_to_the_end_of_the_stream(
    browser: Any, shipped: httpx.Client, name: str
) -> None:
    example = shipped.get(f"/v1/models/{name}").json()["example"]
    wanted = shipped.post("/v1/infer", json={"model": name, "input": example, "max_steps": 16}).json()
    result = wanted["results"][0]
    with visiting(browser, shipped, f"/#{name}") as visit:
        edit(visit, example)
        assert visit.think() == f"{result['label']} after {result['steps']} steps: {result['halt_reason']}"
        assert visit.text("#verdict strong") == result["label"]
        assert visit.text("#at") == f"step {result['steps']} of {result['steps']}"
        assert visit.page.locator("#heat").is_visible()
        assert visit.page.locator("#scores figure.rules").count() == 1, "the model's own rule"
        stops = visit.text("#scores figure.rules figcaption span")
        assert stops == f"stops at {result['steps']}"


@pytest.mark.parametrize("name", MODELS)
def test_the_lines_to_copy_are_a_request_that_works(browser: Any, shipped: httpx.Client, name: str) -> None:
    with visiting(browser, shipped, f"/#{name}") as visit:
        said = visit.think()
        curl = visit.text("#code")
        visit.page.check('[value="python"]', force=True)
        python = visit.text("#code")
    done = subprocess.run(["bash", "-ec", curl], capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)["results"][0]
    assert said.startswith(f"{result['label']} after {result['steps']} steps")
    ran = subprocess.run([sys.executable, "-c", python], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == str(result["answer"])


def test_scrubbing_shows_every_step_with_its_own_answer(browser: Any, shipped: httpx.Client) -> None:
    with visiting(browser, shipped, "/#graph") as visit:
        visit.think()
        visit.scrub(1)
        assert visit.text("#at").startswith("step 1 of ")
        assert visit.text("#verdict strong") == "unreachable"
        visit.page.click("#forth")
        assert visit.text("#at").startswith("step 2 of ")
        visit.page.focus("#scrub")
        visit.page.keyboard.press("End")
        assert visit.text("#verdict strong") == "reachable"
        visit.page.click("#steps-table summary")
        visit.page.wait_for_selector("#steps-table td")
        rows = visit.page.locator("#steps-table tr").all_inner_texts()
        assert rows[1].split("\t")[:2] == ["1", "unreachable"]
        assert rows[-1].split("\t")[1] == "reachable"


def test_an_intervention_says_what_it_has_changed(browser: Any, shipped: httpx.Client) -> None:
    with visiting(browser, shipped, "/#logic") as visit:
        visit.think()
        visit.page.click('#board [data-token="1"]')
        assert visit.page.input_value("#act-tokens") == "1"
        visit.page.select_option("#act-op", "noise")
        visit.fill("#act-value", "40")
        visit.page.click("#act button")
        visit.page.wait_for_selector("#effect:not(:empty)")
        assert re.search(
            r"answer (as|than) without it; its probabilities are \S+ nats away", visit.text("#effect")
        )
        assert "noise ( 1 before step" in visit.text("#run-rows")
        visit.fill("#act-step", "5000")
        visit.page.click("#act button")
        assert "5000" in visit.text("#act .fault"), "the server's sentence, at the field"


def test_thinking_on_takes_up_where_the_budget_ended(browser: Any, shipped: httpx.Client) -> None:
    with visiting(browser, shipped, "/#graph") as visit:
        visit.fill("#max", "3")
        visit.page.wait_for_selector("#on:not(:disabled)")
        assert visit.text("#verdict strong") == "unreachable"
        visit.page.click("#on")
        visit.page.wait_for_selector("#at >> text=of 7")
        visit.scrub(3)
        assert visit.text("#verdict strong") == "unreachable", "the steps before are still there"
        assert visit.page.locator("#run-rows tr").count() == 2


def test_budgets_side_by_side_show_when_the_answer_turns(browser: Any, shipped: httpx.Client) -> None:
    with visiting(browser, shipped, "/#graph") as visit:
        visit.page.click("#budgets")
        visit.page.wait_for_selector("#run-rows tr:nth-child(5) td:nth-child(5) >> text=budget")
        rows = [row.split("\t")[:2] for row in visit.page.locator("#run-rows tr").all_inner_texts()]
        assert rows == [
            ["1 step", "unreachable"],
            ["2 steps", "unreachable"],
            ["4 steps", "unreachable"],
            ["8 steps", "reachable"],
            ["16 steps", "reachable"],
        ]
        visit.page.click("#run-rows tr:nth-child(1) button >> nth=0")
        assert visit.text("#at") == "step 1 of 1"


@pytest.mark.parametrize(
    ("name", "field", "typed"),
    [
        ("graph", "input.edges", "a -> b\nb"),
        ("graph", "input.target", "nowhere"),
        ("logic", "input.expression", "T & & F"),
        ("text", "input.facts", "Ann is the parent of Bob\nwho knows?"),
        ("text", "input.query", "Ann is the uncle of Bob"),
    ],
)
def test_a_fault_is_told_in_the_servers_words_at_its_field(
    browser: Any, shipped: httpx.Client, name: str, field: str, typed: str
) -> None:
    with visiting(browser, shipped, f"/#{name}") as visit:
        if name == "graph":
            visit.page.click("#board .plain summary")
        with visit.page.expect_response("**/v1/infer") as answered:
            visit.fill(f'[data-field="{field}"]', typed)
            visit.page.click("#run")
        error = answered.value.json()["error"]
        assert error["field"].startswith(field)
        shown = visit.page.wait_for_selector(".fault.at-field")
        assert shown.inner_text() == f"{error['field']} {error['message']}"
        assert visit.page.get_attribute(f'[data-field="{field}"]', "aria-invalid") == "true"
        visit.page.select_option("#samples", index=0)
        assert visit.page.locator(".fault.at-field").count() == 0


def test_terms_that_the_server_refuses_are_marked_too(browser: Any, shipped: httpx.Client) -> None:
    with visiting(browser, shipped, "/#graph") as visit:
        visit.page.select_option("#criterion", "kl")
        visit.fill("#threshold", "-1")
        visit.page.click("#run")
        shown = visit.page.wait_for_selector(".fault.at-field")
        assert shown.inner_text().startswith("halting.threshold ")
        assert visit.page.get_attribute("#threshold", "aria-invalid") == "true"


def test_a_graph_is_drawn_and_its_ends_are_chosen_with_the_pointer(
    browser: Any, shipped: httpx.Client
) -> None:
    with visiting(browser, shipped, "/#graph") as visit:
        visit.page.select_option("#samples", "the model's example")
        drawing = visit.page.locator(".drawing")
        box = drawing.bounding_box()
        visit.page.check('[name="tool"][value="link"]', force=True)
        drawing.click(position={"x": box["width"] / 2, "y": box["height"] * 0.9})  # a node, d
        end = (box["x"] + box["width"] - 34, box["y"] + box["height"] / 2)  # c, the target
        visit.page.mouse.move(*end)
        visit.page.mouse.down()
        visit.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.9, steps=4)
        visit.page.mouse.up()
        visit.page.check('[name="tool"][value="target"]', force=True)
        drawing.click(position={"x": box["width"] / 2, "y": box["height"] * 0.9})
        code = visit.text("#code")
        assert '["c", "d"]' in code
        assert '"target": "d"' in code
        assert visit.think().startswith("reachable")


def test_the_dial_and_the_drawing_work_from_the_keyboard(browser: Any, shipped: httpx.Client) -> None:
    with visiting(browser, shipped, "/#graph") as visit:
        visit.page.select_option("#samples", "the model's example")
        visit.page.focus("#dial")
        for pressed, budget in [("ArrowRight", "17"), ("PageUp", "34"), ("ArrowLeft", "33")]:
            visit.page.keyboard.press(pressed)
            assert visit.page.input_value("#max") == budget
        visit.said()  # the dial has come to rest
        visit.page.focus(".drawing")
        for pressed in ("ArrowRight", "n", "t"):  # from b, a node after it, which becomes the target
            visit.page.keyboard.press(pressed)
        code = visit.text("#code")
        assert '["b", "d"]' in code
        assert '"target": "d"' in code


@pytest.mark.parametrize(("width", "theme"), [(360, "light"), (1440, "dark")])
def test_it_fits_the_window_and_everything_has_a_name(
    browser: Any, shipped: httpx.Client, width: int, theme: str
) -> None:
    options = {"viewport": {"width": width, "height": 800}, "color_scheme": theme}
    nameless = """() => [...document.querySelectorAll('input, select, textarea, button, canvas')]
        .filter((one) => one.checkVisibility())
        .filter((one) => !(one.labels?.length || one.ariaLabel || one.textContent.trim()))
        .map((one) => one.outerHTML)"""
    for name in MODELS:
        with visiting(browser, shipped, f"/#{name}", **options) as visit:
            visit.think()
            assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
            assert visit.page.evaluate(nameless) == []
            assert visit.page.get_attribute("html", "data-theme") == theme


def test_256_nodes_and_1024_steps_are_drawn_to_the_end(browser: Any, shipped: httpx.Client) -> None:
    with visiting(browser, shipped, "/#graph") as visit:
        visit.page.select_option("#samples", "a maze of 256")
        visit.page.select_option("#criterion", "none")
        visit.page.fill("#max", "1024")
        assert visit.think() == "reachable after 1024 steps: budget"
        visit.scrub(60)
        assert visit.text("#verdict strong") == "unreachable"
        assert "256 tokens over 1024 steps" in str(visit.page.get_attribute("#heat", "aria-label"))


def test_a_running_request_can_be_cancelled(browser: Any) -> None:
    runner = CountingRunner()
    runner.pace = 0.01
    with serving(runner=runner) as server, visiting(browser, server.client) as visit:
        visit.page.select_option("#criterion", "none")
        visit.page.fill("#max", "100000")
        visit.page.click("#run")
        visit.page.wait_for_selector("#at >> text=/step [1-9]/")
        visit.page.click("#cancel")
        assert visit.said().endswith("steps: cancelled")
        assert visit.page.is_disabled("#cancel")


def test_who_leaves_the_page_frees_the_slot(browser: Any) -> None:
    runner = CountingRunner()
    runner.pace = 0.01
    with serving(runner=runner) as server:
        with visiting(browser, server.client) as visit:
            visit.page.select_option("#criterion", "none")
            visit.page.fill("#max", "100000")
            visit.page.click("#run")
            visit.page.wait_for_selector("#at >> text=/step [1-9]/")
            runner.wait_until(1)
        runner.wait_until(0)


def test_a_connection_that_breaks_is_told_and_what_came_before_stays(
    browser: Any, shipped: httpx.Client
) -> None:
    with visiting(browser, shipped, "/#graph") as visit:

        def cut(route: Any) -> None:
            whole = route.fetch()
            route.fulfill(response=whole, body=whole.body()[: len(whole.body()) // 2])

        visit.page.route("**/v1/infer", cut)
        visit.page.click("#run")
        shown = visit.page.wait_for_selector("#fault:not([hidden])")
        assert "the connection ended before the answer came" in shown.inner_text()
        assert visit.text("#at").startswith("step ")
        assert visit.page.is_disabled("#cancel")


def test_a_server_that_goes_away_is_told(browser: Any) -> None:
    with serving() as server:
        visit = Visit(browser, str(server.client.base_url).rstrip("/"))
        visit.page.wait_for_selector("#board *")
    visit.page.click("#run")
    assert (
        "the connection to the server broke"
        in visit.page.wait_for_selector("#fault:not([hidden])").inner_text()
    )
    visit.page.close()


def test_a_server_that_wants_a_key_is_given_one(browser: Any) -> None:
    with serving(api_keys="sesame", page="on") as server:
        visit = Visit(browser, str(server.client.base_url).rstrip("/"))
        visit.page.wait_for_selector("#key-panel:not([hidden])")
        visit.page.fill("#key", "sesame")
        visit.page.press("#key", "Enter")
        visit.page.wait_for_selector("#board *")
        assert visit.think().startswith("reachable")
        assert "sesame" not in visit.text("#code")
        assert visit.page.evaluate("[localStorage.length, sessionStorage['fathom-key']]") == [0, "sesame"]
        visit.close()


def test_cells_are_edited_in_a_grid_and_tensors_as_they_are(browser: Any, tmp_path: Path) -> None:
    example = {"tensors": {"x": [0.5, -1.0, 2.0, 0.25], "goal": [1.0, 2.0, 3.0]}}
    bundles = [tokens_bundle(tmp_path, example=example), grid_bundle(tmp_path)]
    assert {bundle.manifest.name for bundle in bundles} == {"cells", "grid"}
    with shipped_running(tmp_path) as client:
        with visiting(browser, client, "/#cells") as visit:
            assert visit.page.locator(".cells input").count() == 4
            visit.page.fill(".cells input >> nth=1", "-3")
            assert '"x": [0.5, -3, 2, 0.25]' in visit.text("#code")
            assert visit.think().endswith("after 16 steps: budget")
            assert visit.page.locator(".cell.marked").count() > 0
        with visiting(browser, client, "/#grid") as visit:
            visit.fill("#board textarea", "[[1, 2], [3, 4]]")
            assert visit.think().endswith(" after 16 steps: budget")
            visit.fill("#board textarea", "[[1, 2")
            visit.page.click("#run")
            assert "this is not JSON" in visit.page.wait_for_selector(".fault.at-field").inner_text()


def test_the_strip_says_what_the_server_does(browser: Any) -> None:
    runner = CountingRunner()
    with serving(runner=runner) as server, visiting(browser, server.client) as visit:
        visit.page.wait_for_selector("#strip[data-state='ready']")
        runner.pace = 0.01
        visit.page.select_option("#criterion", "none")
        visit.page.fill("#max", "100000")
        visit.page.click("#run")
        visit.page.wait_for_selector("#strip div:nth-child(2) dd >> text=1")
        visit.page.click("#cancel")
        visit.page.wait_for_selector("#strip div:nth-child(2) dd >> text=0")


def test_the_page_comes_with_a_strict_policy_and_nothing_in_line() -> None:
    with serving() as server:
        page = server.client.get("/")
        assert page.headers["content-security-policy"].startswith("default-src 'self'; object-src 'none'")
        for path in re.findall(r'(?:src|href)="(page/[^"]+)"', page.text):
            asset = server.client.get(f"/{path}")
            assert asset.status_code == 200
            assert "content-security-policy" in asset.headers
        missing = server.client.get("/page/../__init__.py")
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
    for path in STATIC.rglob("*.*"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"https?://(?!www\.w3\.org)", text), f"{path.name} names another host"
        if path.suffix == ".html":
            assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=", text), path.name


def test_the_page_can_be_closed_and_docs_stay() -> None:
    with serving(page="off") as server:
        assert server.client.get("/").status_code == 404
        assert server.client.get("/docs").status_code == 200
