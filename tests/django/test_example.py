"""The example django_chat under gunicorn with four threads, in a browser."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import AWAY, PATIENCE, SEND_MALFORMED, Pages, browser, faults, pages
from tests.support.npm import serve_cdn
from tests.support.processes import ServerProcess, run
from tests.wsgi.running import GUNICORN

pytestmark = pytest.mark.slow

__all__ = ["browser", "faults", "pages"]

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "django_chat"


@pytest.fixture(autouse=True)
def leak_check() -> None:
    """Check nothing: the server is another process, and the browser owns threads and files."""


@pytest.fixture
def chat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerProcess]:
    monkeypatch.setenv("CHAT_DATABASE", str(tmp_path / "chat.sqlite3"))
    monkeypatch.setenv("CHAT_BIND", "127.0.0.1:0")
    command = ("-m", "gunicorn", "-c", str(EXAMPLE / "gunicorn_config.py"))
    with ServerProcess(*command, until=GUNICORN) as process:
        yield process


def enter(pages: Pages, url: str, name: str, **options: str) -> Page:
    """Log in, and wait for the first room."""
    page = pages.open("about:blank", **options)
    serve_cdn(page.context)
    page.goto(url)
    page.fill("[name=name]", name)
    page.fill("[name=password]", "secret")
    page.click("text=Enter")
    expect_live(page)
    return page


def expect_live(page: Page) -> None:
    expect(page.locator("#state")).to_have_text("live", timeout=PATIENCE)


def expect_members(page: Page, *names: str) -> None:
    expect(page.locator("#members li")).to_have_text(list(names), timeout=PATIENCE)


def send(page: Page, text: str) -> None:
    page.fill("#send input", text)
    page.click("#send button")
    expect(page.locator("#send input")).to_have_value("")


def expect_messages(page: Page, *texts: str) -> None:
    expected = [re.compile(re.escape(text)) for text in texts]
    expect(page.locator("#messages li")).to_have_text(expected, timeout=PATIENCE)


def test_two_users_chat_across_the_restart_of_a_worker(
    chat: ServerProcess, pages: Pages, faults: list[str], tmp_path: Path
) -> None:
    ada = enter(pages, chat.url, "ada")
    bob = enter(pages, chat.url, "bob", color_scheme="dark")
    for page in (ada, bob):
        expect_members(page, "ada", "bob")
    send(ada, "<b>not bold</b> & ünïcödé")
    send(bob, "@ada, look")
    for page in (ada, bob):
        expect_messages(page, "<b>not bold</b> & ünïcödé", "@ada, look")
    expect(ada.locator("#notices a")).to_have_text("bob in lobby: @ada, look")
    expect(bob.locator("#notices a")).to_have_count(0)
    ada.screenshot(path=tmp_path / "light.png")
    bob.screenshot(path=tmp_path / "dark.png")

    waits = [page.evaluate_handle(WATCH) for page in (ada, bob)]
    chat.signal(signal.SIGHUP)
    for page, wait in zip((ada, bob), waits, strict=True):
        page.wait_for_function("watch => watch.left", arg=wait)
        expect_live(page)
        expect_members(page, "ada", "bob")
    send(bob, "still here")
    send(ada, "me, too")
    for page in (ada, bob):
        expect_messages(page, "<b>not", "@ada, look", "still here", "me, too")
    ada.reload()
    expect_live(ada)
    expect_messages(ada, "<b>not", "@ada, look", "still here", "me, too")
    assert [fault for fault in faults if not AWAY.search(fault)] == []


# An object whose ``left`` is true once the page has noticed the end of its connection.
WATCH = """() => {
    const watch = {left: false};
    document.addEventListener("htmx:ws:close", () => { watch.left = true; });
    return watch;
}"""


def test_a_member_that_leaves_disappears(
    chat: ServerProcess, pages: Pages, faults: list[str]
) -> None:
    ada = enter(pages, chat.url, "ada")
    bob = enter(pages, chat.url, "bob")
    expect_members(ada, "ada", "bob")
    bob.click("text=garden")
    expect_live(bob)
    expect_members(bob, "bob")
    expect_members(ada, "ada")
    bob.click("text=Leave")
    expect(bob.locator("[name=password]")).to_be_visible()
    bob.fill("[name=name]", "ada")
    bob.fill("[name=password]", "another")
    bob.click("text=Enter")
    expect(bob.locator(".errorlist")).to_have_text("This name has another password.")
    assert faults == []


def test_the_room_fits_a_phone(
    chat: ServerProcess, pages: Pages, faults: list[str], tmp_path: Path
) -> None:
    page = enter(pages, chat.url, "ada")
    page.set_viewport_size({"width": 360, "height": 640})
    send(page, "a long word: " + "m" * 400)
    expect_messages(page, "a long word")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.screenshot(path=tmp_path / "phone.png")
    assert page.evaluate(SEND_MALFORMED, "live/")
    assert faults == []


def test_the_project_passes_the_checks_of_django(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
    done = run([sys.executable, str(EXAMPLE / "manage.py"), "check"])
    assert "no issues" in done.stdout, done.stderr
