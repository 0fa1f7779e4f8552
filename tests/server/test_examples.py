"""The examples, in a real browser, across a restart of their server."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import AWAY, PATIENCE, Pages, browser, faults, pages
from tests.support.ports import port
from tests.support.processes import ServerProcess

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"

__all__ = ["browser", "faults", "pages", "port"]


@pytest.fixture(autouse=True)
def leak_check() -> None:
    """The servers are other processes; the threads and files of this one are the browser's."""


def serve(example: str, port: int = 0) -> ServerProcess:
    """Serve an example's app."""
    command = ("-m", "wsframe.server", f"{example}:app", "--host", "127.0.0.1", "--retry", "0.2")
    return ServerProcess(*command, "--port", str(port), directory=EXAMPLES)


def no_surprise(faults: list[str]) -> bool:
    return not [fault for fault in faults if not AWAY.search(fault)]


def say(page: Page, text: str) -> None:
    page.fill("input", text)
    page.click("button")


def lines(page: Page) -> list[str]:
    return page.locator("#messages li").all_inner_texts()


def test_the_clock_shows_the_time(pages: Pages, faults: list[str]) -> None:
    with serve("clock") as server:
        page = pages.open(server.url)
        expect(page.locator("output")).to_have_text(re.compile(r"\d\d:\d\d:\d\d"))
    assert no_surprise(faults)


def test_the_dashboard_shows_all_metrics(pages: Pages, faults: list[str]) -> None:
    with serve("dashboard") as server:
        page = pages.open(server.url)
        expect(page.locator("tr")).to_have_count(4)
        assert {row.split()[0] for row in page.locator("tr").all_inner_texts()} == {
            "load",
            "memory",
            "requests",
            "temperature",
        }
    assert no_surprise(faults)


def test_the_chat_keeps_messages_and_members_across_a_restart(
    pages: Pages, faults: list[str], port: int, tmp_path: Path
) -> None:
    with serve("chat", port) as first:
        ann = pages.open(f"{first.url}/?room=tea&name=Ann")
        expect(ann.locator("#members")).to_have_text("Here: Ann")
        say(ann, "before <b>Bob</b> 🎈")
        expect(ann.locator("li").last).to_contain_text("before <b>Bob</b> 🎈")
        bob = pages.open(f"{first.url}/?room=tea&name=Bob")
        for page in (ann, bob):
            expect(page.locator("#members")).to_have_text("Here: Ann, Bob")
        assert lines(bob) == lines(ann)  # a new member sees earlier messages
        other = pages.open(f"{first.url}/?room=coffee&name=Cid")
        expect(other.locator("#members")).to_have_text("Here: Cid")
        assert lines(other) == []
        first.kill()
        expect(ann.locator("#members")).to_have_text("connecting…")
    with serve("chat", port):
        for page in (ann, bob):
            expect(page.locator("#members")).to_have_text("Here: Ann, Bob")
        say(bob, "after the restart")
        expect(ann.locator("li").last).to_contain_text("after the restart")
        assert [line for line in lines(ann) if "no longer available" in line]
        ann.screenshot(path=tmp_path / "chat.png")
        bob.close()
        expect(ann.locator("#members")).to_have_text("Here: Ann")
    assert no_surprise(faults)


@pytest.mark.unmeasured
def test_the_progress_continues_across_a_restart(
    pages: Pages, faults: list[str], port: int, tmp_path: Path
) -> None:
    with serve("progress", port) as first:
        page = pages.open(first.url)
        page.click("button")
        expect(page.locator("#state")).to_have_text(re.compile(r"\d+ of 100"))
        address = page.url
        page.close()  # the job continues
        page = pages.open(address)
        expect(page.locator("#state")).to_have_text(re.compile(r"\d\d of 100"))
        first.kill()
        expect(page.locator("#state")).to_contain_text("reconnecting")
    with serve("progress", port):
        expect(page.locator("#state")).to_have_text(re.compile(r"\d+ of 100"))
        page.screenshot(path=tmp_path / "progress.png")
        expect(page.locator("#state")).to_have_text("Done.", timeout=2 * PATIENCE)
        expect(page.locator("button")).to_be_enabled()  # it has not reconnected
    assert no_surprise(faults)
