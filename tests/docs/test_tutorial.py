"""The programs of the tutorial, as a reader builds them, in a real browser."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import Pages, browser, faults, pages
from tests.support.pages import DOCS, blocks
from tests.support.processes import ServerProcess
from tests.support.redis_server import RedisServer
from tests.support.waiting import TIMEOUT, wait_until_stable
from wsframe.client import WebSocket, connect
from wsframe.server import Topic
from wsframe.testing import AppServer, wait_until

__all__ = ["browser", "faults", "pages"]
pytestmark = pytest.mark.slow

PYTHON = blocks("python", pages=(DOCS / "tutorial.md",))
HTML = blocks("html", pages=(DOCS / "tutorial.md",))
JAVASCRIPT = blocks("javascript", pages=(DOCS / "tutorial.md",))


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


def test_an_interrupted_page_receives_what_it_has_missed(pages: Pages, tmp_path: Path) -> None:
    names = program(tmp_path, 1, 1)
    with AppServer(names["app"], "localhost") as server:
        page = pages.open(server.url)
        wait_for_pages(names["room"], 1)
        page.evaluate(JAVASCRIPT[0].code)
        expect(page.locator("p")).to_have_text("Disconnected")
        names["room"].publish("missed", event="message")
        page.evaluate("connect()")
        expect(page.locator("li")).to_have_text(["missed"])


def test_a_page_without_a_server_is_disconnected(pages: Pages, tmp_path: Path) -> None:
    with AppServer(program(tmp_path, 1, 1)["app"], "localhost") as server:
        page = pages.open(server.url)
        expect(page.locator("p")).to_have_text("Connected")
        server.stop()
        expect(page.locator("p")).to_have_text("Disconnected")
        expect(page.locator("button")).to_be_disabled()
        server.start()
        expect(page.locator("p")).to_have_text("Connected")
        expect(page.locator("button")).to_be_enabled()


def test_an_event_source_receives_the_messages(pages: Pages, tmp_path: Path) -> None:
    names = program(tmp_path, 1, 2, 3)
    with AppServer(names["app"], "localhost") as server:
        page = pages.open(f"{server.url}/?name=Ann")
        wait_for_pages(names["room"], 1)
        page.evaluate(f"() => {{ {JAVASCRIPT[1].code} }}")
        wait_for_pages(names["room"], 2)
        send(page, "hello")
        expect(page.locator("li")).to_have_text(["Ann: hello"] * 2)


def test_many_visitors_displace_no_message(tmp_path: Path) -> None:
    names = program(tmp_path, 1, 2)
    room, present = names["room"], names["present"]
    with AppServer(names["app"], "localhost") as server:
        room.publish("hello", event="message")
        for _ in range(3):
            guest = server.websocket("/chat?name=Ann")
            wait_until(lambda: present.members() == ["Ann"], "the guest is a member")
            guest.close()
            wait_until(lambda: present.members() == [], "the guest has left")
        assert (room.stats().history, present.stats().history) == (1, 1)


class Room:
    """A topic whose members change when the list of members is published.

    It is also its app, whose ``flush`` returns when the list is stored.
    """

    def __init__(self) -> None:
        self.done: list[str] = []
        self._joining = [["Ann"], ["Ann", "Bob"]]

    def members(self) -> list[str]:
        return self._joining[0]

    def publish(self, data: str, event: str) -> None:
        assert event == "members"
        self.done.append(data)
        self._joining = self._joining[-1:]

    def flush(self) -> None:
        self.done.append("stored")


def test_the_list_of_members_is_published_until_it_has_not_changed(tmp_path: Path) -> None:
    names = program(tmp_path, 1, 2)
    names["present"] = names["app"] = room = Room()
    names["publish_members"]()
    assert room.done == ["Ann", "stored", "Ann, Bob", "stored"]


# A function of the program, which delays some of the publishers after they have read the list.
LATE = """
import itertools
import time

numbers = itertools.count()


def late(members):
    time.sleep(next(numbers) % 3 * 0.02)
    return members
"""


def test_two_processes_agree_on_the_members(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(HTML[1].code, "utf-8")
    code = PYTHON[2].code.replace("present.members()", "late(present.members())")
    (tmp_path / "chat.py").write_text(f"{code}\n{LATE}", "utf-8")
    serve = ("-m", "wsframe", "serve", "chat:app", "--port", "0", "--workers", "2")
    lists: list[str] = []
    visitors, rounds = [f"visitor{number}" for number in range(8)], 5
    together = threading.Barrier(len(visitors) + 1, timeout=TIMEOUT)

    def watch(ws: WebSocket) -> None:
        for message in ws:
            event = json.loads(message)
            if event["event"] == "members":
                lists.append(event["data"])

    def visit(name: str) -> None:
        for _ in range(rounds):
            together.wait()
            with connect(f"{url}?name={name}"):
                together.wait()  # all have joined
                together.wait()  # the list is correct, and all leave

    def expect_list(*names: str) -> None:
        wait_until_stable(lambda: len(lists))
        wait_until(lambda: lists[-1:] == [", ".join(names)], f"the last list contains {names}")

    with (
        RedisServer(tmp_path) as redis,
        ServerProcess(*serve, "--redis", redis.url, directory=tmp_path) as process,
    ):
        url = f"ws://localhost:{process.port}/chat"
        with connect(f"{url}?name=observer") as observer:
            threads = [threading.Thread(target=visit, args=(name,)) for name in visitors]
            threads.append(threading.Thread(target=watch, args=(observer,)))
            for thread in threads:
                thread.start()
            for _ in range(rounds):
                together.wait()
                together.wait()
                expect_list("observer", *visitors)
                together.wait()
                expect_list("observer")
        for thread in threads:
            thread.join(TIMEOUT)


def test_scripts_are_valid(browser: Browser) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        for block in blocks("javascript"):
            page.evaluate("code => void new Function(`return async () => {${code}}`)", block.code)
