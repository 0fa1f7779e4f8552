"""The programs of the tutorial, as a reader builds them, in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import Pages, browser, faults, pages
from tests.support.pages import DOCS, blocks
from wsframe.server import Topic
from wsframe.testing import AppServer, wait_until

__all__ = ["browser", "faults", "pages"]
pytestmark = pytest.mark.slow

PYTHON = blocks("python", pages=(DOCS / "tutorial.md",))
HTML = blocks("html", pages=(DOCS / "tutorial.md",))


@pytest.fixture(autouse=True)
def leak_check() -> None:
    """The threads and files of this process are the browser's, too."""


def program(directory: Path, page: int, *numbers: int) -> dict[str, Any]:
    """Return the names of a program, whose page is in the same directory."""
    (directory / "page.html").write_text(HTML[page].code, "utf-8")
    names: dict[str, Any] = {"__name__": "chat", "__file__": str(directory / "chat.py")}
    for number in numbers:
        PYTHON[number].run(names)
    return names


def send(page: Page, text: str) -> None:
    page.fill("input", text)
    page.click("button")


def wait_for_pages(topic: Topic, count: int) -> None:
    """Wait until this number of pages is connected."""
    wait_until(lambda: topic.stats().subscribers == count, f"{count} pages are connected")


def test_a_message_appears_in_both_windows(pages: Pages, tmp_path: Path) -> None:
    app = program(tmp_path, 0, 0)["app"]
    with AppServer(app, "localhost") as server:
        both = [pages.open(server.url) for _ in range(2)]
        wait_for_pages(app.topic("chat"), 2)
        send(both[0], "hello")
        for page in both:
            expect(page.locator("li")).to_have_text(["hello"])


def test_a_new_window_shows_the_history(pages: Pages, tmp_path: Path) -> None:
    names = program(tmp_path, 1, 1)
    with AppServer(names["app"], "localhost") as server:
        names["room"].publish("hello", event="message")
        expect(pages.open(server.url).locator("li")).to_have_text(["hello"])


def test_the_members_are_shown_and_a_page_reconnects(pages: Pages, tmp_path: Path) -> None:
    names = program(tmp_path, 1, 2, 3)
    with AppServer(names["app"], "localhost") as server:
        ann = pages.open(f"{server.url}/?name=Ann")
        expect(ann.locator("p")).to_have_text("Here: Ann")
        bob = pages.open(f"{server.url}/?name=Bob")
        expect(ann.locator("p")).to_have_text("Here: Ann, Bob")
        send(bob, "hello")
        expect(ann.locator("li")).to_have_text(["Bob: hello"])
        stream = server.stream("/events")
        stream.read_opening()
        server.restart()
        names["room"].publish("missed", event="message")
        expect(ann.locator("li")).to_have_text(["Bob: hello", "missed"])


def test_scripts_are_valid(browser: Browser) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        for block in blocks("javascript"):
            page.evaluate("code => void new Function(`return async () => {${code}}`)", block.code)
