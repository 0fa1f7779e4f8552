"""The example in FastAPI, in a real browser, across a restart of its server."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import AWAY, PATIENCE, Pages, browser, faults, pages
from tests.support.processes import ServerProcess
from tests.support.uvicorn_server import STARTED

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"

__all__ = ["browser", "faults", "pages"]


@pytest.fixture(autouse=True)
def leak_check() -> None:
    """The servers are other processes; the threads and files of this one are the browser's."""


def serve(port: int = 0) -> ServerProcess:
    """Serve the example's app."""
    command = ("-m", "uvicorn", "--ws", "wsframe.uvicorn:WebSocketProtocol", "--port", str(port))
    return ServerProcess(*command, "fastapi_chat:app", directory=EXAMPLES, until=STARTED)


def say(page: Page, text: str) -> None:
    page.fill("input", text)
    page.click("button")


def test_the_chat_keeps_messages_and_members_across_a_restart(
    pages: Pages, faults: list[str], tmp_path: Path
) -> None:
    with serve() as first:
        ann = pages.open(f"{first.url}/?room=tea&name=Ann")
        expect(ann.locator("#members")).to_have_text("Here: Ann", timeout=PATIENCE)
        say(ann, "before <b>Bob</b> 🎈")
        expect(ann.locator("li").last).to_contain_text("before <b>Bob</b> 🎈")
        bob = pages.open(f"{first.url}/?room=tea&name=Bob")
        for page in (ann, bob):
            expect(page.locator("#members")).to_have_text("Here: Ann, Bob", timeout=PATIENCE)
        # A new member sees earlier messages.
        assert bob.locator("li").all_inner_texts() == ann.locator("li").all_inner_texts()
        other = pages.open(f"{first.url}/?room=coffee&name=Cid")
        expect(other.locator("#members")).to_have_text("Here: Cid", timeout=PATIENCE)
        assert other.locator("li").count() == 0
        first.kill()
        expect(ann.locator("#members")).to_have_text("connecting…", timeout=PATIENCE)
    with serve(first.port):
        for page in (ann, bob):
            expect(page.locator("#members")).to_have_text("Here: Ann, Bob", timeout=PATIENCE)
        say(bob, "after the restart")
        expect(ann.locator("li").last).to_contain_text("after the restart", timeout=PATIENCE)
        ann.screenshot(path=tmp_path / "chat.png")
        bob.close()
        expect(ann.locator("#members")).to_have_text("Here: Ann", timeout=PATIENCE)
    assert not [fault for fault in faults if not AWAY.search(fault)]
