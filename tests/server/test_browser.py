"""A real browser on the demo's page."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import AWAY, Pages, browser, faults, pages
from tests.support.pages import blocks
from tests.support.ports import port
from tests.support.processes import ServerProcess
from tests.support.relay import SilentRelay
from tests.support.serving import Serve
from wsframe import ServerSentEvent
from wsframe.server import App, EventStream, Request
from wsframe.server.dispatch.routes import Authorize

pytestmark = pytest.mark.slow

COMMAND = ("-m", "wsframe.server", "--host", "127.0.0.1", "--port")

__all__ = ["browser", "faults", "pages", "port"]


@pytest.fixture(autouse=True)
def leak_check() -> None:
    """Check nothing: the servers are other processes, and the browser owns threads and files."""


@pytest.fixture
def demo() -> Iterator[ServerProcess]:
    with ServerProcess(*COMMAND, "0") as process:
        yield process


def expect_open(page: Page) -> None:
    for badge in ("#events-state", "#chat-state"):
        expect(page.locator(badge)).to_have_text("open")
        expect(page.locator(badge)).to_have_attribute("data-state", "open")


def count(page: Page) -> int:
    return int(page.locator("#count").inner_text())


def expect_events(page: Page, at_least: int) -> None:
    page.wait_for_function("least => Number(count.textContent) >= least", arg=at_least)


def say(page: Page, text: str) -> None:
    page.fill("#text", text)
    page.click("#send")


def expect_message(page: Page, text: str) -> None:
    expect(page.locator("#messages li").last).to_contain_text(text)


def test_the_page_shows_events_and_echoes_messages(
    demo: ServerProcess, pages: Pages, faults: list[str], tmp_path: Path
) -> None:
    page = pages.open(demo.url)
    expect_open(page)
    expect(page.locator("#send")).to_be_enabled()
    say(page, "ünïcödé 🎈 <b>not bold</b>")
    expect_message(page, "ünïcödé 🎈 <b>not bold</b>")
    expect(page.locator("#text")).to_have_value("")
    expect(page.locator("#messages li")).to_have_count(1)

    expect_events(page, 5)
    lines = page.locator("#events li").all_inner_texts()
    assert len(lines) == 5
    ids = []
    for line in lines:
        match = re.fullmatch(r"\d\d:\d\d:\d\d\s+event (\d+)", line)
        assert match is not None, line
        ids.append(int(match[1]))
    assert ids == list(range(ids[0], ids[0] + 5))
    expect(page.locator("#reconnects")).to_have_text("0")

    page.screenshot(path=tmp_path / "demo.png", full_page=True)
    assert faults == []


def test_pages_chat_and_resume_and_show_who_is_present(
    demo: ServerProcess, pages: Pages, faults: list[str]
) -> None:
    ann = pages.open(f"{demo.url}/?name=Ann")
    expect_open(ann)
    say(ann, "hello, Bob")
    expect_message(ann, "hello, Bob")
    expect(ann.locator("#messages li.me")).to_have_count(1)
    bob = pages.open(f"{demo.url}/?name=Bob")
    expect_message(bob, "hello, Bob")  # from the history
    say(bob, "hello, Ann")
    expect_message(ann, "hello, Ann")
    expect(ann.locator("#people li")).to_have_text(["Ann", "Bob"])
    expect(ann.locator("#live")).to_have_text(re.compile(r"4 connections, \d threads"))

    bob.click("#pause")
    expect(bob.locator("#chat-state")).to_have_text("disconnected")
    say(ann, "x" * 200)
    expect_message(ann, "x" * 200)
    box = ann.locator("#messages li").last.locator("time").bounding_box()
    assert box is not None
    assert box["height"] < 30  # one line, also beside a long message
    bob.click("#pause")
    expect(bob.locator("#messages .notice")).to_contain_text("that you missed follow")
    expect_message(bob, "x" * 200)
    expect(bob.locator("#messages li")).to_have_count(4)

    bob.fill("#name", "Robert")
    bob.press("#name", "Enter")
    expect(ann.locator("#people li")).to_have_text(["Ann", "Robert"])
    bob.close()
    expect(ann.locator("#people li")).to_have_text(["Ann"])
    assert faults == []


def test_commands_can_be_copied_with_and_without_the_clipboard(
    demo: ServerProcess, pages: Pages, faults: list[str]
) -> None:
    page = pages.open(demo.url)
    host = demo.url.removeprefix("http://")
    for index, expected in (
        (0, f"wsframe connect {host}/hello"),
        (2, f"wsframe events {host}/time"),
    ):
        button = page.locator(".command button").nth(index)
        button.click()
        expect(button).to_have_text("Copied")
        page.fill("#text", "")
        page.press("#text", "Control+V")
        expect(page.locator("#text")).to_have_value(expected)
        # The second time as on a page that is neither of localhost nor over https.
        page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    assert faults == []


@pytest.mark.unmeasured
def test_a_page_reconnects_after_the_server_was_killed(
    pages: Pages, faults: list[str], port: int
) -> None:
    with ServerProcess(*COMMAND, str(port)) as first:
        page = pages.open(first.url)
        expect_open(page)
        expect_events(page, 1)
        say(page, "before the restart")
        expect_message(page, "before the restart")
        first.kill()
        expect(page.locator("#chat-state")).to_have_text("reconnecting")
        expect(page.locator("#events-state")).to_have_text("reconnecting")
        expect(page.locator("#send")).to_be_disabled()
    before = count(page)
    with ServerProcess(*COMMAND, str(port)) as second:
        assert second.url == first.url
        expect_open(page)
        expect(page.locator("#reconnects")).to_have_text("1")
        expect_message(page, "Messages may be missing here")
        expect_events(page, before + 2)
        say(page, "still here")
        expect_message(page, "still here")
    assert [fault for fault in faults if not AWAY.search(fault)] == []


def test_the_page_follows_the_preferred_color_scheme(
    demo: ServerProcess, pages: Pages, faults: list[str]
) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        page = pages.open(demo.url, color_scheme=scheme)
        expect_open(page)
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        ink = page.evaluate("getComputedStyle(document.body).color")
        grounds.append((brightness(ground), brightness(ink)))
    (light_ground, light_ink), (dark_ground, dark_ink) = grounds
    assert light_ground > 200 > 100 > light_ink
    assert dark_ground < 100 < 200 < dark_ink
    assert faults == []


def brightness(color: str) -> float:
    parts = [int(part) for part in re.findall(r"\d+", color)[:3]]
    return sum(parts) / 3


# Event streams that pages open --------------------------------------------------------------------

FOLLOW = """url => {
    window.received = [];
    window.source = new EventSource(url);
    source.onmessage = event => received.push(event.data);
}"""


def follow(page: Page, url: str) -> None:
    """Open an EventSource in the page."""
    page.evaluate(FOLLOW, url)


def expect_received(page: Page, *data: str) -> None:
    page.wait_for_function("count => received.length >= count", arg=len(data))
    assert page.evaluate("received") == list(data)


def asking_app() -> tuple[App, list[str], Authorize]:
    """Return an app with a page, the Last-Event-IDs of its requests, and the hook for routes."""
    app = App()
    app.page("/", "<!doctype html><title>a page</title><link rel=icon href=data:,>")
    asked: list[str] = []

    def authorize(request: Request) -> bool:
        asked.append(request.headers.get("Last-Event-ID") or "")
        return True

    return app, asked, authorize


def returns(stream: EventStream) -> Iterator[str]:
    yield "last"


def closes_for_good(stream: EventStream) -> None:
    stream.send("last")
    stream.close(final=True)


@pytest.mark.parametrize("handler", [returns, closes_for_good])
def test_a_browser_reconnects_once_after_the_final_end_and_then_stops(
    serve: Serve, pages: Pages, faults: list[str], handler: Callable[[EventStream], object]
) -> None:
    app, asked, authorize = asking_app()
    app.sse("/job", authorize=authorize)(handler)
    server = serve(app, retry=0.01)
    page = pages.open(server.url)
    follow(page, f"{server.url}/job")
    page.wait_for_function("source.readyState === EventSource.CLOSED")
    assert page.evaluate("received") == ["last"]
    # A second EventSource starts without an id. There was no other request in between.
    follow(page, f"{server.url}/job")
    page.wait_for_function("source.readyState === EventSource.CLOSED")
    assert page.evaluate("received") == ["last"]
    assert asked == ["", ":end", "", ":end"]
    assert faults == []


@pytest.mark.unmeasured
def test_a_browser_reconnects_after_any_other_end(
    serve: Serve, pages: Pages, faults: list[str]
) -> None:
    app, asked, authorize = asking_app()

    @app.sse("/job", authorize=authorize)
    def job(stream: EventStream) -> None:
        stream.send(ServerSentEvent(f"{len(asked)}", id=f"{len(asked)}"))
        if len(asked) < 3:
            stream.close()

    server = serve(app, retry=0.01)
    page = pages.open(server.url)
    follow(page, f"{server.url}/job")
    expect_received(page, "1", "2", "3")
    assert asked == ["", "1", "2"]
    assert faults == []


def test_a_browser_reads_each_event_of_a_compressed_stream_at_once(
    serve: Serve, pages: Pages, faults: list[str]
) -> None:
    app, asked, authorize = asking_app()
    topic = app.topic("news")
    app.sse("/news", source=topic, compress=True, authorize=authorize)
    server = serve(app, retry=0.01, heartbeat=0.02)
    page = pages.open(server.url)
    encodings: list[str | None] = []
    page.on("response", lambda answer: encodings.append(answer.headers.get("content-encoding")))
    follow(page, f"{server.url}/news")
    page.wait_for_function("source.readyState === EventSource.OPEN")
    for number in range(3):
        topic.publish("x" * number)
        expect_received(page, *("x" * before for before in range(number + 1)))
    topic.close()
    page.wait_for_function("source.readyState === EventSource.CLOSED")
    assert asked == ["", ":end"]
    assert encodings[0] == "gzip"
    assert faults == []


def test_a_page_detects_a_dead_connection_by_heartbeats(
    serve: Serve, pages: Pages, faults: list[str]
) -> None:
    (block,) = (block for block in blocks("javascript") if '"heartbeat"' in block.code)
    assert "30_000" in block.code
    app, _, _ = asking_app()
    topic = app.topic("news")
    app.sse("/news", topic, heartbeat_event="heartbeat")
    server = serve(app, heartbeat=0.1, retry=0.01)
    with SilentRelay(server) as relay:
        page = pages.open(relay.url)
        script = block.code.replace("30_000", "1000")
        page.add_script_tag(content=f"received = []; show = data => received.push(data); {script}")
        page.wait_for_function("last")  # the position of a new client, from a heartbeat
        relay.fall_silent()
        topic.publish("missed before any event")
        expect_received(page, "missed before any event")
        topic.publish("seen")
        expect_received(page, "missed before any event", "seen")
        relay.fall_silent()
        topic.publish("missed")
        expect_received(page, "missed before any event", "seen", "missed")
        topic.close()
        page.wait_for_function("source.readyState === EventSource.CLOSED")
        # The page's own timer of the same length has fired before this one.
        page.evaluate("new Promise(resolve => setTimeout(resolve, 1000))")
        assert page.evaluate("source.readyState === EventSource.CLOSED")
    assert faults == []


@pytest.mark.parametrize("everybody", [False, True])
def test_a_page_of_an_allowed_origin_receives_events(
    serve: Serve, pages: Pages, faults: list[str], everybody: bool
) -> None:
    site = serve(asking_app()[0])
    app, asked, authorize = asking_app()
    origins = "*" if everybody else [site.url]
    app.sse("/job", origins=origins, authorize=authorize)(returns)
    server = serve(app, retry=0.01)
    page = pages.open(site.url)
    follow(page, f"{server.url}/job")
    page.wait_for_function("source.readyState === EventSource.CLOSED")
    assert page.evaluate("received") == ["last"]
    assert asked == ["", ":end"]
    # With a header of its own the browser asks beforehand; and cookies are another matter.
    fetched = "([url, options]) => fetch(url, options).then(answer => answer.status, () => 0)"
    mine = {"headers": {"X-Mine": "1"}}
    assert page.evaluate(fetched, [f"{server.url}/job", mine]) == 200
    with_cookies = {"credentials": "include", **mine}
    status = page.evaluate(fetched, [f"{server.url}/job", with_cookies])
    assert status == (0 if everybody else 200)
    assert everybody or faults == []


def test_a_page_of_another_origin_receives_no_events(serve: Serve, pages: Pages) -> None:
    site = serve(asking_app()[0])
    app, asked, authorize = asking_app()
    app.sse("/job", origins=["https://friend.example"], authorize=authorize)(returns)
    server = serve(app)
    page = pages.open(site.url)
    follow(page, f"{server.url}/job")
    page.wait_for_function("source.readyState === EventSource.CLOSED")
    assert page.evaluate("received") == []
    assert asked == []
