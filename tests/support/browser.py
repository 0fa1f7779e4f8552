"""A real browser."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

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
PATIENCE = 15_000  # milliseconds
# What a page says on its console while its server is away.
AWAY = re.compile("ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED|ERR_CONNECTION_RESET")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests here."""
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
    """What went wrong in a page: exceptions, and errors on its console."""
    return []


class Pages:
    """Opens windows that share nothing."""

    def __init__(self, browser: Browser, stack: ExitStack, faults: list[str]) -> None:
        self._browser = browser
        self._stack = stack
        self._faults = faults

    def open(self, url: str, **options: str) -> Page:
        """Open the page in a window of its own."""
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
