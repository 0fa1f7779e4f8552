"""Chromium, driven by Playwright."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from .tools import missing_tool

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 30_000  # milliseconds
expect.set_options(timeout=PATIENCE)
# Errors on a page's console while its server is unreachable.
AWAY = re.compile("ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED|ERR_CONNECTION_RESET")

# Sends what no form of a chat sends, then a message. Returns true if that message is sent back.
SEND_MALFORMED = r"""async path => {
    const ws = new WebSocket(location.href.replace("http", "ws") + path);
    await new Promise(resolve => { ws.onopen = resolve; });
    const answered = new Promise(resolve => {
        ws.onmessage = ({data}) => { if (data.includes("still open")) resolve(true); };
        ws.onclose = () => resolve(false);
    });
    const malformed = ["", "[", "{}", "[1]", '{"text": "\\ud800"}', "[".repeat(4000)];
    for (const text of malformed) ws.send(text);
    ws.send('{"text": "still open"}');
    const result = await answered;
    ws.close();
    return result;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests of a module."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        missing_tool("chromium")
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=program, args=ARGUMENTS) as running,
    ):
        yield running


@pytest.fixture
def faults() -> list[str]:
    """The errors of the pages: exceptions, and errors on the console."""
    return []


class Pages:
    """Opens windows that share no cookies and no storage."""

    def __init__(self, browser: Browser, stack: ExitStack, faults: list[str]) -> None:
        self._browser = browser
        self._stack = stack
        self._faults = faults

    def open(self, url: str, **options: str) -> Page:
        """Open the page in a new window."""
        context = self._stack.enter_context(
            self._browser.new_context(**options)  # type: ignore[arg-type]
        )
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.on("pageerror", lambda error: self._faults.append(str(error)))
        page.on("console", self._console)
        page.goto(url)
        return page

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self._faults.append(message.text)


@pytest.fixture
def pages(browser: Browser, faults: list[str]) -> Iterator[Pages]:
    with ExitStack() as stack:
        yield Pages(browser, stack, faults)
