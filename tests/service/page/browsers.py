"""A real browser for the tests of the pages: Chromium, driven by Playwright, where both are there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 30_000  # ms


@contextmanager
def browsing() -> Iterator[Any]:
    """A browser without a window; skips where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("there is no Chromium")
    with playwright.sync_playwright() as driver:
        # As root in a container its sandbox cannot start; the pages are our own.
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """A tab on a server's page: what it says on its console is an error, and so is every other host."""

    def __init__(self, browser: Any, url: str, path: str = "/", **options: Any) -> None:
        defaults = {"reduced_motion": "reduce", "viewport": {"width": 1280, "height": 900}}
        self.page = browser.new_page(**{**defaults, **options})
        self.page.set_default_timeout(PATIENCE)
        self.url, self.wrong = url, list[str]()
        self.page.on("pageerror", lambda error: self.wrong.append(f"{error}"))
        self.page.on("console", lambda said: said.type == "error" and self._heard(said.text))
        self.page.on("request", lambda sent: sent.url.startswith(url) or self.wrong.append(sent.url))
        self.page.goto(f"{url}{path}")

    def _heard(self, text: str) -> None:
        if "Failed to load resource" not in text:  # a refusal that the page shows
            self.wrong.append(text)

    def text(self, selector: str) -> str:
        return str(self.page.inner_text(selector))

    def fill(self, selector: str, value: str) -> None:
        self.page.fill(selector, value)
        self.page.press(selector, "Tab")

    def think(self) -> str:
        """Press the button and wait until the stream has ended; what the page tells a screen reader."""
        self.page.eval_on_selector("#said", "said => said.textContent = ''")
        self.page.click("#run")
        return self.said()

    def said(self) -> str:
        self.page.wait_for_selector("#said:not(:empty)", state="attached")
        return str(self.page.text_content("#said"))

    def scrub(self, step: int) -> None:
        move = "(scrub, step) => { scrub.value = step; scrub.dispatchEvent(new Event('input')); }"
        self.page.eval_on_selector("#scrub", move, step)

    def close(self) -> None:
        self.page.close()
        assert not self.wrong, self.wrong
