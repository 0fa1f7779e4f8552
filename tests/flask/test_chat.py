"""The example examples/flask_chat under gunicorn, in Chromium."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import PATIENCE, SEND_MALFORMED, browser
from tests.support.npm import serve_cdn
from tests.support.processes import ServerProcess
from tests.support.redis_server import RedisServer
from tests.wsgi.running import GUNICORN

pytestmark = [pytest.mark.slow, pytest.mark.unmeasured]

__all__ = ["browser"]

EXAMPLE = Path(__file__).parents[2] / "examples" / "flask_chat"
COMMAND = ("-m", "gunicorn", "--bind", "127.0.0.1:0", "--worker-class", "gthread", "--threads", "4")
STARTED = re.compile("Booting worker")
LIFETIME = 240.0


@pytest.fixture(autouse=True)
def leak_check() -> None:
    """Check nothing: the servers are other processes, and the browser owns threads and files."""


@pytest.fixture
def chat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerProcess]:
    """The example with two workers and Redis."""
    with RedisServer(tmp_path) as redis:
        monkeypatch.setenv("FLASK_WSFRAME_REDIS", redis.url)
        command = (*COMMAND, "--workers", "2", "--chdir", str(EXAMPLE), "app:app")
        with ServerProcess(*command, until=GUNICORN, lifetime=LIFETIME) as server:
            yield server


class Windows:
    """Windows of different users, with the scripts of the CDN from npm."""

    def __init__(self, browser: Browser, stack: ExitStack, url: str) -> None:
        self._browser = browser
        self._stack = stack
        self._url = url
        self.faults: list[str] = []

    def log_in(self, name: str, **options: object) -> Page:
        """Open a window, and log in."""
        context = self._stack.enter_context(
            self._browser.new_context(**options)  # type: ignore[arg-type]
        )
        context.set_default_timeout(PATIENCE)
        serve_cdn(context)
        page = context.new_page()
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.goto(self._url)
        page.fill("#name", name)
        page.get_by_text("Enter").click()
        expect(page.locator("main")).to_have_attribute("data-state", "open", timeout=PATIENCE)
        return page


@pytest.fixture
def windows(browser: Browser, chat: ServerProcess) -> Iterator[Windows]:
    with ExitStack() as stack:
        yield Windows(browser, stack, chat.url)


def write(page: Page, text: str) -> None:
    """Send a message."""
    page.fill("[name=text]", text)
    page.get_by_text("Send", exact=True).click()
    expect(page.locator("[name=text]")).to_have_value("")


def expect_messages(page: Page, *texts: str) -> None:
    """Wait for these messages, in order."""
    expect(page.locator("#messages li p")).to_have_text(list(texts), timeout=PATIENCE)


def test_users_chat_and_are_notified_across_a_restart_of_the_workers(
    windows: Windows, chat: ServerProcess, tmp_path: Path
) -> None:
    ann = windows.log_in("ann", color_scheme="light", viewport={"width": 900, "height": 620})
    bob = windows.log_in("bob", color_scheme="dark", viewport={"width": 900, "height": 620})
    expect(ann.locator("#people")).to_have_text("Here: ann, bob", timeout=PATIENCE)
    write(ann, "hello <b>Bob</b>")
    expect_messages(bob, "hello <b>Bob</b>")
    bob.get_by_role("link", name="tea", exact=True).click()
    expect(ann.locator("#people")).to_have_text("Here: ann", timeout=PATIENCE)
    expect(bob.locator("#people")).to_have_text("Here: bob", timeout=PATIENCE)
    write(bob, "come here, @ann and @eve")
    expect(ann.locator("#notifications a")).to_have_text("bob in tea: come here, @ann and @eve")

    chat.signal(signal.SIGHUP)
    chat.expect(STARTED)
    for page in (ann, bob):
        expect(page.locator("main")).to_have_attribute("data-state", "open", timeout=PATIENCE)
    ann.locator("#notifications a").click()
    expect_messages(ann, "come here, @ann and @eve")
    expect(bob.locator("#people")).to_have_text("Here: ann, bob", timeout=PATIENCE)
    write(ann, "here I am")
    expect_messages(bob, "come here, @ann and @eve", "here I am")
    write(bob, "good, @ann")
    expect(ann.locator("#notifications a")).to_have_text("bob in tea: good, @ann")

    for name, page in (("light", ann), ("dark", bob)):
        page.screenshot(path=tmp_path / f"{name}.png")
    assert windows.faults == []


def test_a_phone_shows_the_room_without_scrolling_sideways(
    windows: Windows, tmp_path: Path
) -> None:
    page = windows.log_in("cat", viewport={"width": 390, "height": 720})
    write(page, "a long message, " * 10)
    write(page, "w" * 200)
    expect(page.locator("#messages li")).to_have_count(2, timeout=PATIENCE)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.screenshot(path=tmp_path / "phone.png")
    assert page.evaluate(SEND_MALFORMED, "/talk")
    page.get_by_text("Leave, cat").click()
    page.fill("#name", "no spaces")
    page.get_by_text("Enter").click()
    expect(page.locator(".error")).to_be_visible()
    page.screenshot(path=tmp_path / "login.png")
    assert windows.faults == []
